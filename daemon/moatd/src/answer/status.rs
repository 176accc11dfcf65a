use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use moat_catalog::{Catalog, RunRow};
use moat_contracts::Outcome;
use moat_protocol::control::{Canary, Made, Newest, Reply, SourceStatus, Status};

use super::{reviews, statements};
use crate::daemon::Daemon;
use crate::failure::Failure;
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
    for source in &daemon.settings.source {
        let counts = catalog.source_counts(&source.name)?;
        let scan = daemon.scans().get(&source.name).cloned().unwrap_or_default();
        let found = SourceStatus {
            kind: source.kind.word().to_owned(),
            location: source.path.display().to_string(),
            fault: scan.fault,
            scanning: scan.scanning,
            scanned: scan.scanned,
            read: scan.read,
            present: counts.present,
            bytes: counts.bytes,
            partial: counts.partial,
            skipped: counts.skipped,
            deleted: counts.deleted,
            verdicts: counts.verdicts,
            dropped: counts.dropped,
            redactions: counts.redactions,
        };
        status.sources.insert(source.name.clone(), found);
    }
    let runs = catalog.runs()?;
    status.made = made(daemon, &catalog, &runs)?;
    let active = runs.into_iter().filter(|run| runs::is_active(runs::state(run)));
    status.active_runs = active.map(|run| run.name).collect();
    status.waiting = statements::waiting(&catalog)?;
    status.review = reviews::count(daemon, &catalog)?;
    Ok(())
}

/// What was made of the sources' records.
fn made(daemon: &Daemon, catalog: &Catalog, runs: &[RunRow]) -> Result<Made, Failure> {
    let datasets = catalog.datasets()?;
    let mut made = Made {
        datasets: datasets.len() as u64,
        tokens: datasets.first().map_or(0, |newest| newest.tokens),
        answers: daemon.answers.load(Ordering::Relaxed),
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
        canary: canary(daemon),
        protections: daemon.protections.clone(),
        processes: daemon.confined.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        ..Status::default()
    }
}
