use rayon::prelude::*;

use crate::kernels::{Cpu, Kernels};
use crate::quantized::{self, Levels, Quantized};
use crate::workers::Worker;
use crate::workspace::Workspace;
use crate::{Float, Model, Parameter, Parameters, TensorError};

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

    /// Gives the buffers back that computing them keeps; the gradients themselves stay.
    pub fn release(&mut self) {
        self.workspace = Workspace::new();
        self.workers.clear();
    }

    /// By the names of the parameters.
    pub fn named(&self) -> &Parameters<F> {
        &self.parameters
    }

    /// The same, to add what was computed elsewhere.
    pub fn named_mut(&mut self) -> &mut Parameters<F> {
        &mut self.parameters
    }
}

/// Numbers that one task takes; fixed, so that sums have one order on any number of cores.
const SPAN: usize = 16 * 1024;

/// AdamW's first and second moments of everything trainable, and its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<F: Float = f32> {
    pub(crate) first: Parameters<F>,
    pub(crate) second: Parameters<F>,
    /// Each tensor's first and second moment where they are held in 8 bits; the parameters above have no values then.
    pub(crate) quantized: Option<Vec<[Quantized; 2]>>,
    pub(crate) steps: u64,
}

impl<F: Float> Moments<F> {
    /// Zeros for what `model` trains.
    pub fn new(model: &Model<F>) -> Self {
        let first = model.trainable().zeros_like();
        Self { second: first.clone(), first, quantized: None, steps: 0 }
    }

    /// The same in a quarter of the room: 8 bits a number and a scale for each 256 of them.
    pub fn quantized(model: &Model<F>) -> Self {
        let (signed, unsigned) = (Levels::signed(), Levels::unsigned());
        let zeros = model.trainable().list().iter().map(|parameter| {
            [&signed, &unsigned].map(|levels| Quantized::zeros(parameter.values.len(), levels))
        });
        let first = model.trainable().without_values();
        Self { quantized: Some(zeros.collect()), second: first.clone(), first, steps: 0 }
    }

    /// Bytes of both moments.
    pub fn bytes(&self) -> u64 {
        let exact = (self.first.count() + self.second.count()) * size_of::<F>() as u64;
        let parts = self.quantized.iter().flatten().flatten();
        exact + parts.map(|part| (part.codes.len() + 4 * part.scales.len()) as u64).sum::<u64>()
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
    /// Decoupled.
    pub weight_decay: f64,
}

/// What one tensor's step differs in from the others': torch's parameter groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Its learning rate as a multiple of [`AdamW::learning_rate`].
    pub rate: f64,
    /// Whether its weights decay.
    pub decays: bool,
}

/// One step of AdamW over everything trainable, as torch's, with weight decay on matrices only.
///
/// # Errors
/// [`TensorError::Mismatch`].
pub fn adamw<F: Float>(
    model: &mut Model<F>,
    gradients: &Gradients<F>,
    moments: &mut Moments<F>,
    settings: AdamW,
) -> Result<(), TensorError> {
    let tuning = |parameter: &Parameter<F>| Tuning { rate: 1.0, decays: parameter.shape.len() == 2 };
    adamw_tuned(model, gradients, moments, settings, tuning)
}

/// [`adamw`] with what each tensor differs in.
///
/// # Errors
/// [`TensorError::Mismatch`].
pub fn adamw_tuned<F: Float>(
    model: &mut Model<F>,
    gradients: &Gradients<F>,
    moments: &mut Moments<F>,
    settings: AdamW,
    tuning: impl Fn(&Parameter<F>) -> Tuning,
) -> Result<(), TensorError> {
    let trainable = model.trainable_mut();
    if !gradients.parameters.fits(trainable) || !moments.first.fits(trainable) {
        return Err(TensorError::Mismatch);
    }
    moments.steps += 1;
    let Moments { first, second, quantized, steps } = moments;
    let levels = (Levels::signed(), Levels::unsigned());
    let moments = first.list_mut().iter_mut().zip(second.list_mut());
    let parameters = trainable.list_mut().iter_mut().zip(gradients.parameters.list());
    for (index, ((theta, gradient), (first, second))) in parameters.zip(moments).enumerate() {
        let Tuning { rate, decays } = tuning(theta);
        let settings = AdamW {
            learning_rate: rate * settings.learning_rate,
            weight_decay: if decays { settings.weight_decay } else { 0.0 },
            ..settings
        };
        let (theta, gradient) = (&mut theta.values, &gradient.values);
        if let Some([first, second]) = quantized.as_mut().map(|all| &mut all[index]) {
            quantized::adamw(theta, gradient, (first, &levels.0), (second, &levels.1), settings, *steps);
            continue;
        }
        let (first, second) = (&mut first.values, &mut second.values);
        Cpu.adamw(theta, gradient, first, second, settings, *steps);
    }
    Ok(())
}
