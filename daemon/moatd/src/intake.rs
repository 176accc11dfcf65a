use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use moat_catalog::CatalogError;
use moat_contracts::Document;
use moat_protocol::control::Update;
use moat_settings::{SourceKind, SourceSettings};
use moat_sources::{Change, Folder, Git, Hints, ScanReport, SinkClosed, SourceError};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::answer::sources;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::pipeline::Pipeline;
use crate::sources::Source;

/// Changes between two updates for whoever watches.
const UPDATE_EVERY: u64 = 256;

/// The thread that reads the sources, and the way to ask it for a scan.
#[derive(Clone)]
pub(crate) struct Intake {
    orders: mpsc::Sender<Order>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Order {
    /// Scan every source now, and answer when everything found is committed.
    Scan(oneshot::Sender<Result<(), Failure>>),
    /// Delete the documents of a source that is being removed, and answer when it is gone.
    Remove(String, oneshot::Sender<Result<(), Failure>>),
    /// A source's watch noticed something.
    Changed(String, Hints),
    /// Look whether the daemon ends, or its vault was opened.
    Wake,
}

impl Intake {
    /// Scans every source and waits until all that was found is committed.
    pub(crate) async fn scan(&self) -> Result<(), Failure> {
        self.ask(Order::Scan).await
    }

    /// Removes a source that is marked so, and waits until its documents are deleted.
    pub(crate) async fn remove(&self, source: String) -> Result<(), Failure> {
        self.ask(|done| Order::Remove(source, done)).await
    }

    async fn ask(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Order,
    ) -> Result<(), Failure> {
        let (done, answer) = oneshot::channel();
        let ended = || Failure::internal("the sources are no longer read, since moatd is ending");
        self.orders.send(order(done)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Has the thread look whether it may work, or is to end.
    pub(crate) fn wake(&self) {
        // The thread is gone where nobody receives.
        drop(self.orders.send(Order::Wake));
    }

    /// Waits for the thread to end, which it does once the daemon ends.
    pub(crate) fn join(&self) {
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that reads the sources had panicked");
        }
    }
}

/// Starts reading the sources.
pub(crate) fn start(daemon: &Arc<Daemon>) -> Result<Intake, Failure> {
    let (orders, received) = mpsc::channel();
    let (daemon, hints) = (daemon.clone(), orders.clone());
    let thread = std::thread::Builder::new().name("intake".to_owned());
    let thread = thread.spawn(move || read_sources(&daemon, &hints, &received)).map_err(Failure::internal)?;
    Ok(Intake { orders, thread: Arc::new(Mutex::new(Some(thread))) })
}

/// One source with what the thread remembers of it.
struct Place {
    settings: SourceSettings,
    /// Whether people added it.
    added: bool,
    reader: Reader,
    /// Set when the source is read no more, for its watch.
    over: Arc<AtomicBool>,
    /// When to look at the whole source again.
    due: Instant,
    /// Whether it was paused when it was last looked at.
    paused: bool,
    /// What the watch noticed, and when to look at it.
    hinted: BTreeSet<String>,
    hinted_due: Option<Instant>,
}

/// What reads a source.
pub(crate) enum Reader {
    /// A folder.
    Folder(Folder),
    /// A repository.
    Git(Git),
}

/// Events of one change come in bursts; waiting this long after the first takes most of a burst at once.
const BURST: Duration = Duration::from_millis(300);

/// How long a scan that a person asked for waits for files that are still being written.
const PATIENCE: Duration = Duration::from_secs(30);

/// After how long a removal that failed is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// How often a watch's thread looks whether the daemon ends.
const LISTEN: Duration = Duration::from_secs(1);

fn read_sources(daemon: &Arc<Daemon>, hints: &mpsc::Sender<Order>, orders: &mpsc::Receiver<Order>) {
    let mut places = Vec::new();
    let mut removals = Instant::now();
    while !daemon.is_ending() {
        keep_up(daemon, &mut places, hints);
        let removing = !daemon.safe().is_sealed() && daemon.sources().iter().any(|source| source.removing);
        if removing && removals <= Instant::now() {
            removals = finish_removals(daemon);
            continue;
        }
        let rests = daemon.rests();
        for place in places.iter_mut().filter(|_| !rests) {
            let paused = daemon.paused_since(&place.settings.name).is_some();
            if std::mem::replace(&mut place.paused, paused) && !paused {
                // Whatever came meanwhile.
                place.due = Instant::now();
            }
            if !paused {
                look(daemon, place);
            }
        }
        let next = places
            .iter()
            .filter(|place| !rests && !place.paused)
            .map(|place| place.hinted_due.map_or(place.due, |hinted| hinted.min(place.due)))
            .chain(removing.then_some(removals))
            .min();
        let wait =
            next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(Instant::now()));
        match orders.recv_timeout(wait) {
            Ok(Order::Scan(done)) => {
                keep_up(daemon, &mut places, hints);
                let result = scan_all(daemon, &mut places);
                // Who asked may have hung up.
                drop(done.send(result));
            }
            Ok(Order::Remove(name, done)) => {
                keep_up(daemon, &mut places, hints);
                drop(done.send(remove(daemon, &name)));
            }
            Ok(Order::Changed(name, hints)) => {
                if let Some(place) = places.iter_mut().find(|place| place.settings.name == name) {
                    if hints != Hints::Nothing {
                        let mut scans = daemon.scans();
                        scans.entry(name).or_default().noticed.get_or_insert_with(now);
                    }
                    // What a paused source holds is looked at as a whole once it goes on.
                    if !place.paused {
                        place.notice(hints);
                    }
                }
            }
            Ok(Order::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads the sources that there are now: begins with new ones, and lets those go that were removed.
fn keep_up(daemon: &Arc<Daemon>, places: &mut Vec<Place>, hints: &mpsc::Sender<Order>) {
    let sources = daemon.sources();
    let read = |settings: &SourceSettings| {
        sources.iter().any(|source| !source.removing && source.settings == *settings)
    };
    places.retain(|place| {
        let stays = read(&place.settings);
        place.over.store(!stays, Ordering::SeqCst);
        stays
    });
    for source in sources.iter().filter(|source| !source.removing) {
        if places.iter().all(|place| place.settings != source.settings) {
            let new = place(source);
            watch(daemon, &new, hints);
            places.push(new);
        }
    }
}

/// Goes on with removals that an end or a fault cut off. Gives when to try again what could not be done.
fn finish_removals(daemon: &Daemon) -> Instant {
    for source in daemon.sources().iter().filter(|source| source.removing) {
        let name = &source.settings.name;
        match remove(daemon, name) {
            Ok(()) => info!("source {name} was removed"),
            Err(failure) => warn!("source {name} is not removed yet: {}", failure.message),
        }
    }
    Instant::now() + RETRY
}

/// Deletes the documents of a source that is being removed, then forgets it.
fn remove(daemon: &Daemon, name: &str) -> Result<(), Failure> {
    // Somebody who asked twice, or the thread itself, may have come first.
    if !daemon.sources().iter().any(|source| source.removing && source.settings.name == name) {
        return Ok(());
    }
    let catalog = daemon.state.catalog()?;
    let mut pipeline = Pipeline::new(daemon.state.catalog()?, &daemon.rules, &daemon.ledger, name);
    let mut failure = None;
    let told = catalog.each_document(name, |known| {
        if daemon.is_ending() {
            failure = Some(Failure::internal("the removal was cut off, and goes on at the next start"));
        } else {
            let Document { id, source, path, .. } = known.document;
            failure = pipeline.push(Change::Gone { id, source, path }).err();
        }
        match &failure {
            Some(failure) => Err(CatalogError::Interrupted(failure.message.clone())),
            None => Ok(()),
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    told?;
    pipeline.flush()?;
    let batch = catalog.write()?;
    batch.end_removal(name)?;
    // Another source of this name begins anew.
    batch.put_meta(&sources::key(name), "")?;
    batch.put_meta(&Git::checkpoint(name), "")?;
    batch.commit()?;
    daemon.set_paused(name, None);
    daemon.scans().remove(name);
    daemon.look_at_sources()
}

impl Place {
    fn notice(&mut self, hints: Hints) {
        let soon = Instant::now() + BURST;
        match hints {
            Hints::Nothing => {}
            Hints::Everything => self.due = self.due.min(soon),
            Hints::Paths(paths) => {
                self.hinted.extend(paths);
                self.hinted_due.get_or_insert(soon);
            }
        }
    }
}

/// What reads a source with these settings.
pub(crate) fn reader(settings: &SourceSettings) -> Reader {
    match settings.kind {
        SourceKind::Folder => Reader::Folder(Folder {
            name: settings.name.clone(),
            root: settings.path.clone(),
            max_bytes: settings.max_bytes,
            policy: settings.policy.clone(),
            settle: Duration::from_secs(settings.settle_seconds),
            hidden: settings.hidden,
        }),
        SourceKind::Git => Reader::Git(Git {
            name: settings.name.clone(),
            repository: settings.path.clone(),
            branch: Some(settings.branch.clone()).filter(|branch| !branch.is_empty()),
            max_bytes: settings.max_bytes,
            policy: settings.policy.clone(),
        }),
    }
}

fn place(source: &Source) -> Place {
    Place {
        settings: source.settings.clone(),
        added: source.added.is_some(),
        reader: reader(&source.settings),
        over: Arc::default(),
        due: Instant::now(),
        paused: false,
        hinted: BTreeSet::new(),
        hinted_due: None,
    }
}

/// Starts a thread that passes on what a folder's watch notices. Without a watch the rescans find everything later.
fn watch(daemon: &Arc<Daemon>, place: &Place, hints: &mpsc::Sender<Order>) {
    let Reader::Folder(folder) = &place.reader else { return };
    let watch = match folder.watch() {
        Ok(watch) => watch,
        Err(error) => {
            warn!("{error}");
            return;
        }
    };
    let (daemon, hints, over) = (daemon.clone(), hints.clone(), place.over.clone());
    let name = place.settings.name.clone();
    let listen = move || {
        while !daemon.is_ending() && !over.load(Ordering::SeqCst) {
            let noticed = watch.wait(LISTEN);
            if noticed != Hints::Nothing && hints.send(Order::Changed(name.clone(), noticed)).is_err() {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(listen) {
        warn!("source {} is only rescanned, since no thread can be started: {error}", place.settings.name);
    }
}

/// Scans a source where it is time to.
fn look(daemon: &Arc<Daemon>, place: &mut Place) {
    let now = Instant::now();
    if place.due <= now {
        place.hinted_due = None;
        place.hinted.clear();
        scan(daemon, place, None);
    } else if place.hinted_due.is_some_and(|due| due <= now) {
        place.hinted_due = None;
        let paths = std::mem::take(&mut place.hinted);
        scan(daemon, place, Some(paths));
    }
}

/// Scans every source, and again while files are still being written.
fn scan_all(daemon: &Arc<Daemon>, places: &mut [Place]) -> Result<(), Failure> {
    let patience = Instant::now() + PATIENCE;
    let goes_on = |place: &Place| !is_left(daemon, &place.settings.name);
    let mut waiting: Vec<usize> = (0..places.len()).filter(|index| goes_on(&places[*index])).collect();
    loop {
        let mut later: Option<SystemTime> = None;
        waiting.retain(|index| {
            let again = scan(daemon, &mut places[*index], None).and_then(|report| report.look_again);
            later = later.into_iter().chain(again).min();
            again.is_some()
        });
        if daemon.is_ending() {
            return Err(Failure::internal("the sources are no longer read, since moatd is ending"));
        }
        let Some(later) = later else { break };
        if Instant::now() > patience {
            warn!("files are still being written; they are taken in when they are complete");
            break;
        }
        // What is due already is not waited for.
        let wait = later.duration_since(SystemTime::now()).unwrap_or_default();
        std::thread::sleep(wait.clamp(Duration::from_millis(50), Duration::from_secs(5)));
    }
    let scans = daemon.scans();
    let faults: Vec<_> = scans.values().filter_map(|scan| scan.fault.clone()).collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::internal(faults.join("; "))) }
}

/// Scans one source, or some of its paths, and commits what was found. `None` where it failed; the fault is kept.
fn scan(daemon: &Arc<Daemon>, place: &mut Place, paths: Option<BTreeSet<String>>) -> Option<ScanReport> {
    let name = &place.settings.name;
    let (whole, began) = (paths.is_none(), Instant::now());
    daemon.scans().entry(name.clone()).or_default().scanning = true;
    let result = read(daemon, place, paths);
    let mut scans = daemon.scans();
    let state = scans.entry(name.clone()).or_default();
    state.scanning = false;
    let rescan = Duration::from_secs(place.settings.rescan_seconds);
    if whole {
        place.due = Instant::now() + rescan;
        state.due = Some(now().saturating_add(place.settings.rescan_seconds.cast_signed()));
    }
    match result {
        Ok(report) => {
            state.fault = None;
            state.unsettled = report.unsettled;
            if report.unsettled == 0 {
                state.noticed = None;
            }
            if whole {
                state.scanned = Some(now());
                state.read = report.read;
                state.took = Some(began.elapsed().as_secs_f64());
            }
            if let Some(again) = report.look_again {
                // What is due already is looked at after the burst.
                let wait = again.duration_since(SystemTime::now()).unwrap_or_default();
                place.hinted.extend(report.again.iter().cloned());
                place.hinted_due.get_or_insert(Instant::now() + wait.max(BURST));
            }
            if report.arrived + report.gone + report.restamped > 0 {
                info!(
                    "source {name}: {} documents met, {} read, {} gone, {} waited for",
                    report.met, report.arrived, report.gone, report.unsettled
                );
            }
            Some(report)
        }
        Err(failure) => {
            // A scan that a pause or a removal cut off did not fail.
            if !daemon.is_ending() && !is_left(daemon, name) {
                warn!("{}", failure.message);
                state.fault = Some(failure.message);
            }
            None
        }
    }
}

/// Whether nothing is taken in from a source for now, or any more.
fn is_left(daemon: &Daemon, name: &str) -> bool {
    daemon.paused_since(name).is_some() || daemon.is_removing(name)
}

fn read(daemon: &Arc<Daemon>, place: &Place, paths: Option<BTreeSet<String>>) -> Result<ScanReport, Failure> {
    if place.added {
        crate::sources::stands(&daemon.settings, &place.settings)?;
    }
    let catalog = daemon.state.catalog()?;
    let name = &place.settings.name;
    let writer = daemon.state.catalog()?;
    writer.keep_more()?;
    let mut pipeline = Pipeline::new(writer, &daemon.rules, &daemon.ledger, name);
    let (mut failure, mut told) = (None, 0);
    let mut sink = |change| {
        if daemon.is_ending() || is_left(daemon, name) {
            return Err(SinkClosed);
        }
        pipeline.push(change).map_err(|error| {
            failure = Some(error);
            SinkClosed
        })?;
        if pipeline.documents >= told + UPDATE_EVERY {
            daemon.took_in(pipeline.documents - told);
            told = pipeline.documents;
            daemon.update(Update::Curating { documents: told, bytes: pipeline.bytes, of: None });
        }
        Ok(())
    };
    let result = match (&place.reader, paths) {
        (Reader::Folder(folder), Some(paths)) => {
            folder.scan_paths(&catalog, daemon.rules_hash, &paths, &mut sink)
        }
        (Reader::Folder(folder), None) => folder.scan(&catalog, daemon.rules_hash, &mut sink),
        (Reader::Git(git), _) => git.scan(&catalog, daemon.rules_hash, &mut sink),
    };
    match (result, failure) {
        (_, Some(failure)) => Err(failure),
        (Err(SourceError::Closed(_)), None) => {
            Err(Failure::internal(format!("the scan of source {name} was cut off")))
        }
        (Err(error), None) => Err(Failure::internal(error)),
        (Ok(report), None) => {
            pipeline.flush()?;
            daemon.took_in(pipeline.documents - told);
            if let Some((key, value)) = &report.checkpoint {
                let batch = catalog.write()?;
                batch.put_meta(key, value)?;
                batch.commit()?;
            }
            daemon.update(Update::Curating {
                documents: pipeline.documents,
                bytes: pipeline.bytes,
                of: None,
            });
            Ok(report)
        }
    }
}
