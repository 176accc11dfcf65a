use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moat_contracts::Digest;
use moat_rights::{NoRandom, hex, random};

use crate::SignedIn;

/// How long a browser stays signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Without a request.
    pub idle: Duration,
    /// Whatever it does.
    pub whole: Duration,
}

/// Browsers that one account is signed in from at once; the one that was longest silent is signed out for another.
const OF_ONE: usize = 16;

/// A browser that is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) person: SignedIn,
    /// What every form of the session carries.
    pub(crate) token: String,
    since: Instant,
    seen: Instant,
    /// How often the vault had been sealed when it began.
    seals: u64,
    /// What the next page tells of what was just done.
    note: Option<String>,
}

/// The browsers that are signed in, by the hash of their cookie. Only in memory: a restart signs everybody out.
pub(crate) struct Sessions {
    stay: Stay,
    open: Mutex<HashMap<Digest, Session>>,
}

impl Sessions {
    pub(crate) fn new(stay: Stay) -> Self {
        Self { stay, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs a browser in; gives the value of its cookie.
    pub(crate) fn begin(&self, person: SignedIn, seals: u64, now: Instant) -> Result<String, NoRandom> {
        let (id, token) = (secret()?, secret()?);
        let mut open = self.open();
        open.retain(|_, session| self.lasts(session, seals, now));
        let mut own: Vec<_> = open
            .iter()
            .filter(|(_, session)| session.person.account == person.account)
            .map(|(id, session)| (session.seen, *id))
            .collect();
        own.sort_unstable_by_key(|(seen, _)| *seen);
        for (_, id) in own.iter().take((own.len() + 1).saturating_sub(OF_ONE)) {
            open.remove(id);
        }
        open.insert(
            Digest::of(id.as_bytes()),
            Session { person, token, since: now, seen: now, seals, note: None },
        );
        Ok(id)
    }

    /// The session of a cookie, if it still counts. `seen` says whether a person did something, rather than a page that
    /// keeps itself up to date.
    pub(crate) fn find(&self, id: &str, seals: u64, now: Instant, seen: bool) -> Option<Session> {
        let id = Digest::of(id.as_bytes());
        let mut open = self.open();
        if !self.lasts(open.get(&id)?, seals, now) {
            open.remove(&id);
            return None;
        }
        let session = open.get_mut(&id)?;
        if seen {
            session.seen = now;
        }
        Some(session.clone())
    }

    /// Leaves a word for the session's next page.
    pub(crate) fn note(&self, id: &str, note: String) {
        if let Some(session) = self.open().get_mut(&Digest::of(id.as_bytes())) {
            session.note = Some(note);
        }
    }

    /// The word that was left, once.
    pub(crate) fn take_note(&self, id: &str) -> Option<String> {
        self.open().get_mut(&Digest::of(id.as_bytes()))?.note.take()
    }

    /// Signs a browser out.
    pub(crate) fn end(&self, id: &str) {
        self.open().remove(&Digest::of(id.as_bytes()));
    }

    fn lasts(&self, session: &Session, seals: u64, now: Instant) -> bool {
        let Stay { idle, whole } = self.stay;
        session.seals == seals
            && now.duration_since(session.seen) < idle
            && now.duration_since(session.since) < whole
    }
}

/// 256 random bits.
pub(crate) fn secret() -> Result<String, NoRandom> {
    Ok(hex(&random::<32>()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn person(name: &str) -> SignedIn {
        SignedIn { account: name.to_owned(), name: name.to_owned(), credentials: [0; 32] }
    }

    fn sessions() -> Sessions {
        Sessions::new(Stay { idle: 15 * MINUTE, whole: 60 * MINUTE })
    }

    #[test]
    fn a_session_ends_by_silence_by_age_by_a_seal_and_on_request() {
        let (sessions, begin) = (sessions(), Instant::now());
        let id = sessions.begin(person("ada"), 0, begin).unwrap();
        assert_eq!(id.len(), 64);
        // A page that keeps itself up to date does not keep its session alive.
        assert!(sessions.find(&id, 0, begin + 10 * MINUTE, false).is_some());
        assert!(sessions.find(&id, 0, begin + 15 * MINUTE, true).is_none());

        let id = sessions.begin(person("ada"), 0, begin).unwrap();
        for minutes in (0..60).step_by(10) {
            assert!(sessions.find(&id, 0, begin + minutes * MINUTE, true).is_some());
        }
        assert!(sessions.find(&id, 0, begin + 60 * MINUTE, true).is_none());

        let id = sessions.begin(person("ada"), 0, begin).unwrap();
        assert!(sessions.find(&id, 1, begin, true).is_none());
        assert!(sessions.find(&id, 0, begin, true).is_none());

        let id = sessions.begin(person("ada"), 1, begin).unwrap();
        sessions.end(&id);
        assert!(sessions.find(&id, 1, begin, true).is_none());
        assert!(sessions.find("", 1, begin, true).is_none());
    }

    #[test]
    fn an_account_has_so_many_browsers_and_no_two_secrets_are_the_same() {
        let (sessions, begin) = (sessions(), Instant::now());
        let other = sessions.begin(person("ben"), 0, begin).unwrap();
        let at = |index: usize| begin + Duration::from_secs(index as u64);
        let ids: Vec<_> = (0..20).map(|index| sessions.begin(person("ada"), 0, at(index)).unwrap()).collect();
        let alive = |id: &String| sessions.find(id, 0, at(20), false).is_some();
        assert_eq!(ids.iter().filter(|id| alive(id)).count(), OF_ONE);
        assert!(!alive(&ids[0]) && alive(&ids[19]) && alive(&other));
        let tokens = ids.iter().filter_map(|id| Some(sessions.find(id, 0, at(20), false)?.token));
        let all: std::collections::BTreeSet<_> = tokens.chain(ids.iter().cloned()).collect();
        assert_eq!(all.len(), 20 + OF_ONE);
    }

    #[test]
    fn a_word_is_told_once() {
        let sessions = sessions();
        let id = sessions.begin(person("ada"), 0, Instant::now()).unwrap();
        sessions.note(&id, "done".to_owned());
        assert_eq!(sessions.take_note(&id).as_deref(), Some("done"));
        assert_eq!(sessions.take_note(&id), None);
    }
}
