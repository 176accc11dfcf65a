//! Runs on a GPU, in its kernels' emulation: they are the processor's runs, and go on with the same bits.

#![cfg(all(feature = "cuda-on-cpu", not(feature = "cuda")))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod common;

use std::sync::atomic::AtomicBool;

use common::{Place, examples, opened, recipe, run};
use moat_contracts::{Method, OptimizerState, Progress, RunPart};
use moat_tensor::{Gradients, Lora, LoraShape, Model, Moments, Weights};
use moat_train::{Alone, Ended, Learner, Plan, learning_rate, take_step};

const FILE: &str = "adapter_model.safetensors";

#[test]
fn a_run_is_that_of_the_processor() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let (ended, reports) = run(&place.job("gpu", &recipe), &corpus, None);
    assert!(matches!(ended.unwrap(), Ended::Trained(_)));
    let losses = reports.iter().filter_map(|report| match report {
        Progress::Step { loss, gradient_norm, .. } => Some((*loss, *gradient_norm)),
        _ => None,
    });
    let losses: Vec<(f64, f64)> = losses.collect();

    let weights = Weights::load(&place.path("base")).unwrap();
    let moat_contracts::LoraRecipe { rank, alpha, rank_stabilized, decomposed, ref targets, .. } =
        recipe.lora;
    let shape = LoraShape { rank, alpha, rank_stabilized, decomposed, targets };
    let adapter = Some(Lora::shaped(weights.architecture(), shape, recipe.seed).unwrap());
    let mut model = Model { weights, adapter };
    let (mut gradients, mut moments) = (Gradients::new(&model), Moments::new(&model));
    let mut plan = Plan::new(&corpus, &recipe.train, recipe.seed);
    assert!(plan.steps() == losses.len() as u64 && losses.len() > 6);
    for (step, (loss, norm)) in (0..).zip(losses) {
        let batches = plan.micro_batches(&corpus, step);
        let rate = learning_rate(&recipe.optimizer, step, plan.steps());
        let mut learner = Learner { model: &mut model, gradients: &mut gradients, moments: &mut moments };
        let stepped = take_step(
            &mut learner,
            &batches,
            &recipe,
            (step + 1, rate),
            false,
            &mut Alone,
            &AtomicBool::new(false),
        );
        let stepped = stepped.unwrap().unwrap();
        let own = stepped.sum.nats / stepped.sum.tokens as f64;
        assert!((loss - own).abs() < 1e-4, "loss of step {step}: {loss} against {own}");
        assert!((norm - stepped.gradient_norm).abs() < 1e-3 * norm, "norm of step {step}");
    }
}

#[test]
fn a_run_that_is_stopped_ends_with_the_same_bytes() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let whole = place.job("whole", &recipe);
    assert!(matches!(run(&whole, &corpus, None).0.unwrap(), Ended::Trained(_)));
    for cut in [0, 1, 3, 5] {
        let job = place.job(&format!("cut{cut}"), &recipe);
        assert_eq!(run(&job, &corpus, Some(cut)).0.unwrap(), Ended::Stopped, "{cut}");
        assert!(matches!(run(&job, &corpus, None).0.unwrap(), Ended::Trained(_)));
        let part = RunPart::Adapter;
        assert_eq!(opened(&job, part, FILE), opened(&whole, part, FILE), "{cut}");
    }
}

#[test]
fn what_the_gpu_does_otherwise_is_refused_with_the_remedy() {
    let place = Place::new();
    let full = recipe(Method::Full);
    let corpus = place.corpus(Method::Full, &examples()).unwrap();
    let said = run(&place.job("full", &full), &corpus, None).0.unwrap_err().to_string();
    assert!(said.contains("train.method") && said.contains("engine for the CPU"), "{said}");

    let mut quantized = recipe(Method::Lora);
    quantized.optimizer.state = OptimizerState::EightBit;
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let said = run(&place.job("quantized", &quantized), &corpus, None).0.unwrap_err().to_string();
    assert!(said.contains("optimizer.state"), "{said}");
}
