use rayon::prelude::*;

use crate::kernels::{Cpu, Kernels};
use crate::workers::Worker;
use crate::workspace::Workspace;
use crate::{Float, Model, Parameters, TensorError};

/// Gradients of everything trainable in one model, and the buffers that computing them reuses: make one per run,
/// and [`Gradients::zero`] it after each step.
#[derive(Debug)]
pub struct Gradients<F: Float = f32> {
    pub(crate) parameters: Parameters<F>,
    pub(crate) workspace: Workspace<F>,
    /// Of those who compute a part each.
    pub(crate) workers: Vec<Worker<F>>,
}

impl<F: Float> Gradients<F> {
    /// Zeros for what `model` trains.
    pub fn new(model: &Model<F>) -> Self {
        let parameters = model.trainable().zeros_like();
        Self { parameters, workspace: Workspace::new(), workers: Vec::new() }
    }

    /// Back to zeros.
    pub fn zero(&mut self) {
        for parameter in self.parameters.list_mut() {
            parameter.values.par_chunks_mut(SPAN).for_each(|values| values.fill(F::ZERO));
        }
    }

    /// Euclidean norm over all of them (for clipping).
    pub fn norm(&self) -> f64 {
        let square = |values: &[F]| values.iter().map(|value| value.to_f64() * value.to_f64()).sum::<f64>();
        let parts = self
            .parameters
            .list()
            .iter()
            .flat_map(|parameter| parameter.values.par_chunks(SPAN).map(square).collect::<Vec<f64>>());
        parts.sum::<f64>().sqrt()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f64) {
        let factor = F::from_f64(factor);
        for parameter in self.parameters.list_mut() {
            parameter.values.par_iter_mut().with_min_len(SPAN).for_each(|value| *value *= factor);
        }
    }

    /// By the names of the parameters.
    pub fn named(&self) -> &Parameters<F> {
        &self.parameters
    }
}

/// Numbers that one task takes; fixed, so that sums have one order on any number of cores.
const SPAN: usize = 16 * 1024;

/// AdamW's first and second moments of everything trainable, and its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<F: Float = f32> {
    pub(crate) first: Parameters<F>,
    pub(crate) second: Parameters<F>,
    pub(crate) steps: u64,
}

impl<F: Float> Moments<F> {
    /// Zeros for what `model` trains.
    pub fn new(model: &Model<F>) -> Self {
        let first = model.trainable().zeros_like();
        Self { second: first.clone(), first, steps: 0 }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

/// AdamW's settings for one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled, on matrices only.
    pub weight_decay: f64,
}

/// One step of AdamW over everything trainable, as torch's.
///
/// # Errors
/// [`TensorError::Mismatch`].
pub fn adamw<F: Float>(
    model: &mut Model<F>,
    gradients: &Gradients<F>,
    moments: &mut Moments<F>,
    settings: AdamW,
) -> Result<(), TensorError> {
    let trainable = model.trainable_mut();
    if !gradients.parameters.fits(trainable) || !moments.first.fits(trainable) {
        return Err(TensorError::Mismatch);
    }
    moments.steps += 1;
    let Moments { first, second, steps } = moments;
    let moments = first.list_mut().iter_mut().zip(second.list_mut());
    let parameters = trainable.list_mut().iter_mut().zip(gradients.parameters.list());
    for ((theta, gradient), (first, second)) in parameters.zip(moments) {
        let matrix = theta.shape.len() == 2;
        let settings = AdamW { weight_decay: if matrix { settings.weight_decay } else { 0.0 }, ..settings };
        let (first, second) = (&mut first.values, &mut second.values);
        Cpu.adamw(&mut theta.values, &gradient.values, first, second, settings, *steps);
    }
    Ok(())
}
