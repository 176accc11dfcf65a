//! The one-time code with which the first accounts are made from browsers, so that the people whose accounts they are type
//! their own passwords, and nobody else sees them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use moat_contracts::Digest;
use moat_protocol::control::{Reply, Secret};
use moat_rights::{hex, random};

use crate::daemon::Daemon;
use crate::failure::Failure;

/// How long a code counts.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Wrong codes after which the right one counts no more.
const WRONG: u32 = 20;

/// Letters that are read out together.
const GROUP: usize = 4;

/// A code that was given out, by its hash.
pub(crate) struct Invitation {
    code: Digest,
    until: Instant,
    wrong: u32,
}

impl Invitation {
    fn counts(&self, now: Instant) -> bool {
        now < self.until && self.wrong < WRONG
    }
}

/// What of a typed code counts: dashes, spaces and capitals do not.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Gives out a code; an earlier one counts no more.
pub(crate) fn invite(daemon: &Daemon) -> Result<Reply, Failure> {
    let code = hex(&random::<10>().map_err(Failure::internal)?);
    let invitation = Invitation { code: Digest::of(code.as_bytes()), until: Instant::now() + LIFE, wrong: 0 };
    *daemon.invitation.lock().unwrap_or_else(PoisonError::into_inner) = Some(invitation);
    let letters: Vec<_> = code.chars().collect();
    let groups: Vec<String> = letters.chunks(GROUP).map(|group| group.iter().collect()).collect();
    Ok(Reply::Invitation { code: Secret(groups.join("-")), seconds: LIFE.as_secs() })
}

/// Whether a code is the one that was given out, and still counts. A wrong one is counted.
pub(crate) fn fits(daemon: &Daemon, shown: &str) -> bool {
    let mut held = daemon.invitation.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(invitation) = held.as_mut().filter(|invitation| invitation.counts(Instant::now())) else {
        return false;
    };
    // Hashes are compared: how long it takes tells nothing of the code.
    let right = Digest::of(plain(shown).as_bytes()) == invitation.code;
    invitation.wrong += u32::from(!right);
    right
}

/// Ends what was given out: the accounts are made.
pub(crate) fn end(daemon: &Daemon) {
    *daemon.invitation.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use moat_contracts::Digest;

    use super::{Invitation, WRONG, plain};

    #[test]
    fn dashes_spaces_and_capitals_are_not_part_of_a_code() {
        assert_eq!(plain(" 00AB-cd12 \n"), "00abcd12");
    }

    #[test]
    fn a_code_ends_by_its_time_and_by_wrong_tries() {
        let now = Instant::now();
        let mut invitation =
            Invitation { code: Digest::of(b"1"), until: now + Duration::from_secs(1), wrong: 0 };
        assert!(invitation.counts(now));
        assert!(!invitation.counts(now + Duration::from_secs(1)));
        invitation.wrong = WRONG;
        assert!(!invitation.counts(now));
    }
}
