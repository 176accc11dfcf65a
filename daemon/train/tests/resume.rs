//! Runs end with the same bytes however often they are interrupted, and refuse what is not theirs.

#![allow(clippy::unwrap_used)]
mod common;

use std::fs;

use common::{Place, bytes, examples, opened, recipe, run, steps};
use moat_contracts::{Digest, Method, Progress, RunPart, TrainOutcome};
use moat_train::{Ended, TrainError};

const FILES: [(Method, RunPart, &str); 2] = [
    (Method::Lora, RunPart::Adapter, "adapter_model.safetensors"),
    (Method::Full, RunPart::Model, "model.safetensors"),
];

fn trained(ended: Result<Ended, TrainError>) -> TrainOutcome {
    match ended.unwrap() {
        Ended::Trained(outcome) => TrainOutcome { peak_memory: 0, ..outcome },
        Ended::Stopped => panic!("the run was stopped"),
    }
}

#[test]
fn a_run_stopped_at_any_step_ends_with_the_same_bytes() {
    for (method, part, file) in FILES {
        let place = Place::new();
        let corpus = place.corpus(method, &examples()).unwrap();
        let recipe = recipe(method);
        let job = place.job("whole", &recipe);
        let (ended, reports) = run(&job, &corpus, None);
        let (outcome, whole) = (trained(ended), steps(&reports));
        let weights = opened(&job, part, file);
        assert_eq!(outcome.weights, Digest::of(&weights));
        assert!(outcome.last_loss < outcome.first_loss, "{outcome:?}");
        assert!(whole.len() as u64 == outcome.steps && outcome.steps > 6);

        // Sealing changes nothing.
        for job in [place.job("again", &recipe), place.sealed("sealed", &recipe)] {
            let (again, reports) = run(&job, &corpus, None);
            assert_eq!((trained(again), steps(&reports)), (outcome.clone(), whole.clone()));
            assert_eq!(opened(&job, part, file), weights);
        }

        for cut in 0..outcome.steps {
            for job in
                [place.job(&format!("cut{cut}"), &recipe), place.sealed(&format!("sealed{cut}"), &recipe)]
            {
                let (ended, first) = run(&job, &corpus, Some(cut));
                assert_eq!(ended.unwrap(), Ended::Stopped, "{cut}");
                assert_eq!(first.last(), Some(&Progress::Checkpoint { step: cut }));
                let (ended, second) = run(&job, &corpus, None);
                assert_eq!(trained(ended), outcome, "{cut}");
                // What was done before is told again, so that nobody's record of the run has a gap.
                assert_eq!(steps(&second), whole, "{cut}");
                assert_eq!(opened(&job, part, file), weights, "{cut}");
            }
        }
    }
}

/// As after a kill: only the last periodic checkpoint is there, beside what an unfinished writer left.
#[test]
fn a_run_killed_between_checkpoints_repeats_the_same_steps() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let recipe = recipe(Method::Lora);
    let (ended, reports) = run(&place.job("whole", &recipe), &corpus, None);
    let (outcome, whole) = (trained(ended), steps(&reports));

    let job = place.job("killed", &recipe);
    run(&job, &corpus, Some(3)).0.unwrap();
    let checkpoints = place.path("killed/checkpoint");
    fs::create_dir(checkpoints.join("unfinished")).unwrap();
    fs::write(checkpoints.join("unfinished/trainable.safetensors"), b"half").unwrap();
    fs::create_dir(place.path("killed/unfinished")).unwrap();
    fs::write(place.path("killed/unfinished/adapter_model.safetensors"), b"half").unwrap();
    let (ended, reports) = run(&job, &corpus, None);
    assert_eq!(trained(ended), outcome);
    assert_eq!(steps(&reports), whole);
    assert!(!place.path("killed/unfinished").exists());

    // A run whose answer got lost does not train again.
    fs::remove_dir_all(place.path("killed/adapter")).unwrap();
    let (ended, reports) = run(&job, &corpus, None);
    assert_eq!((trained(ended), steps(&reports)), (outcome, whole));
    let file = "adapter/adapter_model.safetensors";
    assert_eq!(bytes(&place.path("killed").join(file)), bytes(&place.path("whole").join(file)));
}

#[test]
fn a_checkpoint_of_other_data_recipe_or_base_or_a_changed_one_is_refused() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let job = place.job("run", &recipe);
    run(&job, &corpus, Some(2)).0.unwrap();
    let refused = |job, corpus| match run(job, corpus, None).0 {
        Err(TrainError::Checkpoint { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let other = place.corpus(Method::Lora, &examples()[1..]).unwrap();
    assert!(refused(&job, &other).contains("other data"));
    let mut changed = job.clone();
    changed.recipe.optimizer.learning_rate *= 2.0;
    assert!(refused(&changed, &corpus).contains("another recipe"));
    let config = place.path("base/config.json");
    let before = bytes(&config);
    fs::write(&config, String::from_utf8(before.clone()).unwrap().replace("1e-06", "1e-05")).unwrap();
    assert!(refused(&job, &corpus).contains("another base"));
    fs::write(&config, before).unwrap();
    let file = place.path("run/checkpoint/2/moments.safetensors");
    let mut moments = bytes(&file);
    *moments.last_mut().unwrap() ^= 1;
    fs::write(&file, &moments).unwrap();
    assert!(refused(&job, &corpus).contains("changed"));
    *moments.last_mut().unwrap() ^= 1;
    fs::write(&file, &moments).unwrap();
    trained(run(&job, &corpus, None).0);
}

#[test]
fn an_unwritable_checkpoint_ends_the_run_and_leaves_the_one_before() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let job = place.job("run", &recipe);
    run(&job, &corpus, Some(2)).0.unwrap();
    // A file in the place of the folder fails whoever writes, root too.
    let unfinished = place.path("run/checkpoint/unfinished");
    fs::write(&unfinished, b"").unwrap();
    let error = run(&job, &corpus, None).0.unwrap_err();
    assert!(matches!(&error, TrainError::Io { path, .. } if *path == unfinished), "{error}");
    assert!(place.path("run/checkpoint/2/state.json").exists());
    fs::remove_file(&unfinished).unwrap();
    trained(run(&job, &corpus, None).0);
}
