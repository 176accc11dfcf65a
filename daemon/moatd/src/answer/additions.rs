//! Sources that people add and remove: choosing a folder, trying it, asking for it, and taking it out again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_protocol::control::{
    AskedSource, FolderEntry, FolderListing, Proof, RemovedSource, Reply, SourceDefinition, SourceTrial,
};
use moat_sources::{folders_in, is_repository};
use tracing::info;

use super::sources::{apart, attempt, find};
use super::{accounts, blocking, statements};
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::people::Person;
use crate::sources::{self, Source};

/// Folders that are told at once.
const PART: usize = 200;

/// The folders that lie in a folder of this machine: of those in which sources may be added, and of the sources'.
pub(crate) async fn folders(
    daemon: &Arc<Daemon>,
    folder: String,
    after: Option<String>,
) -> Result<Reply, Failure> {
    let daemon = daemon.clone();
    let listing = apart(move || match folder.as_str() {
        "" => Ok(beginnings(&daemon)),
        folder => inside(&daemon, Path::new(folder), after.as_deref()),
    });
    Ok(Reply::SourceFolders(listing.await?))
}

/// The folders at which one begins, each once, without those that lie in another.
fn roots(daemon: &Daemon) -> Vec<PathBuf> {
    let sources = daemon.sources();
    let read = sources.iter().filter_map(|source| std::fs::canonicalize(&source.settings.path).ok());
    let mut roots: Vec<_> = sources::allowed(&daemon.settings).into_iter().chain(read).collect();
    roots.sort();
    // In this order a folder comes right before those in it.
    roots.dedup_by(|inner, outer| inner.starts_with(outer));
    roots
}

/// What a listing tells of every folder alike.
struct Known {
    allowed: Vec<PathBuf>,
    own: Vec<PathBuf>,
    sources: Arc<Vec<Source>>,
}

impl Known {
    fn of(daemon: &Daemon) -> Self {
        let (allowed, own) = (sources::allowed(&daemon.settings), sources::own(&daemon.settings));
        Self { allowed, own, sources: daemon.sources() }
    }

    /// Whether a source may be added that is this folder.
    fn allows(&self, folder: &Path) -> bool {
        self.allowed.iter().any(|allowed| folder.starts_with(allowed))
            && !self.own.iter().any(|own| folder.starts_with(own) || own.starts_with(folder))
    }

    fn entry(&self, name: &str, path: &Path, repository: bool) -> Option<FolderEntry> {
        let source = self.sources.iter().find(|source| source.settings.path == path);
        Some(FolderEntry {
            name: name.to_owned(),
            path: path.to_str()?.to_owned(),
            repository,
            source: source.map(|source| source.settings.name.clone()),
            allowed: self.allows(path),
        })
    }
}

fn beginnings(daemon: &Daemon) -> FolderListing {
    let known = Known::of(daemon);
    let roots = roots(daemon);
    let folders = roots.iter().filter_map(|root| known.entry(root.to_str()?, root, is_repository(root)));
    let folders: Vec<_> = folders.collect();
    let of = folders.len() as u64;
    FolderListing {
        folder: String::new(),
        above: None,
        allowed: false,
        folders,
        of,
        files: 0,
        more: None,
        boundary: boundary(daemon),
    }
}

fn boundary(daemon: &Daemon) -> Vec<String> {
    daemon.settings.boundary.sources.iter().map(|folder| folder.display().to_string()).collect()
}

fn inside(daemon: &Daemon, folder: &Path, after: Option<&str>) -> Result<FolderListing, Failure> {
    let known = Known::of(daemon);
    let shown = folder.display();
    let elsewhere = || Failure::request(format!("{shown} lies in no folder that sources may be in"));
    let root = roots(daemon).into_iter().find(|root| folder.starts_with(root)).ok_or_else(elsewhere)?;
    let inner = folder.strip_prefix(&root).map_err(|_| elsewhere())?;
    if known.own.iter().any(|own| folder.starts_with(own)) {
        return Err(elsewhere());
    }
    let found = folders_in(&root, inner, after, PART)
        .map_err(|error| Failure::request(format!("{shown} cannot be looked into: {error}")))?;
    let last = found.folders.last().map(|last| last.name.clone());
    let entries = found.folders.into_iter().filter_map(|found| {
        let path = folder.join(&found.name);
        let hidden = known.own.iter().any(|own| path.starts_with(own));
        known.entry(&found.name, &path, found.repository).filter(|_| !hidden)
    });
    let above = if inner.as_os_str().is_empty() { Some("") } else { folder.parent().and_then(Path::to_str) };
    Ok(FolderListing {
        folder: shown.to_string(),
        above: above.map(ToOwned::to_owned),
        allowed: known.allows(folder),
        folders: entries.collect(),
        of: found.of,
        files: found.files,
        more: last.filter(|_| found.more),
        boundary: boundary(daemon),
    })
}

/// What a source that is not there yet would read. Nothing is taken in.
pub(crate) async fn attempt_new(
    daemon: &Arc<Daemon>,
    definition: SourceDefinition,
) -> Result<(SourceDefinition, SourceTrial), Failure> {
    let again = daemon.clone();
    let sound = apart(move || sources::sound(&again, &definition)).await?;
    let trial = attempt(sources::settings_of(&sound)?).await?;
    Ok((sound, trial))
}

/// Asks for a source.
pub(crate) async fn ask(
    daemon: &Arc<Daemon>,
    person: &Person,
    definition: SourceDefinition,
    proof: &Proof,
) -> Result<Reply, Failure> {
    // What cannot be read is found out before a code is used up.
    let (definition, mut trial) = attempt_new(daemon, definition).await?;
    // Names of files do not lie in the open for as long as a request waits.
    trial.problems.clear();
    let present = blocking(|| accounts::prove(daemon, person, proof))?;
    statements::ask_source(daemon, &present, AskedSource { definition, trial })
}

/// Removes a source that was added: its documents are deleted with their records, and it is forgotten after them.
pub(crate) async fn remove(daemon: &Daemon, intake: &Intake, source: &str) -> Result<Reply, Failure> {
    let found = find(daemon, source)?;
    let name = found.settings.name;
    if found.added.is_none() {
        return Err(Failure::request(format!(
            "source `{name}` is named by the configuration: take its [[source]] out of moat.toml, and restart moatd"
        )));
    }
    let catalog = daemon.state.catalog()?;
    let counts = catalog.source_counts(&name)?;
    if !found.removing {
        let batch = catalog.write()?;
        batch.begin_removal(&name)?;
        batch.commit()?;
        daemon.look_at_sources()?;
    }
    intake.remove(name.clone()).await?;
    info!("source {name} was removed");
    let documents = counts.present + counts.skipped.values().sum::<u64>();
    Ok(Reply::SourceRemoved(RemovedSource { source: name, documents }))
}
