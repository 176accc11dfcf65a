use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use moat_contracts::{Attempt, Held, Protection};
use moat_firewall::canary::{self, Watch, Ways};
use moat_firewall::{Files, Paths, Policy, Program};
use moat_ledger::{Act, Phase, Who};
use moat_protocol::control::Confined;
use moat_settings::{EnginePlace, Settings, SourceKind};
use tracing::{error, info, warn};

use crate::daemon::{Daemon, now};
use crate::failure::Failure;

/// Each protection in words, and whether this machine granted it.
pub(crate) type Protections = BTreeMap<String, bool>;

/// Who hears of the canary's attempts, the daemon's own and its engines'.
static LISTENER: OnceLock<Arc<Daemon>> = OnceLock::new();

/// Between two entries of the ledger that tell what the canary tried in vain.
const HOUR: Duration = Duration::from_secs(3600);

/// What the daemon gave up, and the ways that its canary tries.
pub(crate) struct Boundary {
    protections: moat_firewall::Protections,
    ways: Ways,
}

/// Gives up what the daemon never needs, and says what was had. To be called before there is a second thread.
///
/// The error is for the log: a protection that the configuration demands cannot be had, or the policy is faulty.
pub(crate) fn take(settings: &Settings) -> Result<Boundary, String> {
    let policy = Policy::load(settings.sandbox()).map_err(|error| error.to_string())?;
    let ways = Ways::known(&policy);
    let paths = paths(settings)?;
    let starts_engines = matches!(place(settings), EnginePlace::Program(_));
    let under_systemd = !starts_engines || std::env::var_os("NOTIFY_SOCKET").is_some();
    let program = Program::Moatd { starts_engines, under_systemd };
    let protections = moat_firewall::confine(program, &policy, Files::Known(&paths));
    for (protection, had) in protections.iter() {
        match had {
            Ok(()) => info!("protection had: {}", protection.says()),
            Err(why) => warn!("protection not to be had here: {} ({protection}): {why}", protection.says()),
        }
    }
    for path in &protections.missing {
        warn!("{} is not there: should it come, moatd must be started again to use it", path.display());
    }
    protections.demand(&settings.boundary.require).map_err(|lacking| lacking.to_string())?;
    Ok(Boundary { protections, ways })
}

/// The files that the daemon needs. Makes its own folders, since only what is there can be allowed.
fn paths(settings: &Settings) -> Result<Paths, String> {
    let daemon = &settings.daemon;
    for (folder, mode) in [(&daemon.state, 0o700), (&daemon.runtime, 0o755)] {
        make(folder, mode).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    }
    let mut read = settings.boundary.imports.clone();
    read.extend(settings.boundary.sources.clone());
    read.extend(settings.sandbox().map(Path::to_owned));
    let admin = &settings.admin;
    // Certificates are replaced by renaming, so that their folders are what stays.
    let files = [&admin.certificate, &admin.key, &admin.client_authority];
    read.extend(
        files
            .into_iter()
            .filter_map(|file| file.parent())
            .filter(|folder| folder.is_absolute())
            .map(Path::to_owned),
    );
    for source in &settings.source {
        if source.kind == SourceKind::Git {
            read.extend(repository(&source.path));
        }
        read.push(source.path.clone());
    }
    let mut write = vec![daemon.state.clone(), daemon.runtime.clone()];
    // The witness is replaced as a whole, so its folder is written.
    let witness = settings.ledger.witness.parent().filter(|folder| !folder.as_os_str().is_empty());
    write.extend(witness.map(Path::to_owned));
    write.extend(settings.boundary.exports.clone());
    write.extend(settings.boundary.backups.clone());
    // Secrets that systemd passes (systemd.exec(5), CREDENTIALS).
    read.extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    let (execute, connect) = match place(settings) {
        EnginePlace::Program(program) => (vec![program], Vec::new()),
        EnginePlace::Sockets(folder) => (Vec::new(), vec![folder]),
    };
    Ok(Paths { read, write, execute, connect })
}

/// Makes a folder, and those above it, unless they are there: in a way that a power cut does not undo.
fn make(folder: &Path, mode: u32) -> io::Result<()> {
    let new: Vec<_> = folder.ancestors().take_while(|folder| !folder.is_dir()).collect();
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    new.into_iter().filter_map(Path::parent).try_for_each(|above| fs::File::open(above)?.sync_all())
}

/// The folders beside a work tree that its repository consists of: a linked work tree's own and the common one
/// (gitrepository-layout(5)), and those that it borrows objects from.
pub(crate) fn repository(tree: &Path) -> Vec<PathBuf> {
    let line = |file: PathBuf| fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    let mut found = Vec::new();
    let mut folder = tree.join(".git");
    if let Some(link) = line(folder.clone()).as_deref().and_then(|text| text.strip_prefix("gitdir: ")) {
        folder = tree.join(link);
        found.push(folder.clone());
        if let Some(common) = line(folder.join("commondir")) {
            folder = folder.join(common);
            found.push(folder.clone());
        }
    }
    for objects in [folder.join("objects"), tree.join("objects")] {
        // Most repositories borrow from no other and have no such file.
        let alternates = line(objects.join("info/alternates")).unwrap_or_default();
        found.extend(alternates.lines().map(|other| objects.join(other)));
    }
    found
}

/// Where engines come from. A daemon that cannot tell where it lies looks where it was started.
pub(crate) fn place(settings: &Settings) -> EnginePlace {
    let here = std::env::current_exe().ok().and_then(|program| program.parent().map(ToOwned::to_owned));
    settings.engine(&here.unwrap_or_default())
}

/// What an engine is told of its boundary.
pub(crate) fn arguments(settings: &Settings) -> Vec<String> {
    let mut arguments = vec!["--canary-seconds".to_owned(), settings.boundary.canary_seconds.to_string()];
    for protection in &settings.boundary.require {
        arguments.extend(["--require".to_owned(), protection.word().to_owned()]);
    }
    if let Some(file) = settings.sandbox() {
        arguments.extend(["--sandbox".to_owned(), file.display().to_string()]);
    }
    let empty = |daemon: &&Arc<Daemon>| daemon.protections.get(Protection::Network.says()) == Some(&true);
    if LISTENER.get().filter(empty).is_some() {
        arguments
            .extend(moat_firewall::network().into_iter().flat_map(|name| ["--network".to_owned(), name]));
    }
    // Inside the daemon's limits the engine cannot ask how many cores its group may use.
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    arguments.extend(["--threads".to_owned(), cores.to_string()]);
    arguments
}

impl Boundary {
    /// Each protection in words, and whether it was had.
    pub(crate) fn protections(&self) -> Protections {
        self.protections.iter().map(|(protection, had)| (protection.says().to_owned(), had.is_ok())).collect()
    }

    /// Sets the canary to work, until the value is dropped.
    pub(crate) fn watch(&self, daemon: &Arc<Daemon>) -> Result<Watch, Failure> {
        if LISTENER.set(daemon.clone()).is_err() {
            return Err(Failure::internal("the canary has a listener already"));
        }
        let held = |(protection, had): (Protection, Result<(), &str>)| Held {
            protection,
            refused: had.err().map(ToOwned::to_owned),
        };
        confined("moatd", self.protections.iter().map(held).collect());
        let every = Duration::from_secs(daemon.settings.boundary.canary_seconds);
        canary::watch(self.ways.clone(), every, |attempts| tried("moatd", &attempts))
            .map_err(Failure::internal)
    }
}

/// Hears what a process gave up.
pub(crate) fn confined(process: &str, protections: Vec<Held>) {
    let Some(daemon) = LISTENER.get() else { return };
    let mut known = daemon.confined.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(process.to_owned(), Confined { since: now(), protections });
}

/// Hears what a process's canary tried.
pub(crate) fn tried(process: &str, attempts: &[Attempt]) {
    let Some(daemon) = LISTENER.get() else { return };
    daemon.canary.lock().unwrap_or_else(PoisonError::into_inner).add(attempts);
    *daemon.flown.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
    let open: Vec<_> =
        attempts.iter().filter(|attempt| attempt.is_open()).map(|attempt| &attempt.way).collect();
    if open.is_empty() {
        summarise(daemon);
        return;
    }
    // Whoever sees it sealed sees why; and whatever else fails, nothing more is opened.
    for way in &open {
        daemon.raise(format!("a way out of {process} was open: {way}; close it, then unseal"));
    }
    daemon.seal();
    for way in open {
        error!("a way out of {process} is open, so the vault was sealed: {way}");
        let act =
            Act::new(Who::daemon(), "canary.open", Phase::Done).on("process", process).detail("way", way);
        if let Err(error) = daemon.ledger.append(&act) {
            error!("the open way is not in the ledger: {error}");
        }
    }
}

/// Writes the canary's counts into the ledger, at the start and then every hour.
fn summarise(daemon: &Daemon) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < HOUR) {
        return;
    }
    let (tried, open) = {
        let counts = daemon.canary.lock().unwrap_or_else(PoisonError::into_inner);
        let ways = counts.ways().values();
        ways.fold((0, 0), |(tried, open), way| (tried + way.tried, open + way.open))
    };
    let act =
        Act::new(Who::daemon(), "canary.closed", Phase::Done).detail("tried", tried).detail("open", open);
    match daemon.ledger.append(&act) {
        Ok(_) => *last = Some(Instant::now()),
        Err(error) => warn!("the canary's counts are not in the ledger: {error}"),
    }
}
