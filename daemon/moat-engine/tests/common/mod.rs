//! The real `moat-engine` at the other end of a socket, on the template crate's tiny base with random weights.

#![allow(clippy::unwrap_used, dead_code)]
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use moat_contracts::{
    Digest, Example, Kind, Method, OptimizerRecipe, Progress, Protection, Recipe, RecordId, Split, TrainJob,
    TrainRecipe,
};
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_protocol::{Hello, read_blocking, write_blocking};

pub(crate) const ENGINE: &str = env!("CARGO_BIN_EXE_moat-engine");

/// What `moatd` holds of an engine.
pub(crate) struct Engine {
    pub(crate) child: Child,
    pub(crate) stream: UnixStream,
}

impl Engine {
    pub(crate) fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(ENGINE);
        command.args(["--fd", "0", "--threads", "1"]).stdin(OwnedFd::from(theirs)).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut engine = Self { child, stream: ours };
        engine.greet();
        engine
    }

    pub(crate) fn greet(&mut self) {
        write_blocking(&mut self.stream, &Hello::of("moatd")).unwrap();
        read_blocking::<Hello>(&mut self.stream).unwrap().unwrap().expect("moat-engine").unwrap();
    }

    pub(crate) fn say(&mut self, message: &ToEngine) {
        write_blocking(&mut self.stream, message).unwrap();
    }

    /// What it says next, its canary aside, which must find every way out closed.
    pub(crate) fn hear(&mut self) -> Option<FromEngine> {
        loop {
            match read_blocking(&mut self.stream).unwrap_or(None) {
                Some(FromEngine::Confined(held)) => assert_eq!(held.len(), Protection::ALL.len()),
                Some(FromEngine::Canary(attempts)) => {
                    let open: Vec<_> = attempts.iter().filter(|attempt| attempt.is_open()).collect();
                    assert!(open.is_empty() && attempts.len() > 40, "{open:?}");
                }
                said => return said,
            }
        }
    }

    pub(crate) fn give(&mut self, job: &ToEngine, examples: &[Example]) {
        self.say(job);
        for example in examples {
            self.say(&ToEngine::Example(example.clone()));
        }
        self.say(&ToEngine::End);
    }

    /// Everything it says before its last message, and that one.
    pub(crate) fn hear_all(&mut self) -> (Vec<Progress>, FromEngine) {
        let mut reports = Vec::new();
        loop {
            match self.hear().unwrap() {
                FromEngine::Progress(report) => reports.push(report),
                // What an answer is made of is told again with the whole of it.
                FromEngine::Piece { .. } => {}
                last => return (reports, last),
            }
        }
    }

    /// Hangs up and waits for its end.
    pub(crate) fn leave(self) -> ExitStatus {
        let Self { mut child, stream } = self;
        drop(stream);
        child.wait().unwrap()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny");
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        for entry in fs::read_dir(tiny).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), base.join(entry.file_name())).unwrap();
        }
        let status = Command::new(ENGINE).arg("--init").arg(&base).args(["--seed", "3"]).status().unwrap();
        assert!(status.success());
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn train(&self, run: &str) -> ToEngine {
        ToEngine::Train(TrainJob {
            run: run.to_owned(),
            base: self.text("base"),
            output: self.text(run),
            recipe: recipe(),
            start: None,
            threads: 0,
            memory: 0,
            processes: 1,
            rank: 0,
            key: None,
        })
    }
}

pub(crate) fn recipe() -> Recipe {
    Recipe {
        train: TrainRecipe {
            method: Method::Lora,
            sequence_length: 48,
            micro_batch: 1,
            accumulate: 2,
            epochs: 3.0,
            checkpoint_every: 4,
            ..Default::default()
        },
        optimizer: OptimizerRecipe { learning_rate: 1e-2, ..Default::default() },
        ..Default::default()
    }
}

pub(crate) fn examples(split: Split) -> Vec<Example> {
    (0..24)
        .map(|number| {
            let body = format!("{split:?} {number}: the night valve opens before shift {}", number * number);
            Example {
                record: RecordId(Digest::of(body.as_bytes())),
                source: "handbook".to_owned(),
                split,
                kind: Kind::Prose,
                body,
            }
        })
        .collect()
}

pub(crate) fn losses(reports: &[Progress]) -> Vec<(u64, u64)> {
    reports
        .iter()
        .filter_map(|report| match report {
            Progress::Step { step, loss, .. } => Some((*step, loss.to_bits())),
            _ => None,
        })
        .collect()
}
