//! The trainer beside trl's SFTTrainer, step by step on the very batches that trl's model got: `scripts/parity` makes the
//! trace, and `scripts/parity --live` another one of fresh weights and chats.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moat_contracts::{OptimizerRecipe, Recipe};
use moat_tensor::{Batch, Gradients, IGNORE, Lora, Model, Moments, Weights};
use moat_train::{Alone, Learner, take_step};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trace {
    optimizer: OptimizerRecipe,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    gradient_norm: f64,
    rate: f64,
    batches: Vec<Vec<Sequence>>,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    /// First place and length of what is learnt.
    trained: Vec<(usize, usize)>,
}

/// A micro-batch of trl's as one packed row.
fn packed(sequences: &[Sequence]) -> Batch {
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for Sequence { tokens, trained } in sequences {
        let start = batch.tokens.len();
        batch.tokens.extend(tokens);
        batch.targets.resize(start + tokens.len(), IGNORE);
        for place in
            trained.iter().flat_map(|(first, length)| *first..first + length).filter(|place| *place > 0)
        {
            batch.targets[start + place - 1] = tokens[place];
        }
        batch.segments.push(batch.tokens.len());
    }
    batch
}

#[test]
fn fifty_steps_are_those_of_trl() {
    let live = std::env::var_os("MOAT_REPLAY_FIXTURE").map(PathBuf::from);
    let folder = live.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trl"));
    let trace: Trace = serde_json::from_slice(&fs::read(folder.join("trace.json")).unwrap()).unwrap();
    assert_eq!(trace.steps.len(), 50);
    let weights = Weights::load(&folder).unwrap();
    let adapter = Lora::load(weights.architecture(), &folder.join("adapter")).unwrap();
    let mut model = Model { weights, adapter: Some(adapter) };
    let (mut gradients, mut moments) = (Gradients::new(&model), Moments::new(&model));
    let recipe = Recipe { optimizer: trace.optimizer, ..Recipe::default() };
    let (mut losses, mut norms) = (0.0_f64, 0.0_f64);
    for (number, step) in (1..).zip(&trace.steps) {
        let batches: Vec<Batch> = step.batches.iter().map(|batch| packed(batch)).collect();
        let mut learner = Learner { model: &mut model, gradients: &mut gradients, moments: &mut moments };
        let rate = (number, step.rate);
        let stepped =
            take_step(&mut learner, &batches, &recipe, rate, false, &mut Alone, &AtomicBool::new(false))
                .unwrap()
                .unwrap();
        let loss = stepped.sum.nats / stepped.sum.tokens as f64;
        losses = losses.max((loss - step.loss).abs());
        norms = norms.max((stepped.gradient_norm - step.gradient_norm).abs());
        assert!((loss - step.loss).abs() < 1e-3, "loss of step {number}: {loss} against {}", step.loss);
        let norm = stepped.gradient_norm;
        assert!(
            (norm - step.gradient_norm).abs() < 1e-1,
            "norm of step {number}: {norm} against {}",
            step.gradient_norm
        );
    }
    let (first, last) = (trace.steps[0].loss, trace.steps[49].loss);
    assert!(last < first - 0.5, "the trace learns nothing: {first} to {last}");
    println!("replay: losses within {losses:.1e}, gradient norms within {norms:.1e} of trl's");
}
