//! Where the crate's steps on the disk arrive in tests: recorded, or the place to die.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, getpid, kill_process};

/// A step as the disk saw it.
pub(crate) enum Step<'a> {
    Removed(&'a Path),
    Created(&'a Path),
    Written(&'a Path),
    Synced(&'a Path),
    Renamed(&'a Path, &'a Path),
    FolderSynced(&'a Path),
}

/// A step with the content that the file had after it.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Removed(PathBuf),
    Created(PathBuf),
    Written(PathBuf, Vec<u8>),
    Synced(PathBuf, Vec<u8>),
    Renamed(PathBuf, PathBuf),
    FolderSynced(PathBuf),
    /// The caller was told that everything before is done; the root file's serial then.
    Acknowledged(u64),
}

thread_local! {
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Called by the crate after each step that it took.
pub(crate) fn took(step: Step<'_>) {
    match LEFT.get() {
        Some(0) => kill_process(getpid(), Signal::KILL).unwrap(),
        left => LEFT.set(left.map(|left| left - 1)),
    }
    let read = |path: &Path| fs::read(path).unwrap();
    record(|| match step {
        Step::Removed(path) => Event::Removed(path.into()),
        Step::Created(path) => Event::Created(path.into()),
        Step::Written(path) => Event::Written(path.into(), read(path)),
        Step::Synced(path) => Event::Synced(path.into(), read(path)),
        Step::Renamed(from, to) => Event::Renamed(from.into(), to.into()),
        Step::FolderSynced(path) => Event::FolderSynced(path.into()),
    });
}

/// Kills this process, and nothing less, after so many more steps of this thread.
pub(super) fn die_after(steps: u32) {
    LEFT.set(Some(steps));
}

/// What this thread's steps were while `act` ran.
pub(super) fn recorded(act: impl FnOnce()) -> Vec<Event> {
    EVENTS.set(Some(Vec::new()));
    act();
    EVENTS.take().unwrap()
}

pub(super) fn record(event: impl FnOnce() -> Event) {
    EVENTS.with_borrow_mut(|events| {
        if let Some(events) = events {
            events.push(event());
        }
    });
}
