//! Runs that start from earlier ones: what they may take, and what the earlier ones saw before.

use std::collections::BTreeSet;

use moat_catalog::{Catalog, RunRow};
use moat_contracts::{Dataset, Method, Recipe, RecordId, Split, Start, TrainOutcome};
use tracing::info;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::runs;

/// The run that a recipe starts from, once it can be started from; `None` for a recipe that begins afresh.
pub(crate) fn start(catalog: &Catalog, recipe: &Recipe) -> Result<Option<RunRow>, Failure> {
    let name = recipe.train.start_from.as_str();
    if name.is_empty() {
        return Ok(None);
    }
    let refused = |reason: &str| Err(Failure::request(format!("train.start_from: {reason}")));
    let Some(run) = catalog.run(name)? else {
        return refused(&format!("there is no run {name}: `moat run list` shows them"));
    };
    if run.outcome.is_none() {
        return refused(&format!("run {name} is {}: only a run that was trained has weights", run.state));
    }
    let (own, earlier) = (&recipe.lora, &run.recipe.lora);
    let scale = |recipe: &moat_contracts::LoraRecipe| (recipe.rank, recipe.alpha, recipe.rank_stabilized);
    if run.recipe.base != recipe.base {
        refused(&format!("run {name} tuned another base, {}", run.recipe.base))
    } else if run.recipe.train.method != recipe.train.method {
        refused(&format!("run {name} was trained by another method: take its train.method"))
    } else if recipe.train.method == Method::Lora
        && (scale(own) != scale(earlier) || own.targets != earlier.targets)
    {
        refused(&format!("the adapter of run {name} has another shape: take its [lora]"))
    } else {
        Ok(Some(run))
    }
}

/// What the run's engine starts with.
pub(crate) fn take(daemon: &Daemon, run: &RunRow) -> Result<Option<Start>, Failure> {
    let Some(earlier) = start(&daemon.state.catalog()?, &run.recipe)? else { return Ok(None) };
    if earlier.base != run.base {
        return Err(Failure::request(format!("run {} began with another base of this name", earlier.name)));
    }
    let outcome = earlier.outcome.as_deref().map(serde_json::from_str::<TrainOutcome>);
    let Some(Ok(outcome)) = outcome else {
        return Err(Failure::internal(format!(
            "the outcome of run {} is damaged in the catalog",
            earlier.name
        )));
    };
    Ok(Some(Start {
        key: Some(runs::key(daemon, &earlier)?),
        folder: runs::weights(daemon, &earlier).display().to_string(),
        weights: outcome.weights,
        run: earlier.name,
    }))
}

/// The runs that a run started from, the nearest first.
pub(crate) fn earlier<'a>(all: &'a [RunRow], run: &'a RunRow) -> impl Iterator<Item = &'a RunRow> {
    let before = move |run: &'a RunRow| {
        // A run can only have started from one that was there.
        let name = &run.recipe.train.start_from;
        all.iter().find(|other| other.name == *name && other.number < run.number)
    };
    std::iter::successors(before(run), move |run| before(run))
}

/// Records that the runs before a run trained on or chose by.
fn seen(catalog: &Catalog, run: &RunRow) -> Result<BTreeSet<RecordId>, Failure> {
    let all = catalog.runs()?;
    let mut seen = BTreeSet::new();
    for earlier in earlier(&all, run) {
        let Some(id) = earlier.dataset else { continue };
        let dataset = catalog.dataset(id)?;
        let dataset = dataset
            .ok_or_else(|| Failure::internal(format!("dataset {id} of run {} is missing", earlier.name)))?;
        let entries = dataset.entries.iter().filter(|entry| entry.split != Split::HeldOut);
        seen.extend(entries.map(|entry| entry.record));
    }
    Ok(seen)
}

/// A run's dataset with nothing on the validation side that the runs before it saw.
pub(crate) fn apart(catalog: &Catalog, run: &RunRow, mut dataset: Dataset) -> Result<Dataset, Failure> {
    let seen = seen(catalog, run)?;
    dataset.entries.retain(|entry| entry.split != Split::Validation || !seen.contains(&entry.record));
    Ok(dataset)
}

/// A run's dataset with nothing on the held-back side that the runs before it saw, or a near-duplicate of it: an edge on
/// that would be none.
pub(crate) fn unseen(catalog: &Catalog, run: &RunRow, mut dataset: Dataset) -> Result<Dataset, Failure> {
    let seen = seen(catalog, run)?;
    if seen.is_empty() {
        return Ok(dataset);
    }
    let seen = moat_datasets::seen(catalog, &dataset, &seen).map_err(Failure::internal)?;
    dataset.entries.retain(|entry| entry.split != Split::HeldOut || !seen.contains(&entry.record));
    if !dataset.entries.iter().any(|entry| entry.split == Split::HeldOut) {
        return Err(Failure::request(format!(
            "every held-back record was trained on by run {} or before it: take its seed and split",
            run.recipe.train.start_from
        )));
    }
    if !seen.is_empty() {
        info!(
            "run {}: {} held-back records were trained on before and are not measured",
            run.name,
            seen.len()
        );
    }
    Ok(dataset)
}
