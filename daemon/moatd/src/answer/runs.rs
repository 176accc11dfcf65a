use std::sync::Arc;

use moat_catalog::RunRow;
use moat_contracts::Recipe;
use moat_protocol::control::{Fault, Reply, Run, RunState, Update};
use tokio::io::AsyncWrite;
use tokio::sync::broadcast::error::RecvError;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::runs;

/// Puts a new run into the queue.
pub(crate) fn start(daemon: &Daemon, recipe: Recipe) -> Result<Reply, Failure> {
    reply(daemon, runs::queue(daemon, recipe)?)
}

/// All runs, in the order of asking.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let rows = catalog.runs()?.into_iter();
    Ok(Reply::Runs(rows.map(|row| runs::shown_by(daemon, &catalog, row)).collect::<Result<_, _>>()?))
}

/// One run.
pub(crate) fn show(daemon: &Daemon, name: &str) -> Result<Reply, Failure> {
    let row = find(daemon, name)?;
    let course = runs::course(daemon, &row.name)?;
    Ok(Reply::Run(Box::new(Run { course, ..runs::shown(daemon, row)? })))
}

/// Steps at most that one answer holds: some of two hundred bytes each, well within a frame.
const MOST_STEPS: u64 = 200_000;

/// Steps of a run as they were measured.
pub(crate) fn steps(daemon: &Daemon, name: &str, after: u64, most: u64) -> Result<Reply, Failure> {
    let run = find(daemon, name)?;
    let rows = daemon.state.catalog()?.steps_after(&run.name, after, most.min(MOST_STEPS))?;
    Ok(Reply::Steps(rows.into_iter().map(runs::step).collect()))
}

/// Puts a stopped or failed run into the queue again.
pub(crate) fn resume(daemon: &Daemon, name: &str) -> Result<Reply, Failure> {
    let run = find(daemon, name)?;
    reply(daemon, runs::requeue(daemon, run)?)
}

/// Asks a run to stop, and answers when it has.
pub(crate) async fn stop(daemon: &Arc<Daemon>, name: &str) -> Result<Reply, Failure> {
    let run = find(daemon, name)?;
    if !runs::is_active(runs::state(&run)) {
        return Err(Failure::request(format!("run {} is {}: there is nothing to stop", run.name, run.state)));
    }
    if runs::stop_waiting(daemon, std::slice::from_ref(&run.name))? {
        return reply(daemon, find(daemon, &run.name)?);
    }
    let mut updates = daemon.updates.subscribe();
    daemon.ask_to_stop(&run.name);
    loop {
        let run = find(daemon, &run.name)?;
        if !runs::is_active(runs::state(&run)) {
            return reply(daemon, run);
        }
        // Missed updates do not matter: the catalog is asked after each.
        if updates.recv().await == Err(RecvError::Closed) {
            return reply(daemon, run);
        }
    }
}

/// Passes on a run's updates until it ends.
pub(crate) async fn watch(
    daemon: &Arc<Daemon>,
    name: &str,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Reply, Failure> {
    let mut updates = daemon.updates.subscribe();
    let mut told = None;
    loop {
        let run = find(daemon, name)?;
        let state = runs::state(&run);
        if told.replace(state) != Some(state) {
            tell(stream, Update::RunState { run: run.name.clone(), state }).await?;
        }
        match state {
            RunState::Failed => {
                let message = run.message.unwrap_or_else(|| "no reason was kept".to_owned());
                return Err(Failure {
                    fault: Fault::Failed,
                    message: format!("run {} failed: {message}", run.name),
                });
            }
            RunState::Stopped => {
                let message = run.message.unwrap_or_else(|| "stopped".to_owned());
                return Err(Failure {
                    fault: Fault::Failed,
                    message: format!("run {}: {message}", run.name),
                });
            }
            RunState::Done => return reply(daemon, run),
            _ => {}
        }
        loop {
            match updates.recv().await {
                Ok(Update::RunState { run: of, .. }) if of == run.name => break,
                Ok(Update::Run { run: of, progress }) if of == run.name => {
                    tell(stream, Update::Run { run: of, progress }).await?;
                }
                Ok(update @ Update::Building { .. }) if state == RunState::Building => {
                    tell(stream, update).await?
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return reply(daemon, run),
            }
        }
    }
}

pub(super) async fn tell(stream: &mut (impl AsyncWrite + Unpin), update: Update) -> Result<(), Failure> {
    moat_protocol::write(stream, &Reply::Update(update)).await.map_err(Failure::internal)
}

fn reply(daemon: &Daemon, run: RunRow) -> Result<Reply, Failure> {
    let course = runs::course(daemon, &run.name)?;
    Ok(Reply::Run(Box::new(Run { course, ..runs::shown(daemon, run)? })))
}

/// The run with a name, or the only one whose name begins with it.
pub(crate) fn find(daemon: &Daemon, name: &str) -> Result<RunRow, Failure> {
    let catalog = daemon.state.catalog()?;
    if let Some(run) = catalog.run(name)? {
        return Ok(run);
    }
    let mut found = catalog.runs()?;
    found.retain(|run| run.name.starts_with(name));
    match (found.pop(), found.len()) {
        (Some(run), 0) => Ok(run),
        (None, _) => {
            Err(Failure::request(format!("no run's name begins with `{name}`: `moat run list` shows them")))
        }
        (Some(_), more) => {
            Err(Failure::request(format!("{} runs' names begin with `{name}`: give more of it", more + 1)))
        }
    }
}
