use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use moat_catalog::Catalog;
use moat_contracts::Digest;
use moat_curate::Compiled;
use moat_firewall::canary::Counts;
use moat_ledger::{Act, Ledger, Phase, Who};
use moat_protocol::control::{Confined, Update};
use moat_settings::Settings;
use tokio::sync::{Notify, broadcast, watch};
use tracing::warn;

use crate::answer::invitation::Invited;
use crate::answer::{backup, sources as stands, statements};
use crate::boundary::Protections;
use crate::failure::Failure;
use crate::pace::Pace;
use crate::policy;
use crate::record::{self, Refusals};
use crate::safe::Safe;
use crate::sources::{self, Source};
use crate::state::State;

/// What the daemon's parts share.
pub(crate) struct Daemon {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) ledger: Ledger,
    pub(crate) rules: Compiled,
    pub(crate) rules_hash: Digest,
    /// What the configuration says about what may leave, come in and be trained on.
    pub(crate) policy: String,
    /// Why no work on data is done although the vault is open.
    held_back: Mutex<Option<String>>,
    pub(crate) protections: Protections,
    /// What each process gave up, by its name.
    pub(crate) confined: Mutex<BTreeMap<String, Confined>>,
    /// How the canary's attempts went: moatd's own and its engines'.
    pub(crate) canary: Mutex<Counts>,
    /// Seconds since 1970 at which a canary last flew.
    pub(crate) flown: Mutex<Option<i64>>,
    alarm: Mutex<Option<String>>,
    pub(crate) started: Instant,
    /// Everything that goes on, for whoever watches.
    pub(crate) updates: broadcast::Sender<Update>,
    /// Rung when a run is queued or asked to stop.
    pub(crate) runs: Notify,
    /// Whether the site was ever set up, by its accounts or else by the ledger: accounts that were deleted behind
    /// Moat's back give nobody their rights.
    pub(crate) set_up: AtomicBool,
    /// How often the vault was sealed since the start: browsers that were signed in before are so no more.
    pub(crate) seals: AtomicU64,
    /// Prompts that were answered since the start.
    pub(crate) answers: AtomicU64,
    /// Documents taken in, and prompts answered, by minute.
    pub(crate) taken_in: Mutex<Pace>,
    pub(crate) answered: Mutex<Pace>,
    /// Held while keys move to another root, or are copied.
    pub(crate) rotating: Mutex<()>,
    /// The invitation to make the first accounts, while one counts.
    pub(crate) invited: Mutex<Option<Invited>>,
    /// Held while a password is judged.
    pub(crate) proving: Mutex<()>,
    /// Held while a second person agrees.
    pub(crate) agreeing: tokio::sync::Mutex<()>,
    /// How many refusals the ledger took lately.
    pub(crate) refusals: Mutex<Refusals>,
    /// Held while a base is imported: two of one name would write the same folder.
    pub(crate) importing: tokio::sync::Mutex<()>,
    /// Seats for work that opens many texts for somebody who waits.
    pub(crate) readers: tokio::sync::Semaphore,
    scans: Mutex<BTreeMap<String, ScanState>>,
    /// The sources that are read; those that were added are known while the vault is open.
    sources: Mutex<Arc<Vec<Source>>>,
    /// Paused sources, with the seconds since 1970 since which each is; the catalog keeps them.
    paused: Mutex<BTreeMap<String, i64>>,
    stops: Mutex<Vec<String>>,
    ending: watch::Sender<bool>,
    /// What became of each source's documents.
    pub(crate) counts: Arc<crate::counts::Counts>,
    /// Held open, so that reading goes on when the disk is full: a first connection has files to make.
    held: Mutex<Option<Catalog>>,
    _lock: File,
}

/// How a source's scans went.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanState {
    pub(crate) scanning: bool,
    pub(crate) scanned: Option<i64>,
    /// Documents that the last whole scan opened.
    pub(crate) read: u64,
    pub(crate) fault: Option<String>,
    /// Seconds since 1970 at which the first change was noticed that is not taken in yet.
    pub(crate) noticed: Option<i64>,
    /// Files that are being written and are waited for.
    pub(crate) unsettled: u64,
    /// Seconds since 1970 at which the next whole scan is due.
    pub(crate) due: Option<i64>,
    /// Seconds that the last whole scan took.
    pub(crate) took: Option<f64>,
}

impl Daemon {
    pub(crate) fn open(
        settings: Settings,
        policy: String,
        protections: Protections,
    ) -> Result<Arc<Self>, Failure> {
        let (state, lock) = State::open(&settings.daemon.state)?;
        let ledger = Ledger::open(&state.ledger(), None).map_err(Failure::internal)?;
        // Which programs did what follows: an upgrade shows here.
        let start = Act::new(Who::daemon(), "daemon.start", Phase::Done);
        ledger.append(&start.detail("version", env!("CARGO_PKG_VERSION")))?;
        let mut held = None;
        if let Ok(vault) = state.safe().vault() {
            record::unseal(&ledger, &vault)?;
            let serial = vault.serial().map_err(Failure::internal)?;
            let act = Act::new(Who::daemon(), "vault.unseal", Phase::Done).on("slot", "credential");
            ledger.append(&act.detail("serial", serial))?;
            held = Some(state.catalog()?);
        }
        let rules = Compiled::new(&settings.curation);
        let known = sources::configured(&settings);
        let daemon = Arc::new(Self {
            policy,
            held_back: Mutex::default(),
            set_up: AtomicBool::new(true),
            seals: AtomicU64::default(),
            answers: AtomicU64::default(),
            taken_in: Mutex::default(),
            answered: Mutex::default(),
            rotating: Mutex::default(),
            invited: Mutex::default(),
            proving: Mutex::default(),
            agreeing: tokio::sync::Mutex::default(),
            refusals: Mutex::default(),
            rules_hash: settings.curation.hash(),
            rules,
            settings,
            state,
            ledger,
            protections,
            confined: Mutex::default(),
            canary: Mutex::default(),
            flown: Mutex::default(),
            alarm: Mutex::default(),
            started: Instant::now(),
            updates: broadcast::channel(1024).0,
            runs: Notify::new(),
            importing: tokio::sync::Mutex::default(),
            readers: tokio::sync::Semaphore::new(2),
            scans: Mutex::default(),
            sources: Mutex::new(Arc::new(known)),
            paused: Mutex::default(),
            stops: Mutex::default(),
            ending: watch::channel(false).0,
            counts: Arc::default(),
            held: Mutex::new(held),
            _lock: lock,
        });
        if !daemon.safe().is_sealed() {
            daemon.take_up()?;
        }
        Ok(daemon)
    }

    /// What an open vault lets the daemon look at: whether work may go on, and what its last end cut off.
    fn take_up(&self) -> Result<(), Failure> {
        self.look_at_sources()?;
        backup::note_restore(self)?;
        // A damaged account is one all the same: whoever needs it is told.
        let empty = self.state.catalog()?.accounts().is_ok_and(|accounts| accounts.is_empty());
        self.set_up.store(!empty || record::was_set_up(&self.ledger)?, Ordering::SeqCst);
        self.look_at_policy()?;
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = stands::paused(self)?;
        statements::sweep(self)
    }

    /// Finds out whether the configuration's policy is the one that was agreed to.
    pub(crate) fn look_at_policy(&self) -> Result<(), Failure> {
        let refusal = policy::refusal(self)?;
        if let Some(refusal) = &refusal {
            warn!("{refusal}");
        }
        *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        Ok(())
    }

    /// Why no work on data is done although the vault is open, if that is so.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no work on data is done.
    pub(crate) fn rests(&self) -> bool {
        self.safe().is_sealed() || self.held_back().is_some()
    }

    /// The vault.
    pub(crate) fn safe(&self) -> &Safe {
        self.state.safe()
    }

    /// Takes up work after the vault was opened.
    pub(crate) fn opened(&self) -> Result<(), Failure> {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let vault = self.safe().vault()?;
        record::unseal(&self.ledger, &vault)?;
        // A root file put back to an older state shows by its serial.
        let serial = vault.serial().map_err(Failure::internal)?;
        self.ledger.append(&Act::new(Who::daemon(), "vault.opened", Phase::Done).detail("serial", serial))?;
        self.hold(Some(self.state.catalog()?));
        // Half taken up is as good as sealed: whoever opened it is told why.
        self.take_up().inspect_err(|_| self.seal())
    }

    /// Wipes the keys from memory and stops what needs them.
    pub(crate) fn seal(&self) {
        self.seals.fetch_add(1, Ordering::SeqCst);
        self.hold(None);
        self.safe().seal();
        self.ledger.seal();
        self.runs.notify_waiters();
    }

    fn hold(&self, catalog: Option<Catalog>) {
        self.counts.forget();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = catalog;
    }

    /// Raises an alarm, which stands until a person opens the vault again.
    pub(crate) fn raise(&self, message: String) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    /// The alarm that stands.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whoever watches.
    pub(crate) fn update(&self, update: Update) {
        // With nobody watching there is nobody to tell.
        if self.updates.receiver_count() > 0 {
            drop(self.updates.send(update));
        }
    }

    pub(crate) fn scans(&self) -> MutexGuard<'_, BTreeMap<String, ScanState>> {
        // A panicked holder leaves whole values behind: each is replaced at once.
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sources that are read.
    pub(crate) fn sources(&self) -> Arc<Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out which sources are read.
    pub(crate) fn look_at_sources(&self) -> Result<(), Failure> {
        let all = sources::all(self)?;
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        Ok(())
    }

    /// Whether a source is read no more, or not for long.
    pub(crate) fn is_removing(&self, source: &str) -> bool {
        self.sources().iter().all(|known| known.settings.name != source || known.removing)
    }

    /// Counts documents that were taken in.
    pub(crate) fn took_in(&self, documents: u64) {
        self.taken_in.lock().unwrap_or_else(PoisonError::into_inner).add(documents, Instant::now());
    }

    /// Since when a source is paused, in seconds since 1970.
    pub(crate) fn paused_since(&self, source: &str) -> Option<i64> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// Pauses a source, or has it go on.
    pub(crate) fn set_paused(&self, source: &str, since: Option<i64>) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        match since {
            Some(since) => paused.insert(source.to_owned(), since),
            None => paused.remove(source),
        };
    }

    /// Asks a run to stop at its next step.
    pub(crate) fn ask_to_stop(&self, run: &str) {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).push(run.to_owned());
        self.runs.notify_waiters();
    }

    /// True once for every time that a run was asked to stop.
    pub(crate) fn take_stop(&self, run: &str) -> bool {
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = stops.iter().any(|name| name == run);
        stops.retain(|name| name != run);
        asked
    }

    /// Begins the end of the daemon.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
        self.runs.notify_waiters();
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Waits until the daemon is to end.
    pub(crate) async fn ending(&self) {
        // The sender lives as long as this value, so waiting cannot fail.
        drop(self.ending.subscribe().wait_for(|ending| *ending).await);
    }
}

/// Seconds since 1970; 0 where the clock stands before.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
