use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_catalog::ApiKeyRow;
use moat_contracts::{AskJob, Sampling};
use moat_protocol::control::{Reply, RunState};
use moat_protocol::engine::{FromEngine, ToEngine};

use super::keys;
use super::runs::find;
use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::failure::Failure;
use crate::runs;

/// Completes a prompt with the base and a run's tuned model; the newest finished run where none is named. What the
/// bearer of an API key is served is counted.
pub(crate) async fn ask(
    daemon: &Arc<Daemon>,
    key: Option<&ApiKeyRow>,
    run: Option<String>,
    prompt: String,
    chat: bool,
    sampling: Sampling,
) -> Result<Reply, Failure> {
    let run = match run {
        Some(name) => find(daemon, &name)?,
        None => {
            let mut done = daemon.state.catalog()?.runs()?;
            done.retain(|run| runs::state(run) == RunState::Done);
            done.pop()
                .ok_or_else(|| Failure::request("no run is done yet: `moat run start RECIPE` makes one"))?
        }
    };
    if run.outcome.is_none() {
        return Err(Failure::request(format!("run {} has no weights yet: it is {}", run.name, run.state)));
    }
    let base = runs::base(daemon, &run.recipe)?;
    let job = ToEngine::Ask(AskJob {
        run: run.name.clone(),
        key: Some(runs::key(daemon, &run)?),
        base: daemon.state.base(&base.name).display().to_string(),
        tuned: Some(runs::weights(daemon, &run).display().to_string()),
        prompt,
        chat,
        sampling,
    });
    let mut engine = Engine::start(&daemon.settings, Work::Serve).await?;
    engine.job(&job).await?;
    match engine.result().await {
        Ok(FromEngine::Answered(completions)) => {
            daemon.answers.fetch_add(1, Ordering::Relaxed);
            if let Some(key) = key {
                keys::count(daemon, key, &completions, base.bytes)?;
            }
            Ok(Reply::Answer(completions))
        }
        Err(EngineError::Failed(reason)) => Err(Failure::request(reason)),
        Err(error) => Err(error.into()),
        Ok(_) => Err(EngineError::Unexpected.into()),
    }
}
