//! Panics: what they say may quote the text that was being worked on, so only their place is kept.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::{Mutex, PoisonError};

use moat_protocol::engine::FromEngine;

/// Where the first panic happened: later ones follow from it.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the places of panics to itself instead of printing them with their message.
pub(crate) fn watch() {
    set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(
            || "an unknown place".to_owned(),
            |place| format!("{} line {}", place.file(), place.line()),
        );
        PLACE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(place);
    }));
}

/// Runs a job; a panic in it, on any thread that it waits for, becomes its failure.
pub(crate) fn caught(job: impl FnOnce() -> FromEngine) -> FromEngine {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take();
        let place = place.unwrap_or_else(|| "an unknown place".to_owned());
        FromEngine::Failed {
            reason: format!(
                "the engine met a fault of its own at {place}: please report it; the run can be resumed"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use moat_protocol::engine::FromEngine;

    #[test]
    fn a_panic_tells_its_place_and_not_its_message() {
        super::watch();
        let FromEngine::Failed { reason } = super::caught(|| panic!("a customer's secret")) else {
            panic!("no failure")
        };
        assert!(reason.contains("faults.rs") && !reason.contains("secret"), "{reason}");
    }
}
