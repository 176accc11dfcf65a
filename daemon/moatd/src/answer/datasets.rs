use std::sync::Arc;

use moat_catalog::{Catalog, RunRow};
use moat_contracts::{Dataset, DatasetEntry, DatasetId, Recipe};
use moat_protocol::control::{DatasetDiff, DatasetFacts, DatasetSummary, DiffEntry, Reply};

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::{lineage, runs};

/// Builds a dataset, or finds it where it is already built.
pub(crate) async fn build(daemon: &Arc<Daemon>, recipe: Recipe) -> Result<Reply, Failure> {
    runs::check(&recipe)?;
    let base = runs::base(daemon, &recipe)?;
    Ok(Reply::Dataset(Box::new(runs::build(daemon, recipe, &base).await?)))
}

/// All datasets.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let summaries = daemon.state.catalog()?.datasets()?.into_iter().map(|dataset| DatasetSummary {
        id: dataset.id,
        built: dataset.built,
        train: dataset.train,
        held_out: dataset.held_out,
        tokens: dataset.tokens,
    });
    Ok(Reply::Datasets(summaries.collect()))
}

/// One dataset.
pub(crate) fn show(daemon: &Daemon, id: &str) -> Result<Reply, Failure> {
    Ok(Reply::Dataset(Box::new(find(&daemon.state.catalog()?, id)?)))
}

/// How one dataset is spread, and what was made of it.
pub(crate) fn facts(daemon: &Daemon, id: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let dataset = find(&catalog, id)?;
    let shape = catalog.dataset_shape(dataset.id)?;
    let (shape, built) = shape
        .ok_or_else(|| Failure::internal(format!("dataset {} is damaged in the catalog", dataset.id)))?;
    let all = catalog.runs()?;
    let on = |run: &RunRow| run.dataset == Some(dataset.id);
    let names = |runs: Vec<&RunRow>| runs.into_iter().map(|run| run.name.clone()).collect();
    let later = |run: &&RunRow| !on(run) && lineage::earlier(&all, run).any(on);
    Ok(Reply::DatasetFacts(Box::new(DatasetFacts {
        id: dataset.id,
        recipe: dataset.recipe,
        rules: dataset.rules,
        tokenizer: dataset.tokenizer,
        built,
        sources: dataset.sources,
        shape,
        runs: names(all.iter().filter(|run| on(run)).collect()),
        later: names(all.iter().filter(later).collect()),
    })))
}

/// What differs between two datasets.
pub(crate) fn diff(daemon: &Daemon, a: &str, b: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let (a, b) = (find(&catalog, a)?, find(&catalog, b)?);
    let diff = moat_datasets::diff(&a, &b);
    let entries = |entries: Vec<DatasetEntry>| -> Result<Vec<DiffEntry>, Failure> {
        let with_paths = |entry: DatasetEntry| -> Result<DiffEntry, Failure> {
            let paths =
                catalog.paths_of(entry.record)?.into_iter().map(|(source, path)| format!("{source}:{path}"));
            Ok(DiffEntry { paths: paths.collect(), entry })
        };
        entries.into_iter().map(with_paths).collect()
    };
    Ok(Reply::DatasetDiff(DatasetDiff {
        a: a.id,
        b: b.id,
        same_recipe: a.recipe == b.recipe,
        same_rules: a.rules == b.rules,
        same_tokenizer: a.tokenizer == b.tokenizer,
        added: entries(diff.added)?,
        removed: entries(diff.removed)?,
        moved: entries(diff.moved)?,
    }))
}

fn find(catalog: &Catalog, id: &str) -> Result<Dataset, Failure> {
    let found = catalog.datasets_with_prefix(id)?;
    let none =
        || Failure::request(format!("no dataset's id begins with `{id}`: `moat dataset list` shows them"));
    match found.as_slice() {
        [] => Err(none()),
        [id] => whole(catalog, *id),
        several => Err(Failure::request(format!(
            "{} datasets' ids begin with `{id}`: give more of it",
            several.len()
        ))),
    }
}

fn whole(catalog: &Catalog, id: DatasetId) -> Result<Dataset, Failure> {
    catalog.dataset(id)?.ok_or_else(|| Failure::internal(format!("dataset {id} is damaged in the catalog")))
}
