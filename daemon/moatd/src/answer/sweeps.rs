//! Sweeps: a run for each point of a grid of recipe values. All of a sweep's runs are written into the queue at once, so
//! that whatever is cut off meanwhile, none is lost and none begins twice; from then on they are runs as any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_catalog::{RunRow, SweepRow};
use moat_contracts::{Progress, Sweep, TrainOutcome};
use moat_protocol::control::{Reply, RunState, SweepReport, SweepRun, SweepState, Update};
use tokio::io::AsyncWrite;
use tokio::sync::broadcast::error::RecvError;

use super::runs::tell;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::{lineage, runs};

/// How often a sweep is told anew at most because of single steps.
const OFTEN: Duration = Duration::from_secs(2);

/// Puts a run for each point of a sweep into the queue.
pub(crate) fn start(daemon: &Daemon, sweep: Sweep) -> Result<Reply, Failure> {
    runs::check(&sweep.recipe)?;
    let faults = sweep.faults();
    if !faults.is_empty() {
        let told = |fault: &moat_contracts::SweepFault| format!("{} {}", fault.key, fault.message);
        let told: Vec<_> = faults.iter().map(told).collect();
        return Err(Failure::request(format!("the sweep is faulty: {}", told.join("; "))));
    }
    let recipes = sweep.recipes().map_err(|fault| Failure::request(fault.message))?;
    runs::base(daemon, &sweep.recipe)?;
    let catalog = daemon.state.catalog()?;
    for recipe in &recipes {
        lineage::start(&catalog, recipe)?;
    }
    let batch = catalog.write()?;
    let number = batch.sweeps()?.last().map_or(1, |sweep| sweep.number + 1);
    let name = format!("{}-sweep-{number}", sweep.recipe.name);
    let mut names = Vec::with_capacity(recipes.len());
    for recipe in recipes {
        names.push(runs::put_new(&batch, recipe)?.name);
    }
    let row = SweepRow { name, number, sweep, created: now() };
    batch.put_sweep(&row, &names)?;
    batch.commit()?;
    daemon.runs.notify_waiters();
    reply(daemon, &row)
}

/// All sweeps, in the order of asking.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let short = |row: &SweepRow| Ok(SweepReport { runs: Vec::new(), ..report(daemon, row)? });
    let rows = daemon.state.catalog()?.sweeps()?;
    Ok(Reply::Sweeps(rows.iter().map(short).collect::<Result<_, Failure>>()?))
}

/// One sweep.
pub(crate) fn show(daemon: &Daemon, name: &str) -> Result<Reply, Failure> {
    reply(daemon, &find(daemon, name)?)
}

/// Stops a sweep, and answers when nothing of it goes on.
pub(crate) async fn stop(daemon: &Arc<Daemon>, name: &str) -> Result<Reply, Failure> {
    let row = find(daemon, name)?;
    let names = daemon.state.catalog()?.sweep_runs(&row.name)?;
    let waited = runs::stop_waiting(daemon, &names)?;
    let mut at_work = None;
    for run in of(daemon, &row)? {
        if runs::is_active(runs::state(&run)) {
            at_work = Some(run.name);
        }
    }
    match at_work {
        Some(run) => drop(super::runs::stop(daemon, &run).await?),
        None if !waited => {
            return Err(Failure::request(format!(
                "no run of sweep {} goes on: there is nothing to stop",
                row.name
            )));
        }
        None => {}
    }
    reply(daemon, &row)
}

/// Puts a sweep's stopped and failed runs into the queue again.
pub(crate) fn resume(daemon: &Daemon, name: &str) -> Result<Reply, Failure> {
    let row = find(daemon, name)?;
    let ended = |run: &RunRow| matches!(runs::state(run), RunState::Stopped | RunState::Failed);
    let ended: Vec<RunRow> = of(daemon, &row)?.into_iter().filter(ended).collect();
    if ended.is_empty() {
        let reason =
            format!("no run of sweep {} was stopped or failed: there is nothing to resume", row.name);
        return Err(Failure::request(reason));
    }
    for run in ended {
        runs::requeue(daemon, run)?;
    }
    reply(daemon, &row)
}

/// Tells how a sweep stands until none of its runs goes on.
pub(crate) async fn watch(
    daemon: &Arc<Daemon>,
    name: &str,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Reply, Failure> {
    let mut updates = daemon.updates.subscribe();
    let row = find(daemon, name)?;
    let names = daemon.state.catalog()?.sweep_runs(&row.name)?;
    loop {
        let report = report(daemon, &row)?;
        if matches!(report.state, SweepState::Done | SweepState::Stopped) {
            return Ok(Reply::Sweep(Box::new(report)));
        }
        tell(stream, Update::Sweep(Box::new(report))).await?;
        let told = Instant::now();
        loop {
            match updates.recv().await {
                Ok(Update::RunState { run, .. }) if names.contains(&run) => break,
                Ok(Update::Run { run, progress }) if names.contains(&run) => {
                    let looked = matches!(progress, Progress::Validated { .. });
                    if looked || told.elapsed() >= OFTEN {
                        break;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return reply(daemon, &row),
            }
        }
    }
}

fn reply(daemon: &Daemon, row: &SweepRow) -> Result<Reply, Failure> {
    Ok(Reply::Sweep(Box::new(report(daemon, row)?)))
}

/// The runs of a sweep, in the order of its points.
fn of(daemon: &Daemon, row: &SweepRow) -> Result<Vec<RunRow>, Failure> {
    let catalog = daemon.state.catalog()?;
    let damaged = || Failure::internal(format!("a run of sweep {} is missing", row.name));
    let names = catalog.sweep_runs(&row.name)?;
    names.iter().map(|name| catalog.run(name)?.ok_or_else(damaged)).collect()
}

/// A sweep as `moat` shows it.
fn report(daemon: &Daemon, row: &SweepRow) -> Result<SweepReport, Failure> {
    let keys: Vec<String> = row.sweep.values.iter().map(|swept| swept.key.clone()).collect();
    let all = of(daemon, row)?;
    let mut runs: Vec<SweepRun> =
        all.iter().map(|run| result(daemon, run, &keys)).collect::<Result<_, _>>()?;
    let count = |state: RunState| runs.iter().filter(|run| run.state == state).count() as u64;
    let (done, failed, stopped) = (count(RunState::Done), count(RunState::Failed), count(RunState::Stopped));
    let (of, waiting) = (runs.len() as u64, count(RunState::Queued));
    let state = match (waiting == of, done + failed + stopped == of, stopped > 0) {
        (true, ..) => SweepState::Queued,
        (_, false, _) => SweepState::Running,
        (_, true, true) => SweepState::Stopped,
        (_, true, false) => SweepState::Done,
    };
    // A sort that keeps the order of those that are alike.
    let rank = |run: &SweepRun| match (run.state, run.validation) {
        (RunState::Done, Some(loss)) => (0, loss),
        (RunState::Done, None) => (1, 0.0),
        _ => (2, 0.0),
    };
    runs.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
    let best = runs.first().filter(|run| rank(run).0 == 0).map(|run| run.run.clone());
    Ok(SweepReport {
        name: row.name.clone(),
        state,
        created: row.created,
        base: row.sweep.recipe.base.clone(),
        keys,
        validated: row.sweep.recipe.split.validation > 0.0,
        of,
        done,
        failed,
        best,
        runs,
    })
}

/// What came of one run.
fn result(daemon: &Daemon, run: &RunRow, keys: &[String]) -> Result<SweepRun, Failure> {
    let catalog = daemon.state.catalog()?;
    let damaged = |_| Failure::internal(format!("the outcome of run {} is damaged in the catalog", run.name));
    let outcome = run.outcome.as_deref().map(serde_json::from_str::<TrainOutcome>);
    let outcome = outcome.transpose().map_err(damaged)?;
    let kept = outcome.as_ref().and_then(|outcome| outcome.validation).map(|outcome| outcome.kept);
    let validation = match kept {
        Some(kept) => Some(kept),
        None => catalog.validations(&run.name)?.last().map(|look| look.loss),
    };
    let mut values = moat_settings::recipe_values(&run.recipe);
    Ok(SweepRun {
        state: runs::state(run),
        message: run.message.clone(),
        values: keys.iter().map(|key| values.remove(key).unwrap_or_default()).collect(),
        validation,
        loss: outcome.as_ref().map(|outcome| outcome.last_loss),
        edge: runs::edge(run)?.and_then(|report| report.all.edge),
        steps: catalog.last_step(&run.name)?.unwrap_or(0),
        planned: run.planned,
        peak_memory: outcome.map(|outcome| outcome.peak_memory).filter(|peak| *peak > 0),
        run: run.name.clone(),
    })
}

/// The sweep with a name, or the only one whose name begins with it.
fn find(daemon: &Daemon, name: &str) -> Result<SweepRow, Failure> {
    let mut found = daemon.state.catalog()?.sweeps()?;
    if let Some(at) = found.iter().position(|sweep| sweep.name == name) {
        return Ok(found.swap_remove(at));
    }
    found.retain(|sweep| sweep.name.starts_with(name));
    match (found.pop(), found.len()) {
        (Some(sweep), 0) => Ok(sweep),
        (None, _) => Err(Failure::request(format!(
            "no sweep's name begins with `{name}`: `moat sweep list` shows them"
        ))),
        (Some(_), more) => {
            Err(Failure::request(format!("{} sweeps' names begin with `{name}`: give more of it", more + 1)))
        }
    }
}
