//! Training on preferences: what is learnt, that it resumes with the same bytes, and what is refused.

#![allow(clippy::unwrap_used)]
mod common;

use std::f64::consts::LN_2;
use std::fs;

use common::{Place, bytes, opened, preferences, recipe, run, steps, text};
use moat_contracts::{
    Claim, Example, LearntTurns, Method, Objective, Progress, Recipe, RunPart, Split, Start, TrainJob,
    TrainOutcome,
};
use moat_train::{Corpus, Ended, Intake, TrainError, preview};

fn pairs(method: Method) -> Recipe {
    let mut recipe = recipe(method);
    recipe.train.objective = Objective::Dpo;
    recipe.train.sequence_length = 64;
    recipe.train.micro_batch = 1;
    recipe.optimizer.learning_rate = if method == Method::Full { 1e-3 } else { 5e-3 };
    recipe
}

fn corpus(place: &Place, recipe: &Recipe, examples: &[Example]) -> Result<Corpus, TrainError> {
    let mut intake = Intake::for_recipe(&place.path("base"), recipe)?;
    for example in examples {
        intake.add(example.clone())?;
    }
    intake.finish()
}

fn trained(ended: Result<Ended, TrainError>) -> TrainOutcome {
    match ended.unwrap() {
        Ended::Trained(outcome) => TrainOutcome { peak_memory: 0, ..outcome },
        Ended::Stopped => panic!("the run was stopped"),
    }
}

fn weights(job: &TrainJob) -> Vec<u8> {
    match job.recipe.train.method {
        Method::Lora => opened(job, RunPart::Adapter, "adapter_model.safetensors"),
        Method::Full => opened(job, RunPart::Model, "model.safetensors"),
    }
}

#[test]
fn a_run_on_preferences_proves_itself_learns_and_resumes_bit_for_bit() {
    for method in [Method::Lora, Method::Full] {
        let place = Place::new();
        let mut recipe = pairs(method);
        recipe.split.validation = 0.3;
        recipe.validation.every = 2;
        assert_eq!(recipe.faults(), []);
        let mut examples = preferences();
        examples.iter_mut().step_by(4).for_each(|example| example.split = Split::Validation);
        let corpus = corpus(&place, &recipe, &examples).unwrap();
        assert_eq!(corpus.examples(), 10);
        let job = place.job("whole", &recipe);
        let (ended, reports) = run(&job, &corpus, None);
        let outcome = trained(ended);
        // Every answer is a half at first, and in the end the chosen ones are preferred.
        assert_eq!(outcome.first_loss.to_bits(), LN_2.to_bits());
        assert!(outcome.last_loss < 0.6, "{outcome:?}");
        let looked = outcome.validation.unwrap();
        assert!(looked.first.to_bits() == LN_2.to_bits() && looked.kept < 0.65, "{looked:?}");
        let proven = reports.iter().find_map(|report| match report {
            Progress::Proven { proofs } => Some(proofs.clone()),
            _ => None,
        });
        let claims: Vec<Claim> = proven.unwrap().iter().map(|proof| proof.claim).collect();
        assert!(claims.contains(&Claim::Reference) && claims.contains(&Claim::Turns), "{claims:?}");
        let mut accuracies = Vec::new();
        for report in &reports {
            match report {
                Progress::Step { pairs, .. } | Progress::Validated { pairs, .. } => {
                    accuracies.push(pairs.unwrap());
                }
                _ => {}
            }
        }
        assert_eq!((accuracies[0].margin, accuracies[0].accuracy), (0.0, 0.0));
        assert!(accuracies.last().unwrap().accuracy == 1.0, "{accuracies:?}");
        let whole = weights(&job);
        for cut in 0..outcome.steps {
            let job = place.sealed(&format!("cut{cut}"), &recipe);
            assert_eq!(run(&job, &corpus, Some(cut)).0.unwrap(), Ended::Stopped, "{cut}");
            let (ended, again) = run(&job, &corpus, None);
            assert_eq!(trained(ended), outcome, "{cut}");
            assert_eq!(steps(&again), steps(&reports), "{cut}");
            assert_eq!(weights(&job), whole, "{cut}");
        }
        // A checkpoint without its reference is no checkpoint.
        let job = place.job("lacking", &recipe);
        run(&job, &corpus, Some(2)).0.unwrap();
        fs::write(place.path("lacking/checkpoint/2/reference.bin"), b"").unwrap();
        assert!(matches!(run(&job, &corpus, None).0, Err(TrainError::Checkpoint { .. })));
    }
}

/// The reference is what the run starts with, not the base.
#[test]
fn a_run_that_starts_from_an_earlier_one_prefers_nothing_at_first() {
    let place = Place::new();
    let first = recipe(Method::Lora);
    let earlier = place.job("earlier", &first);
    let texts = place.corpus(Method::Lora, &common::examples()).unwrap();
    let outcome = trained(run(&earlier, &texts, None).0);
    let mut recipe = pairs(Method::Lora);
    recipe.train.start_from = "earlier".to_owned();
    let corpus = corpus(&place, &recipe, &preferences()).unwrap();
    let folder = place.path("earlier/adapter").to_str().unwrap().to_owned();
    let start = Start { run: "earlier".to_owned(), key: None, folder, weights: outcome.weights };
    let job = TrainJob { start: Some(start), ..place.job("later", &recipe) };
    let later = trained(run(&job, &corpus, None).0);
    assert_eq!(later.first_loss.to_bits(), LN_2.to_bits());
    assert!(later.last_loss < 0.65, "{later:?}");
}

#[test]
fn each_objective_refuses_the_others_records_and_what_fits_nowhere() {
    let place = Place::new();
    let (texts, pairs) = (recipe(Method::Lora), pairs(Method::Lora));
    for (recipe, example) in [(&texts, &preferences()[0]), (&pairs, &text("the pump"))] {
        let error = corpus(&place, recipe, std::slice::from_ref(example)).unwrap_err();
        assert!(matches!(&error, TrainError::Example { record, .. } if *record == example.record), "{error}");
        assert!(!error.to_string().contains("pump"));
    }
    let mut short = pairs;
    short.train.sequence_length = 8;
    let corpus = corpus(&place, &short, &preferences()).unwrap();
    let shown = preview(&place.job("short", &short), &corpus).unwrap();
    assert_eq!((shown.survey.pairs, shown.survey.cut), (14, 14));
    assert!(matches!(
        run(&place.job("short", &short), &corpus, None).0,
        Err(TrainError::Long { pairs: 14, limit: 8 })
    ));
}

#[test]
fn a_preview_shows_both_answers_with_their_masks() {
    let place = Place::new();
    let recipe = pairs(Method::Lora);
    let corpus = corpus(&place, &recipe, &preferences()).unwrap();
    let shown = preview(&place.job("shown", &recipe), &corpus).unwrap();
    let learnt = |stretches: &[moat_contracts::Stretch]| -> String {
        stretches.iter().filter(|stretch| stretch.trained).map(|stretch| stretch.text.as_str()).collect()
    };
    assert!(learnt(&shown.example).starts_with("The night ") && learnt(&shown.example).ends_with("<|done|>"));
    assert!(learnt(&shown.rejected).starts_with("No ") && learnt(&shown.rejected).ends_with("<|done|>"));
    assert!(shown.example[0].text.contains("Which ") && !shown.example[0].trained);
    assert_eq!(shown.survey.examples, 14);
}

#[test]
fn turns_and_messages_say_what_is_learnt() {
    let place = Place::new();
    let body = |mask: &str| {
        format!(
            r#"[{{"role":"user","content":"One?"}},{{"role":"assistant","content":"Uno."{mask}}},{{"role":"user","content":"Two?"}},{{"role":"assistant","content":"Due."}}]"#
        )
    };
    let learnt = |mask: &str, turns: LearntTurns| -> String {
        let mut recipe = recipe(Method::Lora);
        recipe.train.turns = turns;
        let corpus = corpus(&place, &recipe, &[common::chat(&body(mask))]).unwrap();
        let shown = preview(&place.job("turns", &recipe), &corpus).unwrap();
        shown.example.iter().filter(|stretch| stretch.trained).map(|stretch| stretch.text.as_str()).collect()
    };
    assert_eq!(learnt("", LearntTurns::All), "Uno.<|done|>Due.<|done|>");
    assert_eq!(learnt("", LearntTurns::Last), "Due.<|done|>");
    assert_eq!(learnt(r#","train":false"#, LearntTurns::All), "Due.<|done|>");
    let none = r#"[{"role":"user","content":"One?"},{"role":"assistant","content":"Uno.","train":false}]"#;
    let error = corpus(&place, &recipe(Method::Lora), &[common::chat(none)]).unwrap_err();
    assert!(matches!(error, TrainError::Example { .. }), "{error}");
    assert!(bytes(&place.path("base/config.json")).len() > 2);
}
