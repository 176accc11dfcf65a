//! The real engine trains, stops, dies and goes on.

#![allow(clippy::unwrap_used)]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use common::{ENGINE, Engine, Place, examples, losses};
use moat_contracts::{Digest, ExportJob, Progress, Split, TrainOutcome};
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_protocol::{Hello, write_blocking};

const WEIGHTS: &str = "adapter/adapter_model.safetensors";

fn whole(place: &Place, run: &str) -> (Vec<Progress>, TrainOutcome) {
    let mut engine = Engine::start();
    engine.give(&place.train(run), &examples(Split::Train));
    let (reports, last) = engine.hear_all();
    let FromEngine::Trained(outcome) = last else { panic!("{last:?}") };
    assert_eq!(engine.leave().code(), Some(0));
    (reports, TrainOutcome { peak_memory: 0, ..outcome })
}

#[test]
fn a_run_that_is_stopped_killed_and_abandoned_ends_as_an_undisturbed_one() {
    let place = Place::new();
    let (reports, outcome) = whole(&place, "whole");
    let expected: BTreeMap<u64, u64> = losses(&reports).into_iter().collect();
    let weights = fs::read(place.path("whole").join(WEIGHTS)).unwrap();
    assert_eq!(outcome.weights, Digest::of(&weights));
    assert_eq!(expected.len() as u64, outcome.steps);

    let mut seen = BTreeMap::new();
    let mut note = |reports: &[Progress]| {
        for (step, loss) in losses(reports) {
            assert_eq!(*seen.entry(step).or_insert(loss), loss, "step {step} was repeated with another loss");
        }
    };
    // Each disturbance comes after a number of messages that moves on, so that it falls on ever other moments.
    for disturbance in 0..30_usize {
        let mut engine = Engine::start();
        engine.give(&place.train("disturbed"), &examples(Split::Train));
        let (mut reports, mut done) = (Vec::new(), false);
        for _ in 0..3 + disturbance * 7 % 11 {
            match engine.hear() {
                Some(FromEngine::Progress(report)) => reports.push(report),
                Some(FromEngine::Trained(_)) => {
                    done = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        match disturbance % 3 {
            0 => engine.kill(),
            1 if !done => {
                // It may be done by now.
                let _ = write_blocking(&mut engine.stream, &ToEngine::Stop);
                let (rest, last) = engine.hear_all();
                assert!(matches!(last, FromEngine::Stopped | FromEngine::Trained(_)), "{last:?}");
                reports.extend(rest);
                assert_eq!(engine.leave().code(), Some(0));
            }
            _ => {
                let code = engine.leave().code();
                assert!(matches!(code, Some(0 | 3)), "{code:?}");
            }
        }
        note(&reports);
    }
    let (reports, last) = whole(&place, "disturbed");
    note(&reports);
    assert_eq!(last, outcome);
    assert_eq!(seen, expected);
    assert_eq!(fs::read(place.path("disturbed").join(WEIGHTS)).unwrap(), weights);
}

#[test]
fn a_stop_during_the_examples_is_obeyed() {
    let place = Place::new();
    let mut engine = Engine::start();
    engine.say(&place.train("run"));
    engine.say(&ToEngine::Example(examples(Split::Train)[0].clone()));
    engine.say(&ToEngine::Stop);
    assert_eq!(engine.hear_all().1, FromEngine::Stopped);
    assert_eq!(engine.leave().code(), Some(0));
    assert!(!place.path("run").exists());
}

#[test]
fn a_job_that_cannot_be_done_is_told_with_its_reason() {
    let place = Place::new();
    let mut engine = Engine::start();
    engine.give(&place.train("run"), &examples(Split::HeldOut));
    let FromEngine::Failed { reason } = engine.hear_all().1 else { panic!() };
    assert!(reason.contains("held back") && !reason.contains("valve"), "{reason}");
    assert_eq!(engine.leave().code(), Some(1));

    fs::remove_file(place.path("base/model.safetensors")).unwrap();
    let mut engine = Engine::start();
    engine.give(&place.train("run"), &examples(Split::Train));
    let FromEngine::Failed { reason } = engine.hear_all().1 else { panic!() };
    assert!(reason.contains("model.safetensors"), "{reason}");
    assert_eq!(engine.leave().code(), Some(1));
}

/// A failure must be heard even by a `moatd` that goes on writing examples without reading.
#[test]
fn a_failure_reaches_a_peer_that_is_still_writing() {
    let place = Place::new();
    let mut engine = Engine::start();
    let mut many = examples(Split::HeldOut);
    for example in &mut many {
        example.body = "valve ".repeat(50_000);
    }
    engine.give(&place.train("run"), &many);
    assert!(matches!(engine.hear_all().1, FromEngine::Failed { .. }));
    assert_eq!(engine.leave().code(), Some(1));
}

#[test]
fn a_merged_model_is_exported_and_trains_as_a_base() {
    let place = Place::new();
    let (_, before) = whole(&place, "run");
    let mut engine = Engine::start();
    engine.say(&ToEngine::Export(ExportJob {
        run: "run".to_owned(),
        key: None,
        base: place.text("base"),
        adapter: place.text("run/adapter"),
        output: place.text("merged"),
    }));
    assert_eq!(engine.hear_all().1, FromEngine::Exported);
    assert_eq!(engine.leave().code(), Some(0));
    fs::rename(place.path("base"), place.path("old")).unwrap();
    fs::rename(place.path("merged"), place.path("base")).unwrap();
    let (_, after) = whole(&place, "further");
    assert!(after.first_loss < before.first_loss, "{before:?} {after:?}");
}

#[test]
fn another_release_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Command::new(ENGINE).arg("--connect").arg(&path).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    write_blocking(&mut stream, &Hello { version: 99, program: "moatd".to_owned() }).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn the_probe_tells_what_the_machine_grants_and_the_command_line_is_checked() {
    let output = Command::new(ENGINE).arg("--probe").output().unwrap();
    let probe: BTreeMap<String, bool> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(probe["privileges"] && probe["dumps"] && probe["tracing"] && probe.contains_key("network"));
    for wrong in [&["--fd", "77"][..], &["--fd", "1"]] {
        assert_eq!(Command::new(ENGINE).args(wrong).output().unwrap().status.code(), Some(3));
    }
    assert_eq!(Command::new(ENGINE).output().unwrap().status.code(), Some(2));
}
