use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use moat_catalog::{Catalog, RunRow};
use moat_contracts::Outcome;
use moat_protocol::control::{Canary, Hour, Made, Newest, Reply, RunState, Status, Training};

use super::{reviews, sources, statements};
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::pace::Pace;
use crate::runs;

/// How everything stands. A catalog that cannot be read, on a full disk say, does not keep the rest from being told.
pub(crate) fn status(daemon: &Daemon) -> Reply {
    let mut status = standing(daemon);
    if !status.seal.sealed
        && let Err(failure) = work(daemon, &mut status)
    {
        status.alarm = status.alarm.or(Some(failure.message));
    }
    Reply::Status(Box::new(status))
}

/// Adds the sources, the runs that are not ended, and what waits for a second person.
fn work(daemon: &Daemon, status: &mut Status) -> Result<(), Failure> {
    let catalog = daemon.state.catalog()?;
    status.sources = sources::all(daemon)?;
    status.hour = hour(daemon);
    let runs = catalog.runs()?;
    let trains = runs.iter().find(|run| runs::state(run) == RunState::Training);
    status.trains = trains.map(|run| training(&catalog, run)).transpose()?;
    status.made = made(daemon, &catalog, &runs)?;
    let active = runs.into_iter().filter(|run| runs::is_active(runs::state(run)));
    status.active_runs = active.map(|run| run.name).collect();
    status.waiting = statements::waiting(&catalog)?;
    status.review = reviews::count(daemon, &catalog)?;
    Ok(())
}

/// What came and went in the last hour.
fn hour(daemon: &Daemon) -> Hour {
    let pace = |pace: &Mutex<Pace>| pace.lock().unwrap_or_else(PoisonError::into_inner).hour(Instant::now());
    Hour { documents: pace(&daemon.taken_in), answers: pace(&daemon.answered) }
}

/// How far the run is that trains.
fn training(catalog: &Catalog, run: &RunRow) -> Result<Training, Failure> {
    let newest = catalog.newest_step(&run.name)?;
    Ok(Training {
        run: run.name.clone(),
        step: newest.map_or(0, |step| step.step),
        planned: run.planned,
        tokens_per_second: newest.map_or(0.0, |step| step.tokens_per_second),
        seconds_left: newest.map_or(0.0, |step| step.seconds_left),
    })
}

/// What was made of the sources' records.
fn made(daemon: &Daemon, catalog: &Catalog, runs: &[RunRow]) -> Result<Made, Failure> {
    let datasets = catalog.datasets()?;
    let mut made = Made {
        datasets: datasets.len() as u64,
        tokens: datasets.first().map_or(0, |newest| newest.tokens),
        answers: daemon.answers.load(Ordering::Relaxed),
        bases: moat_models::list(&daemon.state.bases()).map_err(Failure::internal)?.len() as u64,
        ..Made::default()
    };
    for run in runs {
        *made.runs.entry(run.state.clone()).or_default() += 1;
        let Some(edge) = runs::edge(run)? else { continue };
        made.models += 1;
        made.better += u64::from(edge.has_edge);
        made.newest = Some(Newest { run: run.name.clone(), edge: edge.all.edge });
    }
    Ok(made)
}

/// What the canaries tried, by way.
pub(crate) fn canary(daemon: &Daemon) -> Canary {
    let counts = daemon.canary.lock().unwrap_or_else(PoisonError::into_inner);
    let ways = counts.ways().iter().map(|(way, count)| (way.clone(), (count.tried, count.open))).collect();
    let last = counts.ways().iter().map(|(way, count)| (way.clone(), outcome(&count.last))).collect();
    Canary { ways, last, flown: *daemon.flown.lock().unwrap_or_else(PoisonError::into_inner) }
}

/// What came of trying a way out, in words.
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Closed(number) => std::io::Error::from_raw_os_error(*number).to_string(),
        Outcome::Open(how) => how.clone(),
    }
}

/// What can be told while the vault is sealed.
fn standing(daemon: &Daemon) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: daemon.started.elapsed().as_secs(),
        rules: Some(daemon.rules_hash),
        seal: daemon.safe().state(),
        ledger: daemon.ledger.size(),
        alarm: daemon.alarm().or_else(|| daemon.held_back()),
        held_back: daemon.held_back(),
        canary: canary(daemon),
        protections: daemon.protections.clone(),
        processes: daemon.confined.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        ..Status::default()
    }
}
