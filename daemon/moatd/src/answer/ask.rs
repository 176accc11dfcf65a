use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use moat_catalog::{ApiKeyRow, RunRow};
use moat_contracts::{AskJob, Completion, Sampling};
use moat_protocol::control::{Reply, RunState, Update};
use moat_protocol::engine::{FromEngine, ToEngine};
use tokio::io::AsyncWrite;

use super::keys;
use super::runs::find;
use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::failure::Failure;
use crate::runs;

/// What is to be completed, and how.
pub(super) struct Question {
    pub(super) prompt: String,
    /// Whether it goes through the chat template.
    pub(super) chat: bool,
    pub(super) sampling: Sampling,
}

/// Completes a prompt with the base and a run's tuned model; the newest finished run where none is named. What the
/// bearer of an API key is served is counted.
pub(super) async fn ask(
    daemon: &Arc<Daemon>,
    key: Option<&ApiKeyRow>,
    run: Option<String>,
    question: Question,
    stream: &mut (impl AsyncWrite + Unpin),
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
    Ok(Reply::Answer(complete(daemon, key, &run, question, stream).await?))
}

/// Has an engine complete a prompt, and passes on each piece of the answers as it is made. Whoever hangs up ends the
/// engine. The bearer of an API key is told everything at once, after it was counted.
pub(super) async fn complete(
    daemon: &Arc<Daemon>,
    key: Option<&ApiKeyRow>,
    run: &RunRow,
    question: Question,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Vec<Completion>, Failure> {
    if run.outcome.is_none() {
        return Err(Failure::request(format!("run {} has no weights yet: it is {}", run.name, run.state)));
    }
    let base = runs::base(daemon, &run.recipe)?;
    let Question { prompt, chat, sampling } = question;
    let job = ToEngine::Ask(AskJob {
        run: run.name.clone(),
        key: Some(runs::key(daemon, run)?),
        base: daemon.state.base(&base.name).display().to_string(),
        tuned: Some(runs::weights(daemon, run).display().to_string()),
        prompt,
        chat,
        sampling,
    });
    let mut engine = Engine::start(&daemon.settings, Work::Serve).await?;
    engine.job(&job).await?;
    let completions = loop {
        match engine.next().await {
            Ok(FromEngine::Piece { model, text }) if key.is_none() => {
                let update = Reply::Update(Update::Answering { model, text });
                moat_protocol::write(stream, &update).await.map_err(Failure::internal)?;
            }
            Ok(FromEngine::Piece { .. } | FromEngine::Progress(_)) => {}
            Ok(FromEngine::Answered(completions)) => break completions,
            Err(EngineError::Failed(reason)) => return Err(Failure::request(reason)),
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(EngineError::Unexpected.into()),
        }
    };
    daemon.answers.fetch_add(1, Ordering::Relaxed);
    daemon.answered.lock().unwrap_or_else(PoisonError::into_inner).add(1, Instant::now());
    if let Some(key) = key {
        keys::count(daemon, key, &completions, base.bytes)?;
    }
    Ok(completions)
}
