//! Several runs side by side.

use std::collections::BTreeSet;

use moat_catalog::RunRow;
use moat_contracts::EvaluateRecipe;
use moat_protocol::control::{Against, Comparison, KeyDifference, Reply, Run};

use super::runs::find;
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::runs;

/// Runs at most that are compared at a time.
const MOST: usize = 8;

/// Compares runs: recipes key by key, and each edge with the first one's.
pub(crate) fn compare(daemon: &Daemon, names: &[String]) -> Result<Reply, Failure> {
    let rows: Vec<RunRow> = names.iter().map(|name| find(daemon, name)).collect::<Result<_, _>>()?;
    let different: BTreeSet<i64> = rows.iter().map(|run| run.number).collect();
    if different.len() != rows.len() || !(2..=MOST).contains(&rows.len()) {
        return Err(Failure::request(format!("from 2 to {MOST} different runs are compared")));
    }
    let recipe = keys(&rows);
    let (first, others) = rows.split_first().ok_or_else(|| Failure::request("no run was named"))?;
    // With each interval a little wider all of them hold together as surely as one would (Bonferroni).
    let of_one = &first.recipe.evaluate;
    let confidence = 1.0 - (1.0 - of_one.confidence) / others.len() as f64;
    let evaluate = EvaluateRecipe { confidence, ..of_one.clone() };
    let against = others.iter().map(|run| against(daemon, first, run, &evaluate));
    let against = against.collect::<Result<_, _>>()?;
    let shown = |row: RunRow| {
        let course = runs::course(daemon, &row.name)?;
        Ok(Run { course, ..runs::shown(daemon, row)? })
    };
    let runs = rows.into_iter().map(shown).collect::<Result<_, Failure>>()?;
    Ok(Reply::Comparison(Box::new(Comparison { runs, recipe, against })))
}

/// Keys of the recipes of which not all have the same value.
fn keys(rows: &[RunRow]) -> Vec<KeyDifference> {
    let all: Vec<_> = rows.iter().map(|run| moat_settings::recipe_values(&run.recipe)).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(|values| values.keys()).collect();
    let difference = |key: &String| {
        let values: Vec<String> =
            all.iter().map(|values| values.get(key).cloned().unwrap_or_default()).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        differ.then(|| KeyDifference { key: key.clone(), values })
    };
    keys.into_iter().filter_map(difference).collect()
}

fn against(
    daemon: &Daemon,
    first: &RunRow,
    run: &RunRow,
    evaluate: &EvaluateRecipe,
) -> Result<Against, Failure> {
    let catalog = daemon.state.catalog()?;
    let losses = [catalog.losses(&first.name)?, catalog.losses(&run.name)?];
    let unknown = [first, run].into_iter().zip(&losses).find(|(_, losses)| losses.is_empty());
    let (difference, why) = match unknown {
        Some((run, _)) if run.edge.is_none() => {
            (None, Some(format!("the edge of run {} is not measured", run.name)))
        }
        Some((run, _)) => (
            None,
            Some(format!("run {} was measured by a release that kept no loss of single records", run.name)),
        ),
        None => {
            let found = moat_edge::difference(&losses[0], &losses[1], evaluate, first.recipe.seed);
            let least = moat_edge::MIN_RECORDS;
            let few = || format!("fewer than {least} held-back records are the same");
            (found, found.is_none().then(few))
        }
    };
    Ok(Against {
        run: run.name.clone(),
        same_base: first.base == run.base && run.base.is_some(),
        same_dataset: first.dataset == run.dataset && run.dataset.is_some(),
        difference,
        why,
    })
}
