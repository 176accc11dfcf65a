//! A tiny base with random weights, a corpus, and runs on it.

#![allow(clippy::unwrap_used, dead_code)]
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moat_contracts::{
    Digest, Example, Kind, Method, OptimizerRecipe, Progress, Recipe, RecordId, RunKey, RunPart, Split,
    TrainJob, TrainRecipe,
};
use moat_tensor::{Folder, StoredType};
use moat_train::{Corpus, Ended, Intake, TrainError, initialise, train};

pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A folder with the tiny base of the template crate and fresh weights.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/fixtures/tiny");
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        for entry in fs::read_dir(tiny).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), base.join(entry.file_name())).unwrap();
        }
        initialise(&base, 3, StoredType::F32).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn job(&self, run: &str, recipe: &Recipe) -> TrainJob {
        TrainJob {
            run: run.to_owned(),
            key: None,
            base: self.path("base").to_str().unwrap().to_owned(),
            output: self.path(run).to_str().unwrap().to_owned(),
            recipe: recipe.clone(),
            start: None,
            threads: 0,
            memory: 0,
            processes: 1,
            rank: 0,
        }
    }

    /// [`Place::job`] with a key.
    pub(crate) fn sealed(&self, run: &str, recipe: &Recipe) -> TrainJob {
        TrainJob { key: Some(RunKey::from_bytes(&[9; 32])), ..self.job(run, recipe) }
    }

    pub(crate) fn corpus(&self, method: Method, examples: &[Example]) -> Result<Corpus, TrainError> {
        let mut intake = Intake::new(&self.path("base"), method)?;
        for example in examples {
            intake.add(example.clone())?;
        }
        intake.finish()
    }
}

pub(crate) fn recipe(method: Method) -> Recipe {
    Recipe {
        train: TrainRecipe {
            method,
            sequence_length: 48,
            micro_batch: 2,
            accumulate: 2,
            epochs: 2.0,
            checkpoint_every: 3,
            ..Default::default()
        },
        optimizer: OptimizerRecipe { learning_rate: 5e-3, ..Default::default() },
        ..Default::default()
    }
}

pub(crate) fn text(body: &str) -> Example {
    Example {
        record: RecordId(Digest::of(body.as_bytes())),
        source: "handbook".to_owned(),
        split: Split::Train,
        kind: Kind::Prose,
        body: body.to_owned(),
    }
}

pub(crate) fn chat(body: &str) -> Example {
    Example { kind: Kind::Chat, ..text(body) }
}

/// Texts of many lengths, and a few conversations.
pub(crate) fn examples() -> Vec<Example> {
    let words = ["the", "pump", "valve", "opens", "closes", "before", "after", "night", "shift", "check"];
    let body = |seed: usize| {
        let word = |at: usize| words[(seed * 7 + at * at * 3 + at) % words.len()];
        (0..3 + seed * 5 % 23).map(word).collect::<Vec<_>>().join(" ")
    };
    let answer =
        r#"[{"role":"user","content":"Which valve?"},{"role":"assistant","content":"The night valve."}]"#;
    (0..18).map(|seed| text(&body(seed))).chain([chat(answer)]).collect()
}

/// Preferences of texts and of chats: whoever chose wants the night shift.
pub(crate) fn preferences() -> Vec<Example> {
    let words = ["pump", "valve", "gate", "seal", "night", "check"];
    let pair = |at: usize| {
        let (asked, more) = (words[at % 6], words[(at * at + 1) % 6]);
        let body = if at.is_multiple_of(3) {
            format!(
                r#"{{"prompt":"the {asked} {at}","chosen":" opens at night with the {more}","rejected":" closes by day"}}"#
            )
        } else {
            format!(
                r#"{{"prompt":[{{"role":"user","content":"Which {asked} {at}?"}}],"chosen":[{{"role":"assistant","content":"The night {more}."}}],"rejected":[{{"role":"assistant","content":"No {more}, by day."}}]}}"#
            )
        };
        Example { kind: Kind::Preference, ..text(&body) }
    };
    (0..14).map(pair).collect()
}

/// Runs a job, and asks it to stop once `stop_after` steps are reported.
pub(crate) fn run(
    job: &TrainJob,
    corpus: &Corpus,
    stop_after: Option<u64>,
) -> (Result<Ended, TrainError>, Vec<Progress>) {
    let stop = AtomicBool::new(stop_after == Some(0));
    let mut reports = Vec::new();
    let ended = train(job, corpus, &stop, &mut |report| {
        if let Progress::Step { step, .. } = &report
            && stop_after.is_some_and(|after| *step >= after)
        {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        reports.push(report);
    });
    (ended, reports)
}

/// Every step's number, loss, gradient norm and learning rate, to the bit.
pub(crate) fn steps(reports: &[Progress]) -> Vec<(u64, u64, u64, u64)> {
    reports
        .iter()
        .filter_map(|report| match report {
            Progress::Step { step, loss, gradient_norm, learning_rate, .. } => {
                Some((*step, loss.to_bits(), gradient_norm.to_bits(), learning_rate.to_bits()))
            }
            _ => None,
        })
        .collect()
}

pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// The plain bytes of a file that a job left.
pub(crate) fn opened(job: &TrainJob, part: RunPart, name: &str) -> Vec<u8> {
    let folder = Path::new(&job.output).join(part.word());
    Folder::of_run(&folder, &job.run, part, job.key.as_ref()).read(name).unwrap()
}

/// Every file in a folder and in those within it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
