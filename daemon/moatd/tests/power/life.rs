//! A whole life of a daemon, recorded: documents come, change and go, a base, datasets, runs that are stopped, killed
//! and resumed, keys that move, an export. What `strace` saw of it is kept in files, so that it can be looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moat_contracts::{Digest, Progress, Recipe};
use moat_protocol::control::{NewSlot, Reply, Request, RunState, Update};
use serde::{Deserialize, Serialize};

use crate::disk::Image;
use crate::site::people::{BEN, can_be_others};
use crate::site::{Random, Site, prose, tiny_recipe};
use crate::trace::CALLS;

/// The entries of a site that must last; the witness is on a medium of its own.
pub(crate) const ROOTS: [&str; 3] = ["state", "witness", "exports"];

/// How often the company's folder changes, and once more.
pub(crate) const REVISIONS: usize = 9;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a life left, beside the traces.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recording {
    /// Where the site lay.
    pub(crate) site: PathBuf,
    /// How many traces there are, one for each start of the daemon.
    pub(crate) traces: usize,
    /// The company's folder, whenever a scan of it was answered, with the answer.
    pub(crate) scans: Vec<(Reply, BTreeMap<String, Digest>)>,
    /// The weights with which each run ended.
    pub(crate) weights: BTreeMap<String, Digest>,
}

/// Adds what these lives need to a site's settings.
fn settle(site: &Site) {
    fs::create_dir(site.path("witness")).unwrap();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let witness = site.path("witness/checkpoints").display().to_string();
    let ledger = format!("[ledger]\ncheckpoint_seconds = 1\nwitness = \"{witness}\"\n\n[training]\n");
    fs::write(site.path("moat.toml"), settings.replacen("[training]\n", &ledger, 1)).unwrap();
}

/// The company's folder at one time.
fn documents(revision: usize) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for index in 0..24 {
        let version = if index % 4 == revision % 4 { revision } else { 0 };
        let mut random = Random((index * 1000 + version) as u64);
        let deleted = revision > 0 && index % 9 == revision;
        let name = format!("team-{}/{index}.txt", index % 3);
        match index % 8 {
            _ if deleted => {}
            // The same text in two places, of which one survives.
            7 => drop(all.insert(name, prose(&mut Random(7777), 9))),
            6 => {
                let line = |_| {
                    let text = prose(&mut random, 5).replace('\n', " ");
                    format!("{}\n", serde_json::json!({ "text": text }))
                };
                all.insert(format!("lines/{index}.jsonl"), (0..3).map(line).collect());
            }
            _ => drop(all.insert(name, prose(&mut random, 7))),
        }
    }
    all
}

/// Brings the company's folder from one time to another.
fn put(site: &Site, documents: &BTreeMap<String, String>) {
    let mut left = vec![site.path("documents")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !documents
            .contains_key(path.strip_prefix(site.path("documents")).unwrap().to_str().unwrap())
        {
            fs::remove_file(path).unwrap();
        }
    }
    for (name, text) in documents {
        let path = site.path("documents").join(name);
        if fs::read_to_string(path).ok().as_ref() != Some(text) {
            site.write(name, text);
        }
    }
}

/// The recipe of the `number`th run.
fn recipe(number: u64) -> Recipe {
    let mut recipe = tiny_recipe(if number == 1 { 120 } else { 36 });
    recipe.train.checkpoint_every = if number == 1 { 10 } else { 3 };
    recipe.seed = number;
    recipe
}

struct Life<'a> {
    site: &'a mut Site,
    /// Where the recording goes, where there is one.
    folder: Option<&'a Path>,
    recording: Recording,
}

/// What installing leaves: empty folders.
pub(crate) fn installed() -> Image {
    let folders = ROOTS.iter().filter(|root| **root != "state").map(Into::into).collect();
    Image { folders, files: BTreeMap::new() }
}

/// Lives, and leaves the recording in an empty folder. Gives what lay on the disk at the end, and the site, in which the
/// company's folder is as it was last.
pub(crate) fn record(folder: &Path) -> (Image, Site) {
    lived(Site::new(), Some(folder), &installed(), |life| life.live())
}

/// Has a daemon go on from what was left, with the company's folder as it was then, until every run is done with the
/// weights that it has to have. Leaves a recording where a folder for it is given. Where the company's folder is as it was
/// at the end of the life, that one is taken, since a copy has other inodes and is read again.
pub(crate) fn go_on(
    folder: Option<&Path>,
    left: &Image,
    revision: usize,
    company: &Path,
    weights: &BTreeMap<String, Digest>,
) -> Image {
    let site = Site::new();
    if revision + 1 == REVISIONS {
        let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
        let own = site.path("documents").display().to_string();
        let settings = settings.replace(&own, &company.display().to_string());
        fs::write(site.path("moat.toml"), settings).unwrap();
    } else {
        put(&site, &documents(revision));
    }
    lived(site, folder, left, |life| life.go_on(revision, weights)).0
}

fn lived(
    mut site: Site,
    folder: Option<&Path>,
    beginning: &Image,
    live: impl FnOnce(&mut Life<'_>),
) -> (Image, Site) {
    settle(&site);
    beginning.write(&site.path(""));
    let path = fs::canonicalize(site.path("")).unwrap();
    let recording = Recording { site: path, traces: 0, scans: Vec::new(), weights: BTreeMap::new() };
    let mut life = Life { site: &mut site, folder, recording };
    live(&mut life);
    if let Some(folder) = folder {
        fs::write(folder.join("recording.json"), serde_json::to_vec(&life.recording).unwrap()).unwrap();
    }
    (Image::read(&site.path(""), &ROOTS), site)
}

impl Life<'_> {
    fn live(&mut self) {
        put(self.site, &documents(0));
        self.start();
        self.site.import_base();
        self.scan(0);
        let two_of_three = NewSlot::Shares { needed: 2, of: 3 };
        assert!(matches!(self.ask(Request::VaultSlotAdd { with: two_of_three.clone() }), Reply::Shares(_)));
        put(self.site, &documents(1));
        self.scan(1);
        let built = self.ask(Request::DatasetBuild { recipe: Box::new(recipe(1)) });
        assert!(matches!(built, Reply::Dataset(_)), "{built:?}");
        let first = self.start_run(1);
        self.train_until(&first, 20);
        let stopped = self.ask(Request::RunStop { name: first.clone() });
        assert!(matches!(&stopped, Reply::Run(run) if run.state == RunState::Stopped), "{stopped:?}");
        put(self.site, &documents(2));
        self.scan(2);
        assert!(matches!(self.ask(Request::VaultRotate), Reply::Seal(_)));
        assert!(matches!(self.ask(Request::RunResume { name: first.clone() }), Reply::Run(_)));
        self.train_until(&first, 40);
        assert!(matches!(self.ask(Request::VaultRotate), Reply::Seal(_)));
        assert!(matches!(self.ask(Request::VaultSlotRemove { id: 2 }), Reply::Seal(_)));
        self.finish(&first);
        // Enough changes for the catalog's log to be taken over and begun anew.
        for revision in 3..REVISIONS {
            put(self.site, &documents(revision));
            self.scan(revision);
        }

        let second = self.start_run(2);
        self.train_until(&second, 9);
        self.site.kill();
        self.traced_to_the_end();
        self.start();
        assert!(matches!(self.ask(Request::VaultSlotAdd { with: two_of_three }), Reply::Shares(_)));
        self.train_until(&second, 18);
        // Where the engine was quicker than the kill, the run is done.
        self.site.kill_engine();
        while is_active(self.run(&second)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.run(&second) == RunState::Failed {
            assert!(matches!(self.ask(Request::RunResume { name: second.clone() }), Reply::Run(_)));
        }
        self.finish(&second);
        if can_be_others() {
            self.export(&first);
        }
        self.site.end();
        self.traced_to_the_end();
    }

    /// The site is set up, and two people agree.
    fn export(&mut self, run: &str) {
        let [_, ada, ben] = self.site.set_up_three();
        let folder = self.site.path("exports/model").display().to_string();
        let asked = self.site.ask_export(&ada, run, &folder);
        let exported = self.site.approve(BEN, &ben, &asked);
        assert!(matches!(exported, Reply::Exported(_)), "{exported:?}");
        self.ask(Request::Statements);
    }

    fn go_on(&mut self, revision: usize, weights: &BTreeMap<String, Digest>) {
        self.start();
        let Reply::Status(status) = self.ask(Request::Status) else { panic!("nothing is told") };
        if status.alarm.is_some_and(|alarm| alarm.contains("policy")) {
            // The site was set up, and here its folders have other names: that is another policy, so work rests.
            return self.site.end();
        }
        self.site.import_base();
        self.scan(revision);
        let built = self.ask(Request::DatasetBuild { recipe: Box::new(recipe(1)) });
        assert!(matches!(built, Reply::Dataset(_)), "{built:?}");
        assert!(matches!(self.ask(Request::VaultRotate), Reply::Seal(_)));
        let Reply::Runs(runs) = self.ask(Request::Runs) else { panic!("no runs are told") };
        // A recorded life is held against keys that are known: it begins nothing new.
        if runs.is_empty() && self.folder.is_none() {
            let name = self.start_run(1);
            self.finish(&name);
        }
        for run in runs {
            if matches!(self.run(&run.name), RunState::Stopped | RunState::Failed) {
                assert!(matches!(self.ask(Request::RunResume { name: run.name.clone() }), Reply::Run(_)));
            }
            self.finish(&run.name);
            assert_eq!(
                self.recording.weights[&run.name], weights[&run.name],
                "run {} has other weights",
                run.name
            );
        }
        self.site.end();
        if self.folder.is_some() {
            self.traced_to_the_end();
        }
    }

    fn run(&self, name: &str) -> RunState {
        match self.site.call(Request::Run { name: name.to_owned() }) {
            Reply::Run(run) => run.state,
            other => panic!("{other:?}"),
        }
    }

    fn trace(&self) -> PathBuf {
        self.folder.unwrap().join(format!("trace-{}", self.recording.traces))
    }

    fn start(&mut self) {
        if self.folder.is_none() {
            return self.site.start();
        }
        self.recording.traces += 1;
        let trace = self.trace().display().to_string();
        let calls = format!("trace={CALLS}");
        // With -D the daemon is the child, and strace beside it: it can be killed as ever.
        let strace = [
            "strace",
            "-D",
            "-f",
            "-y",
            "-xx",
            "-s",
            "16000000",
            "--seccomp-bpf",
            "-e",
            &calls,
            "-o",
            &trace,
        ];
        // Who gave up being traced is seen by root alone; anybody is root in a namespace of users that they made.
        let root: &[&str] = &["unshare", "--user", "--map-root-user"];
        let root = if rustix::process::geteuid().is_root() { &[] } else { root };
        self.site.launch_by(root.iter().chain(&strace).map(ToString::to_string).collect());
        self.site.start();
    }

    /// Waits until strace has told of the end of every thread.
    fn traced_to_the_end(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(self.trace()).unwrap();
            let mut there = BTreeSet::new();
            for line in text.lines() {
                let (thread, rest) = line.split_once(' ').unwrap_or_default();
                if rest.trim_start().starts_with("+++") {
                    there.remove(thread)
                } else {
                    there.insert(thread)
                };
            }
            if there.is_empty() && text.ends_with('\n') {
                return;
            }
            assert!(Instant::now() < deadline, "strace has not told of the end of {there:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks, and then how everything stands, which says what the ledger and the vault hold.
    fn ask(&mut self, request: Request) -> Reply {
        let reply = self.site.call(request);
        self.site.call(Request::Status);
        reply
    }

    fn scan(&mut self, revision: usize) {
        let reply = self.site.call(Request::Scan);
        assert!(matches!(reply, Reply::Status(_)), "{reply:?}");
        let digests = documents(revision).into_iter().map(|(name, text)| (name, Digest::of(text.as_bytes())));
        self.recording.scans.push((reply, digests.collect()));
        let receipt = self.ask(Request::LedgerReceipt { index: 0 });
        assert!(matches!(receipt, Reply::Receipt(_)), "{receipt:?}");
    }

    fn start_run(&mut self, number: u64) -> String {
        match self.ask(Request::RunStart { recipe: Box::new(recipe(number)) }) {
            Reply::Run(run) => run.name,
            other => panic!("{other:?}"),
        }
    }

    /// Listens to a run until it tells of a checkpoint.
    fn train_until(&self, name: &str, wanted: u64) {
        let mut reached = 0;
        let last = self.site.listen(&Request::RunWatch { name: name.to_owned() }, |update| {
            if let Update::Run { progress: Progress::Checkpoint { step }, .. } = update {
                reached = step;
            }
            reached < wanted
        });
        assert!(reached >= wanted, "run {name} has no checkpoint {wanted}: {last:?}, {}", self.site.log());
    }

    fn finish(&mut self, name: &str) {
        let Reply::Run(run) = self.ask(Request::RunWatch { name: name.to_owned() }) else {
            panic!("run {name} has failed: {}", self.site.log())
        };
        self.recording.weights.insert(run.name, run.outcome.unwrap().weights);
    }
}

fn is_active(state: RunState) -> bool {
    !matches!(state, RunState::Done | RunState::Stopped | RunState::Failed)
}
