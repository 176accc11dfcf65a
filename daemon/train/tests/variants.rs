//! Every schedule and variant of a recipe: what it does, and that a run that is cut anywhere ends with the same bytes.

#![allow(clippy::unwrap_used)]
mod common;

use std::fs;

use common::{Place, bytes, examples, opened, recipe, run, steps};
use moat_contracts::{
    DecayGroup, DecayShape, Digest, Example, Frozen, Keep, Method, OptimizerState, Precision, Progress,
    Recipe, RunPart, Schedule, Split, Start, TrainJob, TrainOutcome,
};
use moat_tensor::{Lora, Weights};
use moat_train::{Corpus, Ended, TrainError};

fn trained(ended: Result<Ended, TrainError>) -> TrainOutcome {
    match ended.unwrap() {
        Ended::Trained(outcome) => TrainOutcome { peak_memory: 0, ..outcome },
        Ended::Stopped => panic!("the run was stopped"),
    }
}

/// Every look at the validation side: steps done, loss to the bit, gain.
fn looks(reports: &[Progress]) -> Vec<(u64, u64, bool)> {
    let look = |report: &Progress| match report {
        Progress::Validated { step, loss, gain, .. } => Some((*step, loss.to_bits(), *gain)),
        _ => None,
    };
    reports.iter().filter_map(look).collect()
}

/// The examples, every third of them to validate on.
fn sides() -> Vec<Example> {
    let mut examples = examples();
    for example in examples.iter_mut().step_by(3) {
        example.split = Split::Validation;
    }
    examples
}

/// A recipe that looks at its validation side every two steps and does not get better for long.
fn validating(method: Method) -> Recipe {
    let mut recipe = recipe(method);
    recipe.split.validation = 0.3;
    recipe.validation.every = 2;
    recipe.train.epochs = 3.0;
    recipe.optimizer.learning_rate = 5e-2;
    recipe
}

fn weights(job: &TrainJob) -> Vec<u8> {
    match job.recipe.train.method {
        Method::Lora => opened(job, RunPart::Adapter, "adapter_model.safetensors"),
        Method::Full => opened(job, RunPart::Model, "model.safetensors"),
    }
}

/// Runs whole, and cut after every `each`th step; gives what the whole one said.
fn cut_often(
    place: &Place,
    name: &str,
    recipe: &Recipe,
    corpus: &Corpus,
    each: usize,
) -> (TrainOutcome, Vec<Progress>) {
    let job = place.job(name, recipe);
    let (ended, reports) = run(&job, corpus, None);
    let outcome = trained(ended);
    assert_eq!(outcome.weights, Digest::of(&weights(&job)), "{name}");
    for cut in (name.len() as u64 % each as u64..outcome.steps).step_by(each) {
        let job = place.sealed(&format!("{name}-{cut}"), recipe);
        assert_eq!(run(&job, corpus, Some(cut)).0.unwrap(), Ended::Stopped, "{name} at {cut}");
        let (ended, again) = run(&job, corpus, None);
        assert_eq!(trained(ended), outcome, "{name} at {cut}");
        assert_eq!(steps(&again), steps(&reports), "{name} at {cut}");
        assert_eq!(looks(&again), looks(&reports), "{name} at {cut}");
        assert_eq!(weights(&job), weights(&place.job(name, recipe)), "{name} at {cut}");
    }
    (outcome, reports)
}

#[test]
fn every_schedule_and_variant_resumes_bit_for_bit() {
    let place = Place::new();
    let plain = recipe(Method::Lora);
    let full = recipe(Method::Full);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let whole = place.corpus(Method::Full, &examples()).unwrap();
    let change = |recipe: &Recipe, change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe.clone();
        change(&mut recipe);
        recipe
    };
    let shape = |shape| {
        move |recipe: &mut Recipe| {
            recipe.optimizer.schedule = Schedule::Wsd;
            recipe.optimizer.decay = 0.4;
            recipe.optimizer.decay_shape = shape;
        }
    };
    let variants: Vec<(&str, Recipe)> = vec![
        ("cosine", plain.clone()),
        ("constant", change(&plain, &|recipe| recipe.optimizer.schedule = Schedule::Constant)),
        ("linear", change(&plain, &|recipe| recipe.optimizer.schedule = Schedule::Linear)),
        ("wsd-linear", change(&plain, &shape(DecayShape::Linear))),
        ("wsd-cosine", change(&plain, &shape(DecayShape::Cosine))),
        ("wsd-root", change(&plain, &shape(DecayShape::OneMinusSqrt))),
        ("rs", change(&plain, &|recipe| recipe.lora.rank_stabilized = true)),
        ("plus", change(&plain, &|recipe| recipe.lora.b_rate = 4.0)),
        (
            "some",
            change(&plain, &|recipe| recipe.lora.targets = vec!["v_proj".to_owned(), "up_proj".to_owned()]),
        ),
        ("dora", change(&plain, &|recipe| recipe.lora.decomposed = true)),
        (
            "qdora",
            change(&plain, &|recipe| {
                recipe.lora.decomposed = true;
                recipe.train.frozen = Frozen::Int8;
            }),
        ),
        ("bf16", change(&plain, &|recipe| recipe.train.frozen = Frozen::Bf16)),
        ("int8", change(&plain, &|recipe| recipe.train.frozen = Frozen::Int8)),
        (
            "products",
            change(&plain, &|recipe| {
                recipe.train.frozen = Frozen::Int8;
                recipe.train.precision = Precision::Int8;
            }),
        ),
        ("nf4", change(&plain, &|recipe| recipe.train.frozen = Frozen::Nf4)),
        ("eight", change(&plain, &|recipe| recipe.optimizer.state = OptimizerState::EightBit)),
        ("eight-full", change(&full, &|recipe| recipe.optimizer.state = OptimizerState::EightBit)),
        ("undecayed", change(&full, &|recipe| recipe.optimizer.decayed = vec![DecayGroup::Linears])),
    ];
    let mut ends = Vec::new();
    for (name, recipe) in &variants {
        assert_eq!(recipe.faults(), [], "{name}");
        let corpus = if recipe.train.method == Method::Full { &whole } else { &corpus };
        ends.push((cut_often(&place, name, recipe, corpus, 4).0.weights, name));
    }
    let (_, all) = cut_often(&place, "decayed", &full, &whole, 4);
    assert!(!steps(&all).is_empty());
    // Each variant does something.
    ends.sort();
    assert!(ends.windows(2).all(|pair| pair[0].0 != pair[1].0), "{ends:?}");
}

#[test]
fn adapters_lie_where_they_are_asked_for_and_say_how_they_scale() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let mut some = recipe(Method::Lora);
    some.lora.rank_stabilized = true;
    some.lora.targets = vec!["v_proj".to_owned(), "down_proj".to_owned()];
    trained(run(&place.job("some", &some), &corpus, None).0);
    let config: serde_json::Value =
        serde_json::from_slice(&bytes(&place.path("some/adapter/adapter_config.json"))).unwrap();
    assert_eq!(config["use_rslora"], true);
    assert_eq!(config["target_modules"], serde_json::json!(["v_proj", "down_proj"]));
    let architecture = Weights::load(&place.path("base")).unwrap().architecture().clone();
    let adapter = Lora::load(&architecture, &place.path("some/adapter")).unwrap();
    assert_eq!(adapter.targets(), some.lora.targets);
    assert!(adapter.is_rank_stabilized());
    some.lora.targets = vec!["qkv".to_owned()];
    let error = run(&place.job("none", &some), &corpus, None).0.unwrap_err().to_string();
    assert!(error.contains("`qkv`") && error.contains("q_proj, k_proj"), "{error}");
}

#[test]
fn validation_is_measured_and_nothing_else_changes() {
    let place = Place::new();
    for method in [Method::Lora, Method::Full] {
        let train: Vec<Example> = sides().into_iter().filter(|one| one.split == Split::Train).collect();
        let (with, without) =
            (place.corpus(method, &sides()).unwrap(), place.corpus(method, &train).unwrap());
        assert_ne!(with.fingerprint(), without.fingerprint());
        let recipe = validating(method);
        let mut blind = recipe.clone();
        blind.split.validation = 0.0;
        let (a, b) =
            (place.job(&format!("{method:?}-a"), &recipe), place.job(&format!("{method:?}-b"), &blind));
        let (ended, reports) = run(&a, &with, None);
        let (outcome, looks) = (trained(ended), looks(&reports));
        trained(run(&b, &without, None).0);
        assert_eq!(weights(&a), weights(&b), "looking changes nothing");
        let mut expected: Vec<u64> = (0..=outcome.steps).filter(|step| step % 2 == 0).collect();
        expected.extend((outcome.steps % 2 == 1).then_some(outcome.steps));
        assert_eq!(looks.iter().map(|look| look.0).collect::<Vec<_>>(), expected);
        let told = outcome.validation.unwrap();
        assert_eq!(told.first.to_bits(), looks[0].1);
        assert_eq!((told.kept.to_bits(), told.step), (looks.last().unwrap().1, Some(outcome.steps)));
        assert!(!told.early);
        // Without the side that the recipe asks for nothing is trained.
        let error = run(&place.job(&format!("{method:?}-c"), &recipe), &without, None).0.unwrap_err();
        assert!(matches!(error, TrainError::NoValidation), "{error}");
    }
}

#[test]
fn a_bounded_sample_is_the_same_whatever_the_order_and_other_for_another_seed() {
    let place = Place::new();
    let mut recipe = validating(Method::Lora);
    recipe.train.max_steps = 1;
    recipe.validation.tokens = 20;
    let first = |name: &str, recipe: &Recipe, examples: &[Example]| {
        let corpus = place.corpus(Method::Lora, examples).unwrap();
        looks(&run(&place.job(name, recipe), &corpus, None).1)[0].1
    };
    let mut reversed = sides();
    reversed.reverse();
    let one = first("one", &recipe, &sides());
    assert_eq!(one, first("two", &recipe, &reversed));
    let mut other = recipe.clone();
    other.seed += 1;
    assert_ne!(one, first("other", &other, &sides()));
    recipe.validation.tokens = 1 << 20;
    assert_ne!(one, first("all", &recipe, &sides()));
}

/// Early stopping and keeping the best are decided by what a checkpoint holds: cut anywhere, the same.
#[test]
fn the_best_weights_and_an_early_end_are_the_same_however_it_is_cut() {
    let place = Place::new();
    for (name, keep_best) in [("one", 1), ("three", 3)] {
        for (method, each) in [(Method::Lora, 1), (Method::Full, 3)] {
            let mut recipe = validating(method);
            recipe.validation.keep = Keep::Best;
            recipe.validation.keep_best = keep_best;
            recipe.validation.patience = 2;
            recipe.validation.every = 1;
            recipe.train.epochs = 12.0;
            recipe.optimizer.warmup = 0.0;
            recipe.optimizer.schedule = Schedule::Constant;
            assert_eq!(recipe.faults(), []);
            let corpus = place.corpus(method, &sides()).unwrap();
            let (outcome, reports) = cut_often(&place, &format!("{name}-{method:?}"), &recipe, &corpus, each);
            let (told, looks) = (outcome.validation.unwrap(), looks(&reports));
            let losses: Vec<f64> = looks.iter().map(|look| f64::from_bits(look.1)).collect();
            let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(told.early && told.kept <= lowest, "{told:?} {losses:?}");
            assert!(looks.iter().rev().take(2).all(|look| !look.2), "two looks without gain end it");
            if keep_best == 1 {
                assert_eq!(told.kept, lowest);
                let step = looks.iter().find(|look| f64::from_bits(look.1) == lowest).unwrap().0;
                assert_eq!(told.step, Some(step));
                assert!(step < outcome.steps);
                // They are the weights of a run that took no more steps.
                let mut short = recipe.clone();
                short.validation.keep = Keep::Last;
                short.validation.patience = 0;
                short.train.max_steps = step;
                let short = place.job(&format!("{name}-{method:?}-short"), &short);
                trained(run(&short, &corpus, None).0);
                assert_eq!(Digest::of(&weights(&short)), outcome.weights);
            }
        }
    }
}

#[test]
fn a_gain_must_be_as_large_as_asked() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &sides()).unwrap();
    let mut recipe = validating(Method::Lora);
    recipe.optimizer.learning_rate = 1e-6;
    recipe.validation.every = 1;
    recipe.validation.patience = 3;
    recipe.validation.min_gain = 0.5;
    let outcome = trained(run(&place.job("run", &recipe), &corpus, None).0);
    assert_eq!(outcome.steps, 3);
    assert!(outcome.last_loss.is_finite() && outcome.last_loss > 0.0);
}

#[test]
fn a_run_goes_on_from_an_earlier_one() {
    let place = Place::new();
    for method in [Method::Lora, Method::Full] {
        let corpus = place.corpus(method, &examples()).unwrap();
        let mut recipe = recipe(method);
        recipe.optimizer.warmup = 0.0;
        let earlier = place.sealed(&format!("{method:?}"), &recipe);
        let before = trained(run(&earlier, &corpus, None).0);
        let part = if method == Method::Lora { "adapter" } else { "model" };
        let start = Start {
            run: earlier.run.clone(),
            key: earlier.key.clone(),
            folder: place.path(&format!("{method:?}/{part}")).to_str().unwrap().to_owned(),
            weights: before.weights,
        };
        let mut further = recipe.clone();
        further.train.start_from = earlier.run.clone();
        let from = |job: TrainJob| TrainJob { start: Some(start.clone()), ..job };
        let job = from(place.sealed(&format!("{method:?}-further"), &further));
        let after = trained(run(&job, &corpus, None).0);
        assert!(after.first_loss < before.first_loss && after.last_loss < before.last_loss, "{after:?}");
        let cut = from(place.sealed(&format!("{method:?}-cut"), &further));
        run(&cut, &corpus, Some(3)).0.unwrap();
        assert_eq!(trained(run(&cut, &corpus, None).0), after);

        // A checkpoint belongs to its start.
        let other = from(place.sealed(&format!("{method:?}-other"), &further));
        run(&other, &corpus, Some(2)).0.unwrap();
        let mut foreign = other.clone();
        foreign.start.as_mut().unwrap().weights = Digest::of(b"other");
        let error = run(&foreign, &corpus, None).0.unwrap_err().to_string();
        assert!(error.contains("another start"), "{error}");
        // Another run's file is not taken for it.
        let mut wrong = other;
        wrong.start.as_mut().unwrap().run = "other".to_owned();
        assert!(run(&wrong, &corpus, None).0.is_err());

        if method == Method::Lora {
            let mut wider = further.clone();
            wider.lora.rank_stabilized = true;
            let error = run(&from(place.sealed("wider", &wider)), &corpus, None).0.unwrap_err();
            assert!(matches!(error, TrainError::Start { .. }), "{error}");
        }
    }
}

/// What is kept beside the checkpoint is what the newest one names, and nothing else.
#[test]
fn only_the_best_weights_stay_on_the_disk() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &sides()).unwrap();
    let mut recipe = validating(Method::Lora);
    recipe.validation.keep = Keep::Best;
    recipe.validation.keep_best = 2;
    recipe.validation.every = 1;
    let job = place.job("run", &recipe);
    trained(run(&job, &corpus, None).0);
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(place.path(path)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("run/checkpoint").len(), 2);
    let best = names("run/checkpoint/best");
    assert_eq!(best.len(), 2);
    // Where they were changed since, they are not taken.
    let file = place.path("run/checkpoint/best").join(&best[0]).join("trainable.safetensors");
    let mut changed = bytes(&file);
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&file, changed).unwrap();
    let error = run(&job, &corpus, None).0.unwrap_err();
    assert!(matches!(&error, TrainError::Checkpoint { reason, .. } if reason.contains("changed")), "{error}");
}
