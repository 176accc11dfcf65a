use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_catalog::RunRow;
use moat_contracts::{Digest, ExportJob, Method, RunKey};
use moat_models::{Earlier, Export, ImportedBase, Parts, Staged};
use moat_protocol::control::Reply;
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_rights::Approved;
use moat_vault::Recipient;
use tracing::warn;

use super::runs;
use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::failure::Failure;
use crate::lineage;
use crate::runs as scheduler;

/// The run of an export, once everything is as it must be.
pub(crate) fn find(
    daemon: &Daemon,
    run: &str,
    folder: &Path,
    recipient: Option<&str>,
) -> Result<RunRow, Failure> {
    let run = runs::find(daemon, run)?;
    hold(daemon, folder)?;
    recipient.map(str::parse::<Recipient>).transpose().map_err(Failure::request)?;
    if run.edge.is_none() {
        return Err(Failure::request(format!(
            "run {} is {}: only a run whose edge was measured is exported",
            run.name, run.state
        )));
    }
    base(daemon, &run)?;
    Ok(run)
}

/// Whether an export may be written to a folder.
fn hold(daemon: &Daemon, folder: &Path) -> Result<(), Failure> {
    if !daemon.settings.may_export(folder) {
        return Err(Failure::request(format!(
            "{} lies in no folder of boundary.exports: name one in the configuration, or start moatd with --export DIR",
            folder.display()
        )));
    }
    if folder.exists() {
        let message = format!("{} is there already: give a folder that is not", folder.display());
        return Err(Failure::request(message));
    }
    Ok(())
}

fn base(daemon: &Daemon, run: &RunRow) -> Result<ImportedBase, Failure> {
    let base = scheduler::base(daemon, &run.recipe)?;
    if run.base == Some(base.hash) {
        return Ok(base);
    }
    Err(Failure::request(format!("base `{}` is not the one that run {} trained on", base.name, run.name)))
}

/// Where the files of an export lie, with what owns the paths.
struct Place {
    run: RunRow,
    key: RunKey,
    tuned: PathBuf,
    staging: PathBuf,
}

impl Place {
    fn of(daemon: &Daemon, run: &str, staging: &str) -> Result<Self, Failure> {
        let run = runs::find(daemon, run)?;
        Ok(Self {
            key: scheduler::key(daemon, &run)?,
            tuned: scheduler::weights(daemon, &run),
            staging: daemon.state.run(&run.name).join(staging),
            run,
        })
    }

    fn parts(&self) -> Parts<'_> {
        Parts { run: &self.run.name, key: &self.key, tuned: &self.tuned, staging: &self.staging }
    }
}

/// Completes an export where it lies sealed, in a folder of its run's.
pub(crate) async fn stage(daemon: &Arc<Daemon>, run: &RunRow, staging: &str) -> Result<Staged, Failure> {
    let place = Place::of(daemon, &run.name, staging)?;
    let base = base(daemon, run)?;
    if run.recipe.train.method == Method::Lora {
        merge(daemon, &place, &base).await?;
    }
    let daemon = daemon.clone();
    let staged = tokio::task::spawn_blocking(move || complete(&daemon, &place, &base));
    staged.await.map_err(Failure::internal)?
}

/// Has an engine write base + adapter as one model, sealed.
async fn merge(daemon: &Daemon, place: &Place, base: &ImportedBase) -> Result<(), Failure> {
    let job = ToEngine::Export(ExportJob {
        run: place.run.name.clone(),
        key: Some(place.key.clone()),
        base: daemon.state.base(&base.name).display().to_string(),
        adapter: place.tuned.display().to_string(),
        output: place.parts().model().display().to_string(),
    });
    let mut engine = Engine::start(&daemon.settings, Work::Serve).await?;
    engine.job(&job).await?;
    match engine.result().await? {
        FromEngine::Exported => Ok(()),
        _ => Err(EngineError::Unexpected.into()),
    }
}

fn complete(daemon: &Daemon, place: &Place, base: &ImportedBase) -> Result<Staged, Failure> {
    told(daemon, place, base, |facts| moat_models::stage(facts).map_err(Failure::internal))
}

/// The model card of a run, as an export of it would hold it.
pub(crate) fn card(daemon: &Daemon, run: &str) -> Result<Reply, Failure> {
    let place = Place::of(daemon, run, "")?;
    if place.run.edge.is_none() {
        return Err(Failure::request(format!(
            "run {} is {}: only a run whose edge was measured has a card",
            place.run.name, place.run.state
        )));
    }
    let base = base(daemon, &place.run)?;
    told(daemon, &place, &base, |facts| Ok(Reply::Card(moat_models::card(facts))))
}

/// Gathers everything that an export tells of a run, for what is made of it.
fn told<T>(
    daemon: &Daemon,
    place: &Place,
    base: &ImportedBase,
    make: impl FnOnce(&Export<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let run = &place.run;
    let missing = |what: &str| Failure::internal(format!("run {} has no {what} in the catalog", run.name));
    let shown = scheduler::shown(daemon, run.clone())?;
    let outcome = shown.outcome.ok_or_else(|| missing("outcome"))?;
    let edge = shown.edge.ok_or_else(|| missing("edge"))?;
    let id = run.dataset.ok_or_else(|| missing("dataset"))?;
    let dataset = daemon.state.catalog()?.dataset(id)?.ok_or_else(|| missing("dataset"))?;
    let catalog = daemon.state.catalog()?;
    let all = catalog.runs()?;
    let earlier = lineage::earlier(&all, run).map(|earlier| {
        let outcome = scheduler::shown(daemon, earlier.clone())?.outcome.ok_or_else(|| missing("start"))?;
        Ok(Earlier {
            run: earlier.name.clone(),
            recipe: earlier.recipe.hash(),
            dataset: earlier.dataset.ok_or_else(|| missing("start's dataset"))?,
            weights: outcome.weights,
        })
    });
    let earlier = earlier.collect::<Result<Vec<Earlier>, Failure>>()?;
    let facts = Export {
        version: env!("CARGO_PKG_VERSION"),
        recipe: &run.recipe,
        dataset: &dataset,
        manifest: &moat_datasets::manifest(&dataset),
        base,
        outcome: &outcome,
        edge: &edge,
        earlier: &earlier,
        files: place.parts(),
    };
    make(&facts)
}

/// What waits, by what lies there now.
pub(crate) fn measure(daemon: &Daemon, run: &str, staging: &str) -> Result<Staged, Failure> {
    let place = Place::of(daemon, run, staging)?;
    moat_models::measure(&place.parts()).map_err(Failure::internal)
}

/// Writes what two people agreed to, where they agreed to. Returns the folder and the sums of its files.
pub(crate) async fn release(
    daemon: &Arc<Daemon>,
    run: &str,
    staging: &str,
    approved: &Approved,
) -> Result<(String, BTreeMap<String, Digest>), Failure> {
    let place = Place::of(daemon, run, staging)?;
    let deed = approved.statement().deed.clone();
    let folder = PathBuf::from(&deed.destination);
    // Asked again: configuration and disk may have changed since.
    hold(daemon, &folder)?;
    let recipient: Option<Recipient> =
        deed.recipient.as_deref().map(str::parse).transpose().map_err(Failure::request)?;
    let hash = Digest::from_bytes(deed.subject);
    let written = tokio::task::spawn_blocking(move || {
        moat_models::release(&place.parts(), hash, &folder, recipient.as_ref())
    });
    let files = written.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
    Ok((deed.destination, files))
}

/// Gives back the room of an export that waits no more.
pub(crate) fn forget(daemon: &Daemon, run: &str, staging: &str) {
    let folder = daemon.state.run(run).join(staging);
    if folder.exists()
        && let Err(error) = fs::remove_dir_all(&folder)
    {
        warn!("{} cannot be removed: {error}", folder.display());
    }
}
