use std::sync::Arc;

use moat_contracts::{DatasetSource, Recipe, Split, TrainJob};
use moat_protocol::control::{Reply, RunPreview};
use moat_protocol::engine::{FromEngine, ToEngine};

use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::examples;
use crate::failure::Failure;
use crate::{lineage, runs};

/// As [`preview`], without any text of the data.
pub(crate) async fn plan(daemon: &Arc<Daemon>, recipe: Recipe) -> Result<Reply, Failure> {
    let mut reply = preview(daemon, recipe).await?;
    if let Reply::Preview(shown) = &mut reply {
        shown.preview.example.clear();
        shown.preview.left = 0;
    }
    Ok(reply)
}

/// Builds a recipe's dataset and has an engine tell what a run on it would see and take. No run begins and nothing is
/// trained; what the engine shows of the data goes to the caller and nowhere else.
pub(crate) async fn preview(daemon: &Arc<Daemon>, recipe: Recipe) -> Result<Reply, Failure> {
    runs::check(&recipe)?;
    let base = runs::base(daemon, &recipe)?;
    lineage::start(&daemon.state.catalog()?, &recipe)?;
    let dataset = runs::build(daemon, recipe.clone(), &base).await?;
    let mut sides = DatasetSource::default();
    for source in dataset.sources.values() {
        sides.train.join(&source.train);
        sides.validation.join(&source.validation);
        sides.held_out.join(&source.held_out);
    }
    let (id, hash) = (dataset.id, recipe.hash());
    let job = ToEngine::Preview(TrainJob {
        run: recipe.name.clone(),
        key: None,
        base: daemon.state.base(&base.name).display().to_string(),
        output: String::new(),
        recipe,
        start: None,
        threads: runs::threads(daemon),
        memory: runs::memory(daemon),
        processes: daemon.settings.training.processes,
        rank: 0,
    });
    let mut engine = Engine::start(&daemon.settings, Work::Train).await?;
    engine.job(&job).await?;
    let (_sender, feeding) =
        examples::feed(&daemon.state, dataset, &[Split::Train, Split::Validation], engine.feeder()?);
    let result = engine.result().await;
    let failed = |error| match error {
        EngineError::Failed(reason) => Failure::request(reason),
        error => error.into(),
    };
    match result {
        Ok(FromEngine::Previewed(preview)) => {
            Ok(Reply::Preview(Box::new(RunPreview { dataset: id, sides, recipe: hash, preview: *preview })))
        }
        Ok(_) => Err(EngineError::Unexpected.into()),
        // Where the examples could not be read, that is the reason.
        Err(EngineError::Died { .. }) if feeding.is_finished() => {
            feeding.await.map_err(Failure::internal)??;
            Err(Failure::internal("the engine ended before its preview was done"))
        }
        Err(error) => Err(failed(error)),
    }
}
