//! The real engine measures and answers.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Engine, Place, examples};
use moat_contracts::{AskJob, EvaluateJob, Progress, Sampling, Split};
use moat_protocol::engine::{FromEngine, ToEngine};

fn trained(place: &Place) {
    let mut engine = Engine::start();
    engine.give(&place.train("run"), &examples(Split::Train));
    let (_, last) = engine.hear_all();
    assert!(matches!(last, FromEngine::Trained(_)), "{last:?}");
}

#[test]
fn what_was_trained_is_measured_record_by_record() {
    let place = Place::new();
    trained(&place);
    let job = ToEngine::Evaluate(EvaluateJob {
        run: "run".to_owned(),
        key: None,
        base: place.text("base"),
        tuned: place.text("run/adapter"),
        sequence_length: 48,
        threads: 0,
    });
    let given = examples(Split::HeldOut);
    let mut engine = Engine::start();
    engine.give(&job, &given);
    let (reports, last) = engine.hear_all();
    let FromEngine::Evaluated { held_out, forgetting } = last else { panic!("{last:?}") };
    let records: Vec<_> = held_out.iter().map(|loss| loss.record).collect();
    assert_eq!(records, given.iter().map(|example| example.record).collect::<Vec<_>>());
    assert!(held_out.iter().all(|loss| loss.tuned_nats < loss.base_nats), "{held_out:?}");
    assert!(!forgetting.is_empty());
    let examined = reports.iter().filter(|report| matches!(report, Progress::Examined { .. })).count();
    assert_eq!(examined, given.len());
    assert_eq!(engine.leave().code(), Some(0));

    let mut engine = Engine::start();
    engine.say(&job);
    engine.say(&ToEngine::Stop);
    assert_eq!(engine.hear_all().1, FromEngine::Stopped);
    assert_eq!(engine.leave().code(), Some(0));
}

#[test]
fn base_and_tuned_answer_side_by_side_and_the_same_each_time() {
    let place = Place::new();
    trained(&place);
    let ask = |prompt: &str, chat| {
        let sampling = Sampling { temperature: 0.7, top_p: 0.9, seed: 5, max_tokens: 12 };
        let mut engine = Engine::start();
        engine.say(&ToEngine::Ask(AskJob {
            run: "run".to_owned(),
            key: None,
            base: place.text("base"),
            tuned: Some(place.text("run/adapter")),
            prompt: prompt.to_owned(),
            chat,
            sampling,
        }));
        let (_, last) = engine.hear_all();
        (last, engine.leave().code())
    };
    for chat in [false, true] {
        let tokens = || {
            let (FromEngine::Answered(answers), Some(0)) = ask("the night valve", chat) else { panic!() };
            let names: Vec<_> = answers.iter().map(|answer| answer.model.as_str()).collect();
            assert_eq!(names, ["base", "tuned"]);
            answers.into_iter().map(|answer| answer.tokens).collect::<Vec<_>>()
        };
        assert_eq!(tokens(), tokens());
    }
    let (FromEngine::Failed { reason }, Some(1)) = ask(&"a secret ".repeat(40), false) else { panic!() };
    assert!(!reason.contains("secret"), "{reason}");
}
