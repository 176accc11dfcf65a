use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Config, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::path::encode;
use crate::{Folder, SourceError};

/// Paths that are remembered one by one; more make it a whole scan.
const PATHS: usize = 4096;

/// How long hints are gathered after the first, so that both ends of a rename come together.
const GATHER: Duration = Duration::from_millis(100);

/// Where something may have changed. Only a scan tells whether it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hints {
    /// Nowhere that is known of.
    #[default]
    Nothing,
    /// At or below these paths, for [`Folder::scan_paths`].
    Paths(BTreeSet<String>),
    /// Anywhere: events were lost, or were too many.
    Everything,
}

impl Hints {
    fn add(&mut self, path: String) {
        match self {
            Self::Nothing => *self = Self::Paths(BTreeSet::from([path])),
            Self::Paths(paths) if paths.len() >= PATHS && !paths.contains(&path) => *self = Self::Everything,
            Self::Paths(paths) => drop(paths.insert(path)),
            Self::Everything => {}
        }
    }
}

#[derive(Default)]
struct Shared {
    hints: Mutex<Hints>,
    arrived: Condvar,
}

impl Shared {
    /// The lock of a thread that panicked guards hints as good as any.
    fn lock(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn everything(&self) {
        *self.lock() = Hints::Everything;
        self.arrived.notify_all();
    }

    fn add(&self, path: String) {
        self.lock().add(path);
        self.arrived.notify_all();
    }
}

/// A watched folder. Begin watching before the first scan, so that nothing falls between them; and scan the whole
/// folder from time to time, since no watch sees everything (network file systems, memory maps, full queues).
pub struct Watch {
    _watcher: RecommendedWatcher,
    shared: Arc<Shared>,
    unwatched: u64,
}

/// Wakes whoever waits for a [`Watch`], from any thread.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Makes the wait end with [`Hints::Everything`].
    pub fn wake(&self) {
        self.0.everything();
    }
}

impl Watch {
    /// Waits until something may have changed, at most `timeout`, and takes all hints gathered so far.
    pub fn wait(&self, timeout: Duration) -> Hints {
        let until = Instant::now() + timeout;
        let mut hints = self.shared.lock();
        while *hints == Hints::Nothing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Hints::Nothing;
            }
            let waited = self.shared.arrived.wait_timeout(hints, left);
            hints = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if *hints != Hints::Everything {
            drop(hints);
            std::thread::sleep(GATHER);
            hints = self.shared.lock();
        }
        std::mem::take(&mut hints)
    }

    /// A handle that ends waits.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// Folders that could not be watched when this began, unreadable ones mostly.
    pub const fn unwatched(&self) -> u64 {
        self.unwatched
    }
}

impl Folder {
    /// Begins watching the folder and all below it.
    ///
    /// # Errors
    /// [`SourceError::Root`] where the folder is not there; [`SourceError::Watch`] where the system has no watches
    /// left: the source still works by rescans.
    pub fn watch(&self) -> Result<Watch, SourceError> {
        let lost = |error| SourceError::Root { name: self.name.clone(), root: self.root.clone(), error };
        let base = self.root.canonicalize().map_err(lost)?;
        let shared = Arc::new(Shared::default());
        let handler = {
            let (shared, base, folder) = (Arc::clone(&shared), base.clone(), self.clone());
            move |event| folder.hint(&base, &shared, event)
        };
        let refused = |error: notify::Error| SourceError::Watch {
            name: self.name.clone(),
            root: self.root.clone(),
            reason: reason(&error),
        };
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config).map_err(refused)?;
        let mut unwatched = 0;
        add(&mut watcher, &base, &mut unwatched).map_err(refused)?;
        Ok(Watch { _watcher: watcher, shared, unwatched })
    }

    fn hint(&self, base: &Path, shared: &Shared, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            Ok(_) => return shared.everything(),
            Err(error) => {
                tracing::warn!(source = %self.name, reason = %reason(&error), "watching a folder failed in part; rescans go on");
                return shared.everything();
            }
        };
        // Reading a file is no change; our own reading would otherwise wake us for ever.
        let read =
            matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if read {
            return;
        }
        for path in &event.paths {
            let Ok(inside) = path.strip_prefix(base) else { return shared.everything() };
            let inside = inside.as_os_str().as_bytes();
            if inside.is_empty() {
                return shared.everything();
            }
            if !inside.split(|byte| *byte == b'/').any(|name| self.ignores(name)) {
                shared.add(encode(inside));
            }
        }
    }
}

/// Watches a folder and all below it. A folder that cannot be watched does not keep its siblings from it.
fn add(watcher: &mut RecommendedWatcher, folder: &Path, unwatched: &mut u64) -> notify::Result<()> {
    let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) else { return Ok(()) };
    if exhausted(&error) {
        return Err(error);
    }
    match watcher.watch(folder, RecursiveMode::NonRecursive) {
        Ok(()) => {}
        Err(error) if exhausted(&error) => return Err(error),
        Err(_) => *unwatched += 1,
    }
    // What cannot be listed cannot be scanned either, and is counted there.
    let Ok(entries) = folder.read_dir() else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add(watcher, &entry.path(), unwatched)?;
        }
    }
    Ok(())
}

fn exhausted(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => too_many(error),
        _ => false,
    }
}

fn too_many(error: &io::Error) -> bool {
    let code = rustix::io::Errno::from_io_error(error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// What failed, without the paths that it concerns.
fn reason(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the system has no inotify watches left: raise fs.inotify.max_user_watches".to_owned()
        }
        ErrorKind::Io(error) if too_many(error) => {
            "the system has no inotify instances left: raise fs.inotify.max_user_instances".to_owned()
        }
        ErrorKind::Io(error) => error.to_string(),
        ErrorKind::PathNotFound => "it is no longer there".to_owned(),
        _ => "the watcher failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hints, PATHS};

    #[test]
    fn too_many_paths_become_everything() {
        let mut hints = Hints::Nothing;
        (0..PATHS).for_each(|path| hints.add(path.to_string()));
        hints.add("0".to_owned());
        assert!(matches!(&hints, Hints::Paths(paths) if paths.len() == PATHS));
        hints.add("one more".to_owned());
        assert_eq!(hints, Hints::Everything);
    }
}
