//! Where the crate's steps on the disk arrive in tests: each is a place to lose power.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// A step as the disk saw it.
pub(crate) enum Step<'a> {
    Created(&'a Path),
    Made(&'a Path),
    Written,
    Synced(&'a Path),
    FolderSynced(&'a Path),
    /// From this name.
    Renamed(&'a Path),
    Exchanged,
    Removed(&'a Path),
    /// The package manager began, or came to its end.
    Put,
}

/// What a power cut does to what was not synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    Nothing,
    /// Files end in their middle.
    Halves,
    /// Files hold zeros.
    Zeros,
    /// Files and folders have no name any more.
    Names,
}

pub(super) const LOSSES: [Loss; 4] = [Loss::Nothing, Loss::Halves, Loss::Zeros, Loss::Names];

/// What is not on the disk yet. A rename is synced in the very next step: before it, the disk is as it was before.
#[derive(Default)]
struct Unsynced {
    left: u32,
    contents: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
}

thread_local! {
    static STATE: RefCell<Option<Unsynced>> = const { RefCell::new(None) };
}

struct Died;

/// Called by the crate after each step that it took.
pub(crate) fn took(step: Step<'_>) {
    let dies = STATE.with_borrow_mut(|state| {
        let Some(state) = state else { return false };
        match step {
            Step::Created(path) => {
                state.contents.insert(path.into());
                state.names.insert(path.into());
            }
            Step::Made(path) => drop(state.names.insert(path.into())),
            Step::Synced(path) => drop(state.contents.remove(path)),
            Step::FolderSynced(folder) => state.names.retain(|path| path.parent() != Some(folder)),
            Step::Renamed(from) => drop(state.names.remove(from)),
            Step::Removed(path) => {
                state.contents.retain(|inner| !inner.starts_with(path));
                state.names.retain(|inner| !inner.starts_with(path));
            }
            Step::Written | Step::Exchanged | Step::Put => {}
        }
        state.left = state.left.saturating_sub(1);
        state.left == 0
    });
    if dies {
        resume_unwind(Box::new(Died));
    }
}

/// Acts until so many steps were taken, and loses power then; `None` where that came to pass.
pub(super) fn cut_after<T>(steps: u32, loss: Loss, act: impl FnOnce() -> T) -> Option<T> {
    STATE.set(Some(Unsynced { left: steps, ..Unsynced::default() }));
    let ended = catch_unwind(AssertUnwindSafe(act));
    let state = STATE.take().unwrap();
    match ended {
        Ok(done) => Some(done),
        Err(died) if died.is::<Died>() => {
            lose(&state, loss);
            None
        }
        Err(failed) => resume_unwind(failed),
    }
}

fn lose(state: &Unsynced, loss: Loss) {
    match loss {
        Loss::Nothing => {}
        Loss::Halves | Loss::Zeros => {
            for path in &state.contents {
                let length = fs::metadata(path).unwrap().len();
                let file = OpenOptions::new().write(true).open(path).unwrap();
                match loss {
                    Loss::Halves => file.set_len(length / 2).unwrap(),
                    _ => fs::write(path, vec![0; usize::try_from(length).unwrap()]).unwrap(),
                }
            }
        }
        Loss::Names => {
            for path in state.names.iter().rev() {
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
    }
}
