//! The trainer beside trl's DPOTrainer, step by step on the very batches that trl's model got: `scripts/parity` makes the
//! trace, and `scripts/parity --live` another one of fresh weights and preferences.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moat_contracts::{DpoRecipe, OptimizerRecipe, Recipe};
use moat_tensor::{Batch, Gradients, IGNORE, Lora, Model, Moments, Weights, segment_losses};
use moat_train::{Alone, Learner, take_pair_step};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trace {
    optimizer: OptimizerRecipe,
    beta: f64,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    gradient_norm: f64,
    rate: f64,
    margin: f64,
    batches: Vec<Vec<Sequence>>,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    /// First place and length of what is learnt.
    trained: Vec<(usize, usize)>,
}

/// A micro-batch of trl's as one packed row, the chosen answer of a pair before the rejected one.
fn packed(sequences: &[Sequence]) -> Batch {
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for Sequence { tokens, trained } in sequences {
        let start = batch.tokens.len();
        batch.tokens.extend(tokens);
        batch.targets.resize(start + tokens.len(), IGNORE);
        for place in trained.iter().flat_map(|(first, length)| *first..first + length) {
            batch.targets[start + place - 1] = tokens[place];
        }
        batch.segments.push(batch.tokens.len());
    }
    batch
}

#[test]
fn thirty_steps_on_preferences_are_those_of_trl() {
    let live = std::env::var_os("MOAT_REPLAY_FIXTURE").map(PathBuf::from);
    let folder = live.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trl"));
    let trace: Trace = serde_json::from_slice(&fs::read(folder.join("preferences.json")).unwrap()).unwrap();
    assert_eq!(trace.steps.len(), 30);
    let weights = Weights::load(&folder).unwrap();
    let adapter = Lora::load(weights.architecture(), &folder.join("adapter")).unwrap();
    let base = Model { weights: weights.clone(), adapter: None };
    let mut model = Model { weights, adapter: Some(adapter) };
    let (mut gradients, mut moments) = (Gradients::new(&model), Moments::new(&model));
    let dpo = DpoRecipe { beta: trace.beta, ..DpoRecipe::default() };
    let recipe = Recipe { optimizer: trace.optimizer, dpo, ..Recipe::default() };
    let (mut losses, mut norms, mut margins) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (number, step) in (1..).zip(&trace.steps) {
        let batches: Vec<(Batch, Vec<f64>)> = step
            .batches
            .iter()
            .map(|batch| {
                let batch = packed(batch);
                let reference = segment_losses(&base, &batch, &mut gradients).unwrap();
                (batch, reference)
            })
            .collect();
        let mut learner = Learner { model: &mut model, gradients: &mut gradients, moments: &mut moments };
        let rate = (number, step.rate);
        let stepped =
            take_pair_step(&mut learner, &batches, &recipe, rate, false, &mut Alone, &AtomicBool::new(false))
                .unwrap()
                .unwrap();
        let (loss, norm) = (stepped.sum.nats / stepped.sum.tokens as f64, stepped.gradient_norm);
        let margin = stepped.pairs.unwrap().margin;
        losses = losses.max((loss - step.loss).abs());
        norms = norms.max((norm - step.gradient_norm).abs());
        margins = margins.max((margin - step.margin).abs());
        assert!((loss - step.loss).abs() < 1e-3, "loss of step {number}: {loss} against {}", step.loss);
        let trls = step.gradient_norm;
        assert!((norm - trls).abs() < 1e-2 * trls.max(1.0), "norm of step {number}: {norm} against {trls}");
        assert!((margin - step.margin).abs() < 1e-2, "margin of step {number}: {margin}");
    }
    let last = trace.steps[25..].iter().map(|step| step.loss).sum::<f64>() / 5.0;
    assert!(last < trace.steps[0].loss - 0.1, "the trace learns nothing: {last}");
    println!(
        "replay: DPO losses within {losses:.1e}, norms within {norms:.1e}, margins within {margins:.1e} of trl's"
    );
}
