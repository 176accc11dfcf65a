//! A site of its own for a test: folders, a tiny base, and a real `moatd` with a real `moat-engine`.
#![allow(dead_code)]

pub(crate) mod browser;
pub(crate) mod people;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_catalog::Catalog;
use moat_contracts::{Recipe, RunPart};
use moat_protocol::Hello;
use moat_protocol::control::{Reply, Request, Run, Update};
use moat_vault::{Kek, Vault, open_file};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes; a hang fails instead of blocking.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Site {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    /// Whether the daemon is handed the credential that opens its vault.
    credential: bool,
    /// What the daemon is started by, with its arguments; nothing starts it by itself.
    launcher: Vec<String>,
}

impl Site {
    /// An empty site with its tiny base ready to import.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Other users of the machine find the socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(folder.path().join("documents")).unwrap();
        fs::create_dir(folder.path().join("exports")).unwrap();
        tiny_base(&folder.path().join("tiny"));
        let settings = format!(
            "[daemon]\nstate = \"{0}/state\"\nruntime = \"{0}/run\"\n\n\
             [boundary]\nimports = [\"{0}/tiny\", \"{0}/exports\"]\nexports = [\"{0}/exports\"]\n\n[training]\nthreads = 1\n\n\
             [[source]]\nname = \"documents\"\npath = \"{0}/documents\"\nsettle_seconds = 0\n",
            folder.path().display()
        );
        fs::write(folder.path().join("moat.toml"), settings).unwrap();
        for name in ["credentials", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("credentials/moat-kek"), [7; 32]).unwrap();
        Self { folder, daemon: None, credential: true, launcher: Vec::new() }
    }

    /// An empty site whose daemon is handed no credential: people open its vault.
    pub(crate) fn without_credential() -> Self {
        let mut site = Self::new();
        site.credential = false;
        site
    }

    /// Has the daemon started by a program that becomes it.
    pub(crate) fn launch_by(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// The vault, opened beside the daemon, which holds its own: on a copy of the root file.
    pub(crate) fn vault(&self) -> Arc<Vault> {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(self.path("state/vault/root"), copy.path().join("root")).unwrap();
        let kek = Kek::credential_in(&self.path("credentials")).unwrap();
        Arc::new(Vault::open(copy.path(), &kek).unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path("documents").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while self.try_call(&Request::Status, |_| {}).is_none() {
            assert!(Instant::now() < deadline, "moatd did not come up");
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "moatd ended at its start: {ended:?}, {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let words = self.launcher.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_moatd")]);
        let words: Vec<_> = words.collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.env_remove("CREDENTIALS_DIRECTORY").env("TMPDIR", self.path("tmp"));
        if self.credential {
            command.env("CREDENTIALS_DIRECTORY", self.path("credentials"));
        }
        command.arg("--config").arg(self.path("moat.toml")).stdin(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Starts a daemon that refuses to, and waits for its end.
    pub(crate) fn ends_at_its_start(&mut self) -> ExitStatus {
        self.spawn();
        self.daemon.take().unwrap().wait().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills the daemon where it stands.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        assert_eq!(daemon.wait().unwrap().signal(), Some(9), "moatd had ended before: {}", self.log());
    }

    /// Kills the engine where it stands, if one runs.
    pub(crate) fn kill_engine(&self) -> bool {
        let daemon = self.daemon.as_ref().unwrap().id();
        let children =
            fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{daemon}/task")).into_iter().flatten().flatten();
        let all = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        let engines: Vec<i32> = all
            .chain([children])
            .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        engines.into_iter().filter_map(Pid::from_raw).any(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// What the daemon has open that no folder names: removed files, and memory that is a file. Empty where another user's
    /// open files are not shown.
    pub(crate) fn nameless(&self) -> Vec<(String, Vec<u8>)> {
        let folder = format!("/proc/{}/fd", self.daemon.as_ref().unwrap().id());
        let open = fs::read_dir(folder).into_iter().flatten().flatten();
        let named = open.filter_map(|entry| Some((fs::read_link(entry.path()).ok()?, entry.path())));
        let nameless = named.filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.ends_with(" (deleted)") || name.starts_with("/memfd:") || name.starts_with("/dev/shm/")
        });
        nameless.filter_map(|(name, path)| Some((name.display().to_string(), fs::read(path).ok()?))).collect()
    }

    /// The daemon's peak resident memory, KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.daemon.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Ends the daemon on request.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.call(Request::Shutdown), Reply::Done);
        let status = self.daemon.take().unwrap().wait().unwrap();
        assert!(status.success(), "moatd ended with {status}: {}", self.log());
    }

    pub(crate) fn call(&self, request: Request) -> Reply {
        self.call_and_watch(&request, |_| {})
    }

    pub(crate) fn call_and_watch(&self, request: &Request, watch: impl FnMut(Update)) -> Reply {
        self.try_call(request, watch).unwrap_or_else(|| panic!("no answer to {request:?}: {}", self.log()))
    }

    /// The answer, or nothing where the daemon is not there or dies meanwhile.
    pub(crate) fn try_call(&self, request: &Request, mut watch: impl FnMut(Update)) -> Option<Reply> {
        self.listen(request, |update| {
            watch(update);
            true
        })
    }

    /// As [`Self::try_call`], hanging up where the listener wants no more.
    pub(crate) fn listen(&self, request: &Request, mut more: impl FnMut(Update) -> bool) -> Option<Reply> {
        let stream = UnixStream::connect(self.path("run/control.sock")).ok()?;
        Self::converse(stream, request, &mut more)
    }

    /// The answer on a connection.
    fn converse(
        mut stream: UnixStream,
        request: &Request,
        mut more: impl FnMut(Update) -> bool,
    ) -> Option<Reply> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        moat_protocol::write_blocking(&mut stream, &Hello::of("moat")).ok()?;
        moat_protocol::read_blocking::<Hello>(&mut stream).ok()??.expect("moatd").unwrap();
        moat_protocol::write_blocking(&mut stream, request).ok()?;
        loop {
            match moat_protocol::read_blocking::<Reply>(&mut stream).ok()?? {
                Reply::Update(update) => {
                    if !more(update) {
                        return None;
                    }
                }
                last => return Some(last),
            }
        }
    }

    pub(crate) fn import_base(&self) {
        let folder = self.path("tiny").display().to_string();
        let reply = self.call(Request::BaseImport { folder, name: Some("tiny".to_owned()) });
        assert!(matches!(reply, Reply::Base(_)), "{reply:?}");
    }

    pub(crate) fn scan(&self) {
        let reply = self.call(Request::Scan);
        assert!(matches!(reply, Reply::Status(_)), "{reply:?}");
    }

    /// Starts a run and waits for its end.
    pub(crate) fn run(&self, recipe: &Recipe) -> Run {
        let name = self.start_run(recipe);
        match self.call(Request::RunWatch { name }) {
            Reply::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start_run(&self, recipe: &Recipe) -> String {
        match self.call(Request::RunStart { recipe: Box::new(recipe.clone()) }) {
            Reply::Run(run) => run.name,
            other => panic!("{other:?}"),
        }
    }

    /// SHA-256 of a run's weights, as its engine told it.
    pub(crate) fn weights(&self, run: &str) -> moat_contracts::Digest {
        match self.call(Request::Run { name: run.to_owned() }) {
            Reply::Run(run) => run.outcome.unwrap().weights,
            other => panic!("{other:?}"),
        }
    }

    /// SHA-256 of what a run's sealed adapter file holds.
    pub(crate) fn adapter(&self, run: &str) -> moat_contracts::Digest {
        let file = self.path("state/runs").join(run).join("adapter/adapter_model.safetensors.sealed");
        let catalog = Catalog::open(&self.path("state/catalog.db"), &self.vault()).unwrap();
        let key = catalog.run_key(run).unwrap().unwrap();
        let object = format!("{}/adapter_model.safetensors", RunPart::Adapter.object(run));
        let mut plain = Vec::new();
        open_file(&file, &key, &object).unwrap().read_to_end(&mut plain).unwrap();
        moat_contracts::Digest::of(&plain)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

/// A small deterministic generator (splitmix64), so that a failing seed can be run again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const WORDS: &[&str] = &[
    "pump", "valve", "ledger", "invoice", "report", "engine", "the", "of", "and", "to", "is", "checks",
    "opens", "every", "morning", "pressure", "before", "after", "team", "turbine", "log", "value", "limit",
    "review", "sends", "with", "for", "new", "old", "order", "station", "night", "shift", "manual", "page",
    "table", "north", "line",
];

/// Sentences that quality rules take for a company's prose.
pub(crate) fn prose(random: &mut Random, sentences: u64) -> String {
    let mut text = String::new();
    for _ in 0..sentences {
        let length = 7 + random.below(9);
        let words: Vec<_> = (0..length).map(|_| WORDS[random.below(WORDS.len() as u64) as usize]).collect();
        text.push_str(&format!("The {} has {} {}.\n", words[0], random.below(100_000), words[1..].join(" ")));
    }
    text
}

/// A Qwen2 of two layers with random weights and a byte-level tokenizer.
fn tiny_base(folder: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny");
    fs::create_dir(folder).unwrap();
    for file in fs::read_dir(fixture).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let config = serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
        "vocab_size": 264, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "torch_dtype": "float32"});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let architecture = moat_contracts::Architecture::from_config(&config.to_string()).unwrap();
    let mut random = Random(7);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = architecture
        .tensors()
        .into_iter()
        .map(|tensor| {
            let norm = tensor.name.ends_with("norm.weight");
            let count: usize = tensor.shape.iter().product();
            let value = |random: &mut Random| {
                let unit = random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
                if norm { 1.0 } else { unit * 0.1 }
            };
            let bytes = (0..count).flat_map(|_| value(&mut random).to_le_bytes()).collect();
            (tensor.name, tensor.shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

/// A recipe over the tiny base that is done in a moment.
pub(crate) fn tiny_recipe(steps: u64) -> Recipe {
    let mut recipe = Recipe { name: "tiny".to_owned(), base: "tiny".to_owned(), ..Recipe::default() };
    recipe.split.held_out = 0.35;
    recipe.lora.rank = 2;
    recipe.lora.alpha = 4.0;
    recipe.train.sequence_length = 64;
    recipe.train.micro_batch = 2;
    recipe.train.epochs = 100.0;
    recipe.train.max_steps = steps;
    recipe.train.checkpoint_every = 3;
    recipe.optimizer.learning_rate = 1e-2;
    recipe.evaluate.resamples = 200;
    recipe
}
