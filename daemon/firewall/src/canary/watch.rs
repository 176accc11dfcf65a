use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use moat_contracts::{Attempt, Outcome};

use super::Ways;

/// Between two rounds.
pub const EVERY: Duration = Duration::from_secs(60);

/// How the attempts on one way went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Times that it was tried.
    pub tried: u64,
    /// Times that it was open.
    pub open: u64,
    /// What came of the last attempt.
    pub last: Outcome,
}

/// The counts of every way that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, Count>);

impl Counts {
    /// Counts a round of attempts.
    pub fn add(&mut self, attempts: &[Attempt]) {
        for attempt in attempts {
            let none = || Count { tried: 0, open: 0, last: attempt.outcome.clone() };
            let count = self.0.entry(attempt.way.clone()).or_insert_with(none);
            count.tried += 1;
            count.open += u64::from(attempt.is_open());
            count.last = attempt.outcome.clone();
        }
    }

    /// Every way with its count, by name.
    pub const fn ways(&self) -> &BTreeMap<String, Count> {
        &self.0
    }
}

/// A canary at work in a thread of its own; dropping it ends the thread after the attempt in hand.
#[derive(Debug)]
pub struct Watch {
    _ends: Sender<()>,
}

/// Tries all ways at once and then in every period, and hands each round to `each`, in a thread of its own.
///
/// # Errors
/// Where the thread cannot be started.
pub fn watch(
    ways: Ways,
    every: Duration,
    mut each: impl FnMut(Vec<Attempt>) + Send + 'static,
) -> io::Result<Watch> {
    let (ends, ended) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name("canary".to_owned());
    thread.spawn(move || {
        loop {
            each(ways.try_all());
            if ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    })?;
    Ok(Watch { _ends: ends })
}
