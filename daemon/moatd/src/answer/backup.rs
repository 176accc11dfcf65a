use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use moat_contracts::{Digest, Hasher};
use moat_ledger::{Act, Phase, Who};
use moat_protocol::control::{BackedUp, Reply};
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::failure::Failure;

/// The file of sums, which `moat verify` and `sha256sum --check` read.
const SUMS: &str = "SHA256SUMS";
/// What `moat restore` leaves for the first start: the backup's name.
const RESTORED: &str = "restored";
/// How often a run's folder is copied again because its engine changed it meanwhile.
const TRIES: u32 = 10;

/// Copies everything that the daemon keeps into a new folder while work goes on, sealed as it is: without what opens the
/// vault it says nothing. The folder appears whole or not at all.
pub(crate) async fn create(daemon: &Arc<Daemon>, folder: String) -> Result<Reply, Failure> {
    let daemon = daemon.clone();
    let copied = tokio::task::spawn_blocking(move || copy(&daemon, &PathBuf::from(folder)));
    copied.await.map_err(Failure::internal)?.map(Reply::BackedUp)
}

fn copy(daemon: &Daemon, to: &Path) -> Result<BackedUp, Failure> {
    if !daemon.settings.may_back_up(to) {
        return Err(Failure::request(format!(
            "{} lies in no folder of boundary.backups: name one in the configuration",
            to.display()
        )));
    }
    if to.exists() {
        return Err(Failure::request(format!(
            "{} is there already: give a folder that is not",
            to.display()
        )));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".unfinished");
    let unfinished = Unfinished(to.with_file_name(name));
    let mut copy = Copy { to: unfinished.0.clone(), sums: BTreeMap::new(), bytes: 0 };
    let failed = |error: io::Error| Failure::internal(format!("{} cannot be written: {error}", to.display()));
    match fs::remove_dir_all(&copy.to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&copy.to).map_err(failed)?;
    fill(daemon, &mut copy).map_err(|error| match error {
        Stopped::Io(error) => failed(error),
        Stopped::Failure(failure) => failure,
    })?;
    let list: String = copy.sums.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    copy.file(&mut list.as_bytes(), SUMS).map_err(failed)?;
    let done = sync(&copy.to).and_then(|()| fs::rename(&copy.to, to)).and_then(|()| sync_parent(to));
    done.map_err(failed)?;
    copy.sums.remove(SUMS);
    let hash = Digest::of(list.as_bytes());
    info!("a backup of {} bytes was made", copy.bytes);
    Ok(BackedUp { folder: to.display().to_string(), files: copy.sums.len() as u64, bytes: copy.bytes, hash })
}

enum Stopped {
    Io(io::Error),
    Failure(Failure),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn fill(daemon: &Daemon, copy: &mut Copy) -> Result<(), Stopped> {
    // No key moves to another root meanwhile, so what the catalog holds opens with the root that is copied.
    let _still = daemon.rotating.lock().unwrap_or_else(PoisonError::into_inner);
    let state = &daemon.state;
    // The catalog first: what it names is there, and what comes later does no harm.
    let snapshot = copy.to.join("catalog.draft");
    daemon.state.catalog()?.snapshot(&snapshot).map_err(Failure::from)?;
    copy.file(&mut File::open(&snapshot)?, "catalog.db")?;
    fs::remove_file(&snapshot)?;
    copy.folder(&state.vault(), "vault")?;
    copy.folder(&state.bases(), "bases")?;
    copy.folder(&state.tls(), "tls")?;
    copy.subfolder("runs")?;
    for run in names(&state.runs())? {
        let place = format!("runs/{run}");
        let mut tries = 0;
        // An engine replaces whole checkpoints: one that goes while it is copied is copied again, by its successor.
        while let Err(error) = copy.folder(&state.runs().join(&run), &place) {
            tries += 1;
            if error.kind() != ErrorKind::NotFound || tries == TRIES {
                return Err(error.into());
            }
            copy.forget(&place)?;
        }
    }
    // The ledger last, so that it tells of everything that was copied.
    let copied = daemon.ledger.while_still(|| copy.folder(&state.ledger(), "ledger"));
    Ok(copied.map_err(Failure::internal)??)
}

/// A copy on its way.
struct Copy {
    to: PathBuf,
    sums: BTreeMap<String, Digest>,
    bytes: u64,
}

impl Copy {
    fn subfolder(&self, name: &str) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.to.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies a folder but for what is unfinished, waits for a second person, or is a lock.
    fn folder(&mut self, from: &Path, name: &str) -> io::Result<()> {
        self.subfolder(name)?;
        for entry in names(from)? {
            let passing = entry.starts_with('.') || entry.ends_with(".draft") || entry.starts_with("export-");
            if passing || entry == "lock" || entry == "unfinished" {
                continue;
            }
            let (path, name) = (from.join(&entry), format!("{name}/{entry}"));
            if fs::symlink_metadata(&path)?.is_dir() {
                self.folder(&path, &name)?;
            } else {
                self.file(&mut File::open(&path)?, &name)?;
            }
        }
        sync(&self.to.join(name))
    }

    fn file(&mut self, from: &mut impl Read, name: &str) -> io::Result<()> {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.to.join(name))?;
        let (mut hasher, mut piece) = (Hasher::default(), vec![0; 1 << 20]);
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            to.write_all(&piece[..read])?;
            self.bytes += read as u64;
        }
        to.sync_all()?;
        self.sums.insert(name.to_owned(), hasher.finish());
        Ok(())
    }

    fn forget(&mut self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.to.join(name))?;
        let below = format!("{name}/");
        self.sums.retain(|name, _| !name.starts_with(&below));
        Ok(())
    }
}

/// A folder's entries, sorted; none where it is not there. Those that are no UTF-8 are none of Moat's.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}

/// A folder that goes where it was not renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What cannot be removed now, the next backup into the folder removes.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Writes into the ledger that this state was put back from a backup, once, at its first start.
pub(crate) fn note_restore(daemon: &Daemon) -> Result<(), Failure> {
    let note = daemon.state.folder().join(RESTORED);
    let backup = match fs::read_to_string(&note) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Failure::internal)?,
    };
    let backup =
        backup.trim().parse::<Digest>().map_err(|_| Failure::internal("the note of a restore is damaged"))?;
    daemon.ledger.append(&Act::new(Who::daemon(), "state.restored", Phase::Done).on("backup", backup))?;
    warn!("this state was put back from backup {}", backup.short());
    fs::remove_file(&note).map_err(Failure::internal)
}
