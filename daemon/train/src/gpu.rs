//! Steps on a GPU, in a program that is built for one. The processor proves the run and keeps its checkpoints; before the
//! first step on the GPU it computes a part of the run's own first batch beside it, and refuses where they differ.

use std::sync::atomic::AtomicBool;

use moat_contracts::{Method, OptimizerState, Recipe, Recompute};
use moat_tensor::cuda::{Device, OnDevice, Precision};
use moat_tensor::{AdamW, Batch, Gradients, IGNORE, LossSum, Model, Moments, Parameters, forward_backward};

use crate::ranks::{self, dealt};
use crate::step::Stepped;
use crate::tuning::tuning;
use crate::{Exchange, TrainError};

/// Tokens of the first batch that both compute.
const COMPARED: usize = 256;

/// How far the GPU's loss may be from the processor's, as a share of it, and the cosine that their gradients have at least:
/// bfloat16 has eight bits, and a wrong kernel has nothing in common with a right one.
const LOSS: f64 = 0.02;
const COSINE: f64 = 0.95;

/// What of a recipe this path does as it says. Keys at their defaults may be left out of a recipe, and what they name later is
/// refused until it is done here too.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "train",
        &[
            "method",
            "sequence_length",
            "micro_batch",
            "accumulate",
            "epochs",
            "max_steps",
            "checkpoint_every",
            "recompute",
            "start_from",
        ],
    ),
    ("lora", &["rank", "alpha", "rank_stabilized", "b_rate", "targets"]),
    (
        "optimizer",
        &[
            "learning_rate",
            "warmup",
            "final_share",
            "schedule",
            "decay",
            "decay_shape",
            "beta1",
            "beta2",
            "epsilon",
            "weight_decay",
            "decayed",
            "clip",
            "state",
        ],
    ),
];

/// A run's model on the GPU.
pub(crate) struct Gpu {
    placed: OnDevice,
    recompute: bool,
}

impl Gpu {
    /// Places the model and its moments, and compares what the GPU makes of a batch with what the processor does.
    pub(crate) fn open(
        model: &Model,
        moments: &Moments,
        recipe: &Recipe,
        batches: &[Batch],
        #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is one emulation"))] rank: usize,
    ) -> Result<Self, TrainError> {
        // Each process of a run has a GPU of its own.
        #[cfg(feature = "cuda")]
        let (device, precision) = (Device::gpu(rank)?, Precision::Bf16);
        #[cfg(not(feature = "cuda"))]
        let (device, precision) = (Device::emulated(false), Precision::F32);
        let mut placed = OnDevice::new(&device, model, precision)?;
        placed.write_moments(moments)?;
        if let Some(batch) = batches.first() {
            compare(model, &mut placed, &part(batch))?;
        }
        Ok(Self { placed, recompute: recipe.train.recompute != Recompute::No })
    }

    /// [`crate::take_step`] on the GPU.
    pub(crate) fn take_step(
        &mut self,
        batches: &[Batch],
        recipe: &Recipe,
        (number, learning_rate): (u64, f64),
        exchange: &mut dyn Exchange,
        stop: &AtomicBool,
    ) -> Result<Option<Stepped>, TrainError> {
        let tokens: u64 = batches.iter().map(Batch::trained).sum();
        let scale = (1.0 / tokens as f64) as f32;
        self.placed.zero()?;
        let pieces = batches.iter().map(|batch| (batch, 1));
        let found = dealt(exchange, stop, pieces, |batch, nats| {
            nats[0] = self.placed.forward_backward(batch, scale, self.recompute)?.nats;
            Ok(())
        })?;
        let Some(nats) = found else { return Ok(None) };
        if exchange.ranks() > 1 {
            // By way of the processor's memory, where any exchange can reach it: an adapter's gradient is small.
            let mut gradients = self.placed.gradients()?;
            ranks::sum(exchange, &mut gradients)?;
            self.placed.write_gradients(&gradients)?;
        }
        let sum = LossSum { nats: nats.iter().sum(), tokens };
        if !sum.nats.is_finite() {
            return Err(TrainError::Diverged { what: "the loss", step: number });
        }
        let gradient_norm = self.placed.norm()?;
        if !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { what: "the gradient", step: number });
        }
        // As torch.nn.utils.clip_grad_norm_.
        let clip = recipe.optimizer.clip / (gradient_norm + 1e-6);
        if recipe.optimizer.clip > 0.0 && clip < 1.0 {
            self.placed.scale(clip)?;
        }
        let settings = AdamW {
            learning_rate,
            beta1: recipe.optimizer.beta1,
            beta2: recipe.optimizer.beta2,
            epsilon: recipe.optimizer.epsilon,
            weight_decay: recipe.optimizer.weight_decay,
        };
        self.placed.adamw(settings, |parameter| tuning(recipe, parameter))?;
        Ok(Some(Stepped { sum, tokens, pairs: None, gradient_norm }))
    }

    /// Copies what was trained to where checkpoints, measurements and the result take it from.
    pub(crate) fn read_back(&self, model: &mut Model, moments: &mut Moments) -> Result<(), TrainError> {
        if let Some(adapter) = &mut model.adapter {
            self.placed.read_adapter(adapter)?;
        }
        Ok(self.placed.read_moments(moments)?)
    }
}

/// Refuses what the GPU's path would do otherwise than the recipe says.
pub(crate) fn known(recipe: &Recipe) -> Result<(), TrainError> {
    let refuse = |what: String| {
        Err(TrainError::Gpu(format!("{what} is not done on a GPU yet: train it with the engine for the CPU")))
    };
    if recipe.train.method != Method::Lora {
        return refuse("any train.method but \"lora\"".to_owned());
    }
    if recipe.optimizer.state != OptimizerState::Exact {
        return refuse("optimizer.state = \"8bit\"".to_owned());
    }
    let written = serde_json::to_value(recipe).map_err(|error| TrainError::Gpu(error.to_string()))?;
    for (section, known) in KNOWN {
        let mut keys = written[section].as_object().into_iter().flat_map(|keys| keys.keys());
        if let Some(key) = keys.find(|key| !known.contains(&key.as_str())) {
            return refuse(format!("{section}.{key}"));
        }
    }
    Ok(())
}

/// The first tokens of a batch's first segment, all of it where none of them is trained.
fn part(batch: &Batch) -> Batch {
    let end = batch.segments.get(1).copied().unwrap_or(batch.tokens.len());
    let trained = |rows: usize| batch.targets[..rows].iter().any(|target| *target != IGNORE);
    let rows = end.min(COMPARED);
    let rows = if trained(rows) { rows } else { end };
    if !trained(rows) {
        return batch.clone();
    }
    let (tokens, targets) = (batch.tokens[..rows].to_vec(), batch.targets[..rows].to_vec());
    Batch { tokens, targets, segments: vec![0, rows] }
}

fn compare(model: &Model, placed: &mut OnDevice, batch: &Batch) -> Result<(), TrainError> {
    let scale = (1.0 / batch.trained() as f64) as f32;
    let mut own = Gradients::new(model);
    let expected = forward_backward(model, batch, scale, true, &mut own)?;
    let found = placed.forward_backward(batch, scale, true)?;
    let cosine = cosine(&placed.gradients()?, own.named());
    placed.zero()?;
    let apart = (found.nats - expected.nats).abs() / expected.nats;
    // Written so that what is no number is refused.
    let holds = apart <= LOSS && cosine >= COSINE;
    if holds {
        return Ok(());
    }
    Err(TrainError::Gpu(format!(
        "on the run's first batch its loss is {:.2}% from the processor's and its gradient has the cosine {cosine:.3} with that, \
         where 2% and 0.95 are the bounds: report it, and train with the engine for the CPU",
        100.0 * apart
    )))
}

fn cosine(own: &Parameters, expected: &Parameters) -> f64 {
    let (mut dot, mut squares) = (0.0, [0.0, 0.0]);
    for (own, expected) in own.list().iter().zip(expected.list()) {
        for (own, expected) in own.values.iter().zip(&expected.values) {
            let (own, expected) = (f64::from(*own), f64::from(*expected));
            dot += own * expected;
            squares[0] += own * own;
            squares[1] += expected * expected;
        }
    }
    // Where nothing is to be learnt, both must say so.
    if squares == [0.0, 0.0] { 1.0 } else { dot / (squares[0] * squares[1]).sqrt() }
}
