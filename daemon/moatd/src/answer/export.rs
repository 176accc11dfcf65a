use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_catalog::RunRow;
use moat_contracts::{ExportJob, Method};
use moat_models::{Begun, Export, ImportedBase};
use moat_protocol::control::{Exported, Reply};
use moat_protocol::engine::{FromEngine, ToEngine};

use super::runs::find;
use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::failure::Failure;
use crate::runs;

/// Writes a run's weights with their lineage into a new folder.
pub(crate) async fn export(daemon: &Arc<Daemon>, run: &str, folder: &str) -> Result<Reply, Failure> {
    let run = find(daemon, run)?;
    let folder = PathBuf::from(folder);
    if !daemon.settings.may_export(&folder) {
        return Err(Failure::request(format!(
            "{} lies in no folder of boundary.exports: name one in the configuration, or start moatd with --export DIR",
            folder.display()
        )));
    }
    if folder.exists() {
        return Err(Failure::request(format!(
            "{} is there already: give a folder that is not",
            folder.display()
        )));
    }
    if run.edge.is_none() {
        return Err(Failure::request(format!(
            "run {} is {}: only a run whose edge was measured is exported",
            run.name, run.state
        )));
    }
    let base = runs::base(daemon, &run.recipe)?;
    if run.base != Some(base.hash) {
        return Err(Failure::request(format!(
            "base `{}` is not the one that run {} trained on",
            base.name, run.name
        )));
    }
    let begun = moat_models::begin(&folder).map_err(Failure::internal)?;
    if run.recipe.train.method == Method::Lora {
        merge(daemon, &run, &base, &begun).await?;
    }
    let daemon = daemon.clone();
    let written = tokio::task::spawn_blocking(move || finish(&daemon, &run, &base, begun, &folder));
    Ok(Reply::Exported(written.await.map_err(Failure::internal)??))
}

/// Has an engine write base + adapter as one model, into the export.
async fn merge(daemon: &Daemon, run: &RunRow, base: &ImportedBase, begun: &Begun) -> Result<(), Failure> {
    let job = ToEngine::Export(ExportJob {
        run: run.name.clone(),
        key: runs::key(daemon, run)?,
        base: daemon.state.base(&base.name).display().to_string(),
        adapter: runs::weights(daemon, run).display().to_string(),
        output: begun.model().display().to_string(),
    });
    let mut engine = Engine::start(&daemon.settings, Work::Serve).await?;
    engine.job(&job).await?;
    match engine.result().await? {
        FromEngine::Exported => Ok(()),
        _ => Err(EngineError::Unexpected.into()),
    }
}

fn finish(
    daemon: &Daemon,
    run: &RunRow,
    base: &ImportedBase,
    begun: Begun,
    folder: &Path,
) -> Result<Exported, Failure> {
    let missing = |what: &str| Failure::internal(format!("run {} has no {what} in the catalog", run.name));
    let shown = runs::shown(daemon, run.clone())?;
    let outcome = shown.outcome.ok_or_else(|| missing("outcome"))?;
    let edge = shown.edge.ok_or_else(|| missing("edge"))?;
    let id = run.dataset.ok_or_else(|| missing("dataset"))?;
    let dataset = daemon.state.catalog()?.dataset(id)?.ok_or_else(|| missing("dataset"))?;
    let (tuned, key) = (runs::weights(daemon, run), runs::key(daemon, run)?);
    let facts = Export {
        run: &run.name,
        version: env!("CARGO_PKG_VERSION"),
        recipe: &run.recipe,
        dataset: &dataset,
        manifest: &moat_datasets::manifest(&dataset),
        base,
        outcome: &outcome,
        edge: &edge,
        tuned: &tuned,
        key: key.as_ref(),
    };
    let files = begun.finish(&facts).map_err(Failure::internal)?;
    Ok(Exported { folder: folder.display().to_string(), files })
}
