use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use moat_contracts::{
    DecayGroup, DecayShape, Frozen, Kind, LearntTurns, Objective, OptimizerState, Precision, Protection,
    Recipe, Rules, Schedule,
};
use serde::{Deserialize, Serialize};

/// What `moat.toml` says, field by field; a missing key takes the value of [`Default`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where things lie.
    pub daemon: DaemonSettings,
    /// Who may call.
    pub control: ControlSettings,
    /// What must hold before data is touched.
    pub boundary: BoundarySettings,
    /// The port of the admin UI and of the API.
    pub admin: AdminSettings,
    /// Who keeps the ledger honest.
    pub ledger: LedgerSettings,
    /// How training uses the machine.
    pub training: TrainingSettings,
    /// Where the company's data lives.
    pub source: Vec<SourceSettings>,
    /// Which records a person looks at.
    pub review: ReviewSettings,
    /// How records are judged.
    pub curation: Rules,
}

/// Which records wait for a person. Datasets do not wait for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReviewSettings {
    /// Those that quality rules nearly judged otherwise: within this share of a limit. 0 for none.
    pub margin: f64,
    /// Those in which something was replaced.
    pub redacted: bool,
    /// Share of the records that were kept as they are, drawn by their ids.
    pub sample: f64,
}

impl Default for ReviewSettings {
    fn default() -> Self {
        Self { margin: 0.05, redacted: true, sample: 0.01 }
    }
}

/// Where things lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSettings {
    /// Folder of the catalog, bases and runs.
    pub state: PathBuf,
    /// Folder of `control.sock`.
    pub runtime: PathBuf,
    /// The engine's program; empty takes `moat-engine` beside `moatd`; `unix:DIR` is where a service manager listens.
    pub engine: PathBuf,
}

/// How `moatd` gets an engine for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnginePlace {
    /// It starts this program.
    Program(PathBuf),
    /// It connects to `train.sock` or `serve.sock` in this folder, behind which each connection gets an engine.
    Sockets(PathBuf),
}

/// Who may call, besides root and the user that `moatd` runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSettings {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids; the caller's primary group counts.
    pub gids: Vec<u32>,
}

/// What must hold before data is touched, and which folders besides Moat's own may be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoundarySettings {
    /// Protections without which `moatd` and the engine refuse to start.
    pub require: Vec<Protection>,
    /// The policy of system calls and files; empty takes the built-in one.
    pub sandbox: PathBuf,
    /// Folders from which bases may be imported.
    pub imports: Vec<PathBuf>,
    /// Folders in which exports may be written.
    pub exports: Vec<PathBuf>,
    /// Folders in which backups may be written.
    pub backups: Vec<PathBuf>,
    /// Folders in which people may add sources. Left out of the site's policy while there is none, so that a policy that was
    /// agreed to before there was this key stays the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PathBuf>,
    /// Seconds between two rounds of the canary.
    pub canary_seconds: u64,
    /// Bytes that an API key may be served in completions a day, as a share of the bytes of the model's weights.
    pub completions_share: f64,
}

/// The port of the admin UI and of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Address and port to listen on where systemd passes no socket; empty for none.
    pub listen: String,
    /// Names and addresses of this machine, for the certificate of Moat's own authority.
    pub names: Vec<String>,
    /// The site's certificate chain, PEM; empty for one of Moat's own authority.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority whose clients alone may connect, PEM; empty for any client.
    pub client_authority: PathBuf,
    /// Minutes without a request after which a browser is signed out.
    pub idle_minutes: u64,
    /// Hours after which a browser is signed out, whatever it does.
    pub session_hours: u64,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: String::new(),
            names: Vec::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_authority: PathBuf::new(),
            idle_minutes: 15,
            session_hours: 8,
        }
    }
}

/// Who keeps the ledger honest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerSettings {
    /// Seconds between two signed checkpoints, where anything was added.
    pub checkpoint_seconds: u64,
    /// File to which every checkpoint is copied, on a medium of its own; empty for none.
    pub witness: PathBuf,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self { checkpoint_seconds: 60, witness: PathBuf::new() }
    }
}

/// How training uses the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSettings {
    /// Worker threads of the engine, of all its processes together; 0 takes every core.
    pub threads: usize,
    /// Processes that share the micro-batches of a training run, each with a GPU of its own where there are GPUs.
    pub processes: usize,
    /// The engine's niceness, 0 to 19.
    pub nice: u8,
    /// MiB of memory that an engine may take for training; 0 for what the machine and its control group allow.
    pub memory_mib: u64,
}

/// What sort of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A folder of files.
    Folder,
    /// The tracked text of a local git repository at a branch's tip.
    Git,
}

impl SourceKind {
    /// The word that stands in the configuration and in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Git => "git",
        }
    }
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// Absolute path of the folder or repository.
    pub path: PathBuf,
    /// Branch of a git source; empty takes the one that HEAD names.
    pub branch: String,
    /// The policy that its documents carry.
    pub policy: String,
    /// Larger documents are counted and skipped.
    pub max_bytes: u64,
    /// A file changed less than this long ago is waited for.
    pub settle_seconds: u64,
    /// Seconds between rescans, which catch what events miss.
    pub rescan_seconds: u64,
    /// Read files and folders whose name begins with a dot.
    pub hidden: bool,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self { state: "/var/lib/moat".into(), runtime: "/run/moat".into(), engine: PathBuf::new() }
    }
}

impl Default for BoundarySettings {
    fn default() -> Self {
        // What every Linux grants every process.
        let require = vec![Protection::Dumps, Protection::Tracing, Protection::Privileges];
        Self {
            require,
            sandbox: PathBuf::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            backups: Vec::new(),
            sources: Vec::new(),
            canary_seconds: 60,
            completions_share: 0.01,
        }
    }
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self { threads: 0, processes: 1, nice: 5, memory_mib: 0 }
    }
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: SourceKind::Folder,
            path: PathBuf::new(),
            branch: String::new(),
            policy: "internal".to_owned(),
            max_bytes: 16 << 20,
            settle_seconds: 2,
            rescan_seconds: 300,
            hidden: false,
        }
    }
}

/// A value that its type admits but its meaning does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueFault {
    /// The key's path, such as `source[0].path`.
    pub key: String,
    /// What is wrong and what to do, a lowercase sentence.
    pub message: String,
}

impl ValueFault {
    /// A fault of one key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Settings {
    /// Where `moatd` listens and `moat` calls.
    pub fn socket(&self) -> PathBuf {
        self.daemon.runtime.join("control.sock")
    }

    /// Where engines come from, given the folder that `moatd` lies in.
    pub fn engine(&self, programs: &Path) -> EnginePlace {
        let engine = &self.daemon.engine;
        match engine.to_str().and_then(|text| text.strip_prefix("unix:")) {
            Some(folder) => EnginePlace::Sockets(folder.into()),
            None if engine.as_os_str().is_empty() => EnginePlace::Program(programs.join("moat-engine")),
            None => EnginePlace::Program(engine.clone()),
        }
    }

    /// The policy of system calls and files; the built-in one where none is named.
    pub fn sandbox(&self) -> Option<&Path> {
        Some(self.boundary.sandbox.as_path()).filter(|file| !file.as_os_str().is_empty())
    }

    /// True where a base may be imported from the folder.
    pub fn may_import(&self, folder: &Path) -> bool {
        self.boundary.imports.iter().any(|allowed| lies_in(folder, allowed))
    }

    /// True where an export may be written to the folder.
    pub fn may_export(&self, folder: &Path) -> bool {
        self.boundary.exports.iter().any(|allowed| folder != allowed && lies_in(folder, allowed))
    }

    /// True where a backup may be written to the folder.
    pub fn may_back_up(&self, folder: &Path) -> bool {
        self.boundary.backups.iter().any(|allowed| folder != allowed && lies_in(folder, allowed))
    }

    /// Every fault at once; empty for sound settings. Does not look at the machine.
    pub fn faults(&self) -> Vec<ValueFault> {
        let mut faults = Vec::new();
        let mut hold = |sound: bool, key: &str, message: &str| {
            if !sound {
                faults.push(ValueFault::new(key, message));
            }
        };
        let daemon = &self.daemon;
        let absolute = "must be an absolute path";
        hold(daemon.state.is_absolute(), "daemon.state", absolute);
        hold(daemon.runtime.is_absolute(), "daemon.runtime", absolute);
        let (EnginePlace::Program(engine) | EnginePlace::Sockets(engine)) = self.engine(Path::new("/"));
        let message =
            "must be an absolute path, \"unix:\" and an absolute path, or empty for the engine beside moatd";
        hold(engine.is_absolute(), "daemon.engine", message);
        let boundary = &self.boundary;
        let sandbox = boundary.sandbox.as_os_str().is_empty() || boundary.sandbox.is_absolute();
        hold(sandbox, "boundary.sandbox", "must be an absolute path, or empty for the built-in policy");
        let folders =
            [("imports", &boundary.imports), ("exports", &boundary.exports), ("backups", &boundary.backups)];
        for (name, folders) in folders {
            for (index, folder) in folders.iter().enumerate() {
                hold(folder.is_absolute(), &format!("boundary.{name}[{index}]"), absolute);
            }
        }
        for (index, folder) in boundary.sources.iter().enumerate() {
            let key = format!("boundary.sources[{index}]");
            hold(folder.is_absolute(), &key, absolute);
            hold(!(folder.is_absolute() && overlap(folder, &daemon.state)), &key, OWN_STATE);
        }
        let canary = (1..=3600).contains(&boundary.canary_seconds);
        hold(canary, "boundary.canary_seconds", "must be from 1 to 3600");
        let share = (0.0..=1.0).contains(&boundary.completions_share);
        hold(share, "boundary.completions_share", "must be from 0 to 1");
        let admin = &self.admin;
        let listen = admin.listen.is_empty() || admin.listen.parse::<std::net::SocketAddr>().is_ok();
        hold(
            listen,
            "admin.listen",
            "must be an IP address and a port, such as \"127.0.0.1:8443\", or empty",
        );
        let files = [
            ("admin.certificate", &admin.certificate),
            ("admin.key", &admin.key),
            ("admin.client_authority", &admin.client_authority),
            ("ledger.witness", &self.ledger.witness),
        ];
        for (key, file) in files {
            let sound = file.as_os_str().is_empty() || file.is_absolute();
            hold(sound, key, "must be an absolute path, or empty for none");
        }
        let paired = admin.certificate.as_os_str().is_empty() == admin.key.as_os_str().is_empty();
        hold(paired, "admin.key", "must be given with `admin.certificate`, and only with it");
        hold((1..=1440).contains(&admin.idle_minutes), "admin.idle_minutes", "must be from 1 to 1440");
        hold((1..=168).contains(&admin.session_hours), "admin.session_hours", "must be from 1 to 168");
        let often = (1..=86_400).contains(&self.ledger.checkpoint_seconds);
        hold(often, "ledger.checkpoint_seconds", "must be from 1 to 86400");
        hold(self.training.threads <= 1024, "training.threads", "must be at most 1024, or 0 for every core");
        hold((1..=16).contains(&self.training.processes), "training.processes", "must be from 1 to 16");
        let memory = self.training.memory_mib <= 1 << 30;
        hold(memory, "training.memory_mib", "must be at most 1073741824, or 0 for what the machine allows");
        hold(self.training.nice <= 19, "training.nice", "must be from 0 to 19");

        let shares = [("review.margin", self.review.margin), ("review.sample", self.review.sample)];
        for (key, share) in shares {
            hold((0.0..=1.0).contains(&share), key, "must be from 0 to 1");
        }

        let mut names = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for (index, source) in self.source.iter().enumerate() {
            let key = |field: &str| format!("source[{index}].{field}");
            let named = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if source.name.is_empty() {
                hold(false, &key("name"), "must be given: recipes, tables and lineage call the source by it");
            } else {
                let sound = source.name.len() <= 64 && source.name.chars().all(named);
                let message = "must have at most 64 characters, each a letter, a digit, `-`, `_` or `.`";
                hold(sound, &key("name"), message);
                if let Some(first) = names.insert(source.name.as_str(), index) {
                    let message = format!("is also the name of source[{first}]: each source needs its own");
                    hold(false, &key("name"), &message);
                }
            }
            if source.path.as_os_str().is_empty() {
                hold(false, &key("path"), "must be given: the absolute path of the folder or repository");
            } else {
                hold(source.path.is_absolute(), &key("path"), absolute);
                let own = source.path.is_absolute() && overlap(&source.path, &daemon.state);
                hold(!own, &key("path"), OWN_STATE);
                let place = (source.kind.word(), source.path.as_path(), source.branch.as_str());
                if let Some(first) = paths.insert(place, index) {
                    let message = format!("is also read by source[{first}]: take one of the two out");
                    hold(false, &key("path"), &message);
                }
            }
            let branch = source.branch.is_empty() || source.kind == SourceKind::Git;
            hold(branch, &key("branch"), "is only for kind = \"git\"");
            hold(!source.policy.is_empty(), &key("policy"), "must not be empty");
            let bytes = (1..=1 << 30).contains(&source.max_bytes);
            hold(bytes, &key("max_bytes"), "must be from 1 to 1073741824, for a document is read whole");
            hold(source.settle_seconds <= 3600, &key("settle_seconds"), "must be from 0 to 3600");
            let rescan = (1..=7 * 86_400).contains(&source.rescan_seconds);
            hold(rescan, &key("rescan_seconds"), "must be from 1 to 604800");
        }
        let curation = self.curation.faults().into_iter();
        faults
            .extend(curation.map(|fault| ValueFault::new(format!("curation.{}", fault.key), fault.message)));
        faults
    }

    /// Settings in which every list has an item, so that every key's type can be told from them.
    pub(crate) fn example() -> Self {
        Self {
            source: vec![SourceSettings::default()],
            control: ControlSettings { uids: vec![0], gids: vec![0] },
            boundary: BoundarySettings {
                imports: vec![PathBuf::new()],
                exports: vec![PathBuf::new()],
                sources: vec![PathBuf::new()],
                ..BoundarySettings::default()
            },
            ..Self::default()
        }
    }
}

const OWN_STATE: &str = "must not hold, or lie in, daemon.state: Moat would read its own state";

/// True where one of two folders lies in the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// True where a path, written without `..`, lies in a folder or is it.
fn lies_in(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) && path.components().all(|part| part != Component::ParentDir)
}

/// A recipe in which every list has an item and every key that may be left out is there: none of those holds its default.
pub(crate) fn example_recipe() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.selection.sources.push(String::new());
    recipe.selection.kinds.push(Kind::Prose);
    recipe.selection.languages.push(String::new());
    recipe.split.train_before = Some(String::new());
    recipe.split.validation = 0.5;
    recipe.train.frozen = Frozen::Int8;
    recipe.train.precision = Precision::Int8;
    recipe.train.start_from.push('-');
    recipe.train.objective = Objective::Dpo;
    recipe.train.turns = LearntTurns::Last;
    recipe.train.fim = 0.5;
    recipe.dpo.beta = 0.2;
    recipe.validation.patience = 1;
    recipe.lora.rank_stabilized = true;
    recipe.lora.decomposed = true;
    recipe.lora.b_rate = 16.0;
    recipe.lora.targets.push(String::new());
    recipe.optimizer.schedule = Schedule::Wsd;
    recipe.optimizer.decay = 0.5;
    recipe.optimizer.decay_shape = DecayShape::Cosine;
    recipe.optimizer.decayed = vec![DecayGroup::Norms];
    recipe.optimizer.state = OptimizerState::EightBit;
    recipe
}
