use std::sync::atomic::AtomicBool;

use moat_contracts::{PairFigures, Recipe};
use moat_tensor::{
    AdamW, Batch, Gradients, LossSum, Model, Moments, adamw_tuned, forward_backward, forward_backward_pairs,
};

use crate::pairs::{PairSum, preference};
use crate::ranks::{self, dealt};
use crate::tuning::tuning;
use crate::{Exchange, TrainError};

/// What a step changes.
#[derive(Debug)]
pub struct Learner<'a> {
    /// The model.
    pub model: &'a mut Model,
    /// Zeros before the step and after it.
    pub gradients: &'a mut Gradients,
    /// AdamW's moments.
    pub moments: &'a mut Moments,
}

/// What one step measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Loss over the trained tokens of all micro-batches, before the step; over the pairs, where those are learnt.
    pub sum: LossSum,
    /// Trained tokens.
    pub tokens: u64,
    /// How the pairs were told apart, where those are learnt.
    pub pairs: Option<PairFigures>,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// One optimiser step: adds up the gradient of the mean over the trained tokens of all `batches`, clips its norm as torch
/// does, and takes one AdamW step at this learning rate. `None` if it was stopped before the end; a step is never half taken,
/// but the gradients are not zeros then. `number` counts from 1, for errors.
///
/// Every rank is given all batches, computes its share of them, and takes the same step.
///
/// # Errors
/// [`TrainError::Diverged`], [`TrainError::Exchange`], and what does not fit.
pub fn take_step(
    learner: &mut Learner<'_>,
    batches: &[Batch],
    recipe: &Recipe,
    (number, learning_rate): (u64, f64),
    recompute: bool,
    exchange: &mut dyn Exchange,
    stop: &AtomicBool,
) -> Result<Option<Stepped>, TrainError> {
    let Learner { model, gradients, .. } = learner;
    let tokens: u64 = batches.iter().map(Batch::trained).sum();
    let scale = (1.0 / tokens as f64) as f32;
    let pieces = batches.iter().map(|batch| (batch, 1));
    let found = dealt(exchange, stop, pieces, |batch, nats| {
        nats[0] = forward_backward(model, batch, scale, recompute, gradients)?.nats;
        Ok(())
    })?;
    let Some(nats) = found else { return Ok(None) };
    ranks::sum(exchange, gradients.named_mut())?;
    let sum = LossSum { nats: nats.iter().sum(), tokens };
    let gradient_norm = update(learner, sum, recipe, (number, learning_rate))?;
    Ok(Some(Stepped { sum, tokens, pairs: None, gradient_norm }))
}

/// The same of the mean of [`moat_tensor::Preference::loss`] over the pairs of all `batches`, each with the reference's
/// summed loss of each of its segments, nats.
///
/// # Errors
/// As [`take_step`].
pub fn take_pair_step(
    learner: &mut Learner<'_>,
    batches: &[(Batch, Vec<f64>)],
    recipe: &Recipe,
    (number, learning_rate): (u64, f64),
    recompute: bool,
    exchange: &mut dyn Exchange,
    stop: &AtomicBool,
) -> Result<Option<Stepped>, TrainError> {
    let Learner { model, gradients, .. } = learner;
    let preference = preference(recipe);
    let pairs: usize = batches.iter().map(|(_, reference)| reference.len() / 2).sum();
    let tokens = batches.iter().map(|(batch, _)| batch.trained()).sum();
    let scale = 1.0 / pairs as f64;
    let pieces = batches.iter().map(|(batch, reference)| ((batch, reference), reference.len()));
    let found = dealt(exchange, stop, pieces, |(batch, reference), sums| {
        sums.copy_from_slice(&forward_backward_pairs(
            model, batch, reference, preference, scale, recompute, gradients,
        )?);
        Ok(())
    })?;
    let Some(sums) = found else { return Ok(None) };
    ranks::sum(exchange, gradients.named_mut())?;
    let mut sum = PairSum::default();
    let references: Vec<f64> = batches.iter().flat_map(|(_, reference)| reference).copied().collect();
    sum.add(preference, &sums, &references);
    let gradient_norm = update(learner, sum.loss(), recipe, (number, learning_rate))?;
    Ok(Some(Stepped { sum: sum.loss(), tokens, pairs: Some(sum.figures()), gradient_norm }))
}

/// Clips and takes the step. Returns the norm before clipping.
fn update(
    learner: &mut Learner<'_>,
    sum: LossSum,
    recipe: &Recipe,
    (number, learning_rate): (u64, f64),
) -> Result<f64, TrainError> {
    let Learner { model, gradients, moments } = learner;
    if !sum.nats.is_finite() {
        return Err(TrainError::Diverged { what: "the loss", step: number });
    }
    let gradient_norm = gradients.norm();
    if !gradient_norm.is_finite() {
        return Err(TrainError::Diverged { what: "the gradient", step: number });
    }
    // As torch.nn.utils.clip_grad_norm_.
    let clip = recipe.optimizer.clip / (gradient_norm + 1e-6);
    if recipe.optimizer.clip > 0.0 && clip < 1.0 {
        gradients.scale(clip);
    }
    let settings = AdamW {
        learning_rate,
        beta1: recipe.optimizer.beta1,
        beta2: recipe.optimizer.beta2,
        epsilon: recipe.optimizer.epsilon,
        weight_decay: recipe.optimizer.weight_decay,
    };
    adamw_tuned(model, gradients, moments, settings, |parameter| tuning(recipe, parameter))?;
    gradients.zero();
    Ok(gradient_norm)
}
