//! Sources: how each stands, what lies in it, whether it can be read, what of it was not read, and its pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_contracts::{DocumentState, Skip};
use moat_protocol::control::{
    FaultyDocument, Reply, SourceEntry, SourceFaults, SourceListing, SourceProblem, SourceStatus, SourceTrial,
};
use moat_settings::SourceSettings;
use moat_sources::{EntryIs, SourceError, TrialLimits};

use crate::counts::BySource;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::intake::{self, Intake, Reader};
use crate::sources::{self, Source};

/// Entries, and documents with faults, that are told at once.
const PART: usize = 200;

/// What a trial may take: a person waits for it.
const TRIAL: TrialLimits = TrialLimits { entries: 1_000_000, time: Duration::from_secs(20) };

/// Every source, and how it stands.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    Ok(Reply::Sources(all(daemon)?))
}

/// How every source stands; of many documents, as they stood a moment ago.
pub(super) fn all(daemon: &Daemon) -> Result<BTreeMap<String, SourceStatus>, Failure> {
    let sources = daemon.sources();
    let counts = daemon.counts.recent(&daemon.state, &names(&sources))?;
    Ok(sources.iter().map(|source| one(daemon, &counts, source)).collect())
}

/// Counts what the catalog holds now, so that what is told next is no older.
pub(super) fn count(daemon: &Daemon) -> Result<(), Failure> {
    daemon.counts.exact(&daemon.state, &names(&daemon.sources()))?;
    Ok(())
}

fn names(sources: &[Source]) -> Vec<String> {
    sources.iter().map(|source| source.settings.name.clone()).collect()
}

fn one(daemon: &Daemon, counts: &BySource, source: &Source) -> (String, SourceStatus) {
    let Source { settings: source, added, removing } = source;
    let counts = counts.get(&source.name).cloned().unwrap_or_default();
    let scan = daemon.scans().get(&source.name).cloned().unwrap_or_default();
    let paused = daemon.paused_since(&source.name);
    let at = now();
    let started = at.saturating_sub(i64::try_from(daemon.started.elapsed().as_secs()).unwrap_or(at));
    // Where scans fail, nothing is known of what came since the last whole one.
    let behind = match &scan.fault {
        Some(_) => Some(scan.scanned.unwrap_or(started)),
        None => scan.noticed,
    };
    let status = SourceStatus {
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
        lag: behind.map_or(0, |since| at.saturating_sub(since).max(0).cast_unsigned()),
        unsettled: scan.unsettled,
        due: scan.due.filter(|_| paused.is_none()),
        took: scan.took,
        rescan: source.rescan_seconds,
        paused,
        added: added.clone(),
        removing: *removing,
    };
    (source.name.clone(), status)
}

/// The source of a name.
pub(super) fn find(daemon: &Daemon, name: &str) -> Result<Source, Failure> {
    let found = daemon.sources().iter().find(|source| source.settings.name == name).cloned();
    found.ok_or_else(|| {
        Failure::request(format!("there is no source `{name}`: `moat source list` shows those there are"))
    })
}

/// A source that cannot be read is told of to whoever asked for it.
fn failure(error: SourceError) -> Failure {
    match error {
        SourceError::Catalog(_) => Failure::internal(error),
        error => Failure::request(error),
    }
}

/// Looks into a source, apart from the threads that answer.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?
}

/// What a folder of a source holds, with where each file stands.
pub(crate) async fn browse(
    daemon: &Arc<Daemon>,
    source: &str,
    folder: String,
    after: Option<String>,
) -> Result<Reply, Failure> {
    let (daemon, source) = (daemon.clone(), find(daemon, source)?);
    let listing = apart(move || {
        let source = still(&daemon, source)?;
        let folder = folder.trim_matches('/').to_owned();
        let after = after.as_deref();
        let listed = match intake::reader(&source) {
            Reader::Folder(reader) => reader.browse(&folder, after, PART),
            Reader::Git(reader) => reader.browse(&folder, after, PART),
        };
        let listed = listed.map_err(failure)?;
        let catalog = daemon.state.catalog()?;
        let more = listed.entries.len() == PART && listed.of > PART as u64;
        let entries = listed.entries.into_iter().map(|entry| {
            let path =
                if folder.is_empty() { entry.name.clone() } else { format!("{folder}/{}", entry.name) };
            let known = match entry.is {
                EntryIs::Folder => None,
                _ => catalog.document_at(&source.name, &path)?,
            };
            Ok::<_, Failure>(SourceEntry {
                name: entry.name,
                kind: kind(entry.is).to_owned(),
                size: entry.size,
                modified: entry.modified,
                passed_over: entry.passed_over,
                state: known.as_ref().map(|known| state(known.state).to_owned()),
                skip: known.and_then(|known| known.skip).map(|skip| skip.word().to_owned()),
            })
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let more = entries.last().filter(|_| more).map(|last| last.name.clone());
        Ok(SourceListing { source: source.name, folder, entries, of: listed.of, more })
    });
    Ok(Reply::SourceListing(listing.await?))
}

const fn kind(is: EntryIs) -> &'static str {
    match is {
        EntryIs::Folder => "folder",
        EntryIs::File => "file",
        EntryIs::Link => "link",
        EntryIs::Special => "special",
    }
}

const fn state(state: DocumentState) -> &'static str {
    match state {
        DocumentState::Present => "present",
        DocumentState::Skipped => "skipped",
        DocumentState::Deleted => "deleted",
    }
}

/// Whether a source can be read; nothing is taken in.
pub(crate) async fn test(daemon: &Arc<Daemon>, source: &str) -> Result<Reply, Failure> {
    let (again, source) = (daemon.clone(), find(daemon, source)?);
    let source = apart(move || still(&again, source)).await?;
    Ok(Reply::SourceTrial(attempt(source).await?))
}

/// A source's settings, where it may be looked into: one that was added has to lie where it was agreed to.
fn still(daemon: &Daemon, source: Source) -> Result<SourceSettings, Failure> {
    if source.added.is_some() {
        sources::stands(&daemon.settings, &source.settings)?;
    }
    Ok(source.settings)
}

/// Whether what these settings name can be read.
pub(super) async fn attempt(source: SourceSettings) -> Result<SourceTrial, Failure> {
    apart(move || {
        let began = Instant::now();
        let trial = match intake::reader(&source) {
            Reader::Folder(reader) => reader.test(TRIAL),
            Reader::Git(reader) => reader.test(TRIAL),
        };
        let trial = trial.map_err(failure)?;
        let word = |skip: Skip| skip.word().to_owned();
        let problem = |(path, why): (String, Option<Skip>)| SourceProblem {
            path,
            what: why.map_or_else(|| "closed".to_owned(), word),
        };
        Ok(SourceTrial {
            source: source.name,
            files: trial.files,
            bytes: trial.bytes,
            folders: trial.folders,
            skipped: trial.skipped.into_iter().map(|(skip, number)| (word(skip), number)).collect(),
            closed: trial.closed,
            passed_over: trial.passed_over,
            problems: trial.problems.into_iter().map(problem).collect(),
            whole: trial.whole,
            commit: trial.commit,
            seconds: began.elapsed().as_secs_f64(),
        })
    })
    .await
}

/// Documents of a source that were not read, or only in part.
pub(crate) fn faults(daemon: &Daemon, source: &str, after: Option<u64>) -> Result<Reply, Failure> {
    let source = find(daemon, source)?.settings.name;
    let found = daemon.state.catalog()?.faulty(&source, after.unwrap_or(0), PART)?;
    let more = found.last().filter(|_| found.len() == PART).map(|last| last.number);
    let documents = found.into_iter().map(|faulty| FaultyDocument {
        path: faulty.path,
        size: faulty.size,
        skip: faulty.skip.map(|skip| skip.word().to_owned()),
        faults: faulty.faults,
        places: faulty.places,
    });
    Ok(Reply::SourceFaults(SourceFaults { source, documents: documents.collect(), more }))
}

/// The catalog's key of a source's pause; the empty text where it is not paused.
pub(crate) fn key(source: &str) -> String {
    format!("sources.paused.{source}")
}

/// Since when each paused source is paused, as the catalog keeps it.
pub(crate) fn paused(daemon: &Daemon) -> Result<BTreeMap<String, i64>, Failure> {
    let catalog = daemon.state.catalog()?;
    let mut paused = BTreeMap::new();
    for source in daemon.sources().iter().map(|source| &source.settings) {
        // A source that goes on has the empty text there.
        if let Some(since) = catalog.meta(&key(&source.name))?.and_then(|since| since.parse().ok()) {
            paused.insert(source.name.clone(), since);
        }
    }
    Ok(paused)
}

/// Takes nothing in from a source any more, or again; the catalog keeps which.
pub(crate) fn pause(daemon: &Daemon, intake: &Intake, source: &str, pause: bool) -> Result<Reply, Failure> {
    let found = find(daemon, source)?;
    let source = &found.settings;
    let since = daemon.paused_since(&source.name);
    if since.is_some() == pause {
        let is = if pause { "paused already" } else { "not paused" };
        return Err(Failure::request(format!("source `{}` is {is}", source.name)));
    }
    let since = pause.then(now);
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    batch.put_meta(&key(&source.name), &since.map_or_else(String::new, |since| since.to_string()))?;
    batch.commit()?;
    daemon.set_paused(&source.name, since);
    intake.wake();
    let counts = daemon.counts.recent(&daemon.state, std::slice::from_ref(&source.name))?;
    Ok(Reply::Sources(BTreeMap::from([one(daemon, &counts, &found)])))
}
