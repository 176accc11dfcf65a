//! The real engine with a run's key: whatever moment it is killed at, the run's folder holds only sealed files, and the
//! run ends with the weights of a plain one.

#![allow(clippy::unwrap_used)]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Engine, Place, examples, losses};
use moat_contracts::{
    AskJob, EvaluateJob, ExportJob, RunKey, RunPart, Sampling, Split, TokenLogprob, TrainJob, TrainOutcome,
};
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_tensor::Folder;

fn key() -> RunKey {
    RunKey::from_bytes(&[3; 32])
}

fn sealed(place: &Place, run: &str) -> ToEngine {
    let ToEngine::Train(job) = place.train(run) else { panic!() };
    ToEngine::Train(TrainJob { key: Some(key()), ..job })
}

fn finished(job: &ToEngine) -> (Vec<(u64, u64)>, TrainOutcome) {
    let mut engine = Engine::start();
    engine.give(job, &examples(Split::Train));
    let (reports, last) = engine.hear_all();
    let FromEngine::Trained(outcome) = last else { panic!("{last:?}") };
    assert_eq!(engine.leave().code(), Some(0));
    (losses(&reports), TrainOutcome { peak_memory: 0, ..outcome })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn shows_nothing(folder: &Path) {
    for path in files(folder) {
        let name = path.to_str().unwrap();
        assert!(name.ends_with(".sealed") || name.ends_with(".sealed.draft"), "{name}");
        let bytes = fs::read(&path).unwrap();
        for word in ["night valve", "lora_A", "__metadata__", "data_offsets", "peft_type", "gradient_norm"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} in {name}");
        }
    }
}

#[test]
fn a_killed_engine_leaves_only_sealed_files_and_its_run_ends_as_a_plain_one() {
    let place = Place::new();
    let expected = finished(&place.train("plain"));
    let folder = place.path("run");
    fs::create_dir(&folder).unwrap();
    for kill in 0..12_usize {
        let mut engine = Engine::start();
        engine.give(&sealed(&place, "run"), &examples(Split::Train));
        for _ in 0..2 + kill * 7 % 15 {
            if !matches!(engine.hear(), Some(FromEngine::Progress(_))) {
                break;
            }
        }
        engine.kill();
        shows_nothing(&folder);
    }
    assert_eq!(finished(&sealed(&place, "run")), expected);
    shows_nothing(&folder);
    let adapter = Folder::of_run(&place.path("run/adapter"), "run", RunPart::Adapter, Some(&key()));
    let weights = "adapter_model.safetensors";
    assert_eq!(adapter.read(weights).unwrap(), fs::read(place.path("plain/adapter").join(weights)).unwrap());
}

#[test]
fn a_sealed_run_is_measured_asked_and_merged_as_a_plain_one_and_refused_without_its_key() {
    let place = Place::new();
    finished(&place.train("plain"));
    finished(&sealed(&place, "run"));
    let last = |job: &ToEngine| {
        let mut engine = Engine::start();
        match job {
            ToEngine::Evaluate(_) => engine.give(job, &examples(Split::HeldOut)),
            _ => engine.say(job),
        }
        let last = engine.hear_all().1;
        engine.leave();
        last
    };
    let evaluate = |run: &str, key| {
        let (run, tuned) = (run.to_owned(), place.text(&format!("{run}/adapter")));
        let base = place.text("base");
        last(&ToEngine::Evaluate(EvaluateJob { run, key, base, tuned, sequence_length: 48, threads: 0 }))
    };
    let ask = |run: &str, key| {
        let tuned = Some(place.text(&format!("{run}/adapter")));
        let sampling = Sampling { temperature: 0.7, top_p: 0.9, seed: 5, max_tokens: 12 };
        let (run, prompt) = (run.to_owned(), "the night valve".to_owned());
        last(&ToEngine::Ask(AskJob {
            run,
            key,
            base: place.text("base"),
            tuned,
            prompt,
            chat: false,
            sampling,
        }))
    };
    let export = |run: &str, key: Option<RunKey>| {
        let folder = Folder::of_run(&place.path(&format!("{run}-merged")), run, RunPart::Model, key.as_ref());
        let (output, adapter) = (format!("{run}-merged"), place.text(&format!("{run}/adapter")));
        let (run, base) = (run.to_owned(), place.text("base"));
        let said =
            last(&ToEngine::Export(ExportJob { run, key, base, adapter, output: place.text(&output) }));
        (said, folder.read("model.safetensors").ok())
    };
    let tokens = |last| -> Vec<Vec<TokenLogprob>> {
        let FromEngine::Answered(answers) = last else { panic!("{last:?}") };
        answers.into_iter().map(|answer| answer.tokens).collect()
    };
    assert!(matches!(evaluate("plain", None), FromEngine::Evaluated { .. }));
    assert_eq!(evaluate("run", Some(key())), evaluate("plain", None));
    assert_eq!(tokens(ask("run", Some(key()))), tokens(ask("plain", None)));
    let wrong = || Some(RunKey::from_bytes(&[2; 32]));
    for last in [evaluate("run", wrong()), ask("run", wrong()), export("run", wrong()).0] {
        let FromEngine::Failed { reason } = last else { panic!("{last:?}") };
        assert!(reason.contains("belong to another object or key"), "{reason}");
    }
    assert_eq!(export("run", Some(key())), export("plain", None));
    assert!(place.path("run-merged/model.safetensors.sealed").exists());
}
