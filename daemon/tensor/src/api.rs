use std::path::Path;

use moat_contracts::Architecture;

use crate::{Batch, Float, Parameters, TensorError};

/// How numbers are stored in a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// A model's weights, under Hugging Face's names in the order of [`Architecture::tensors`].
#[derive(Clone, Debug)]
pub struct Weights<F: Float = f32> {
    architecture: Architecture,
    parameters: Parameters<F>,
}

impl Weights {
    /// Reads `config.json` and `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`TensorError`] names the file or the tensor that is missing, unexpected, damaged or of a wrong shape.
    pub fn load(_dir: &Path) -> Result<Self, TensorError> {
        unimplemented!()
    }

    /// Fresh weights: linears and embeddings normal with deviation 0.02, norms 1, biases 0. The same seed gives the
    /// same weights everywhere.
    pub fn random(_architecture: Architecture, _seed: u64) -> Self {
        unimplemented!()
    }

    /// Writes `model.safetensors` whole or not at all. `config.json` is the caller's to copy.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save(&self, _dir: &Path, _stored: StoredType) -> Result<(), TensorError> {
        unimplemented!()
    }
}

impl<F: Float> Weights<F> {
    /// What the weights are of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The tensors.
    pub fn parameters(&self) -> &Parameters<F> {
        &self.parameters
    }
}

/// A low-rank adapter on every linear of every block: `W + alpha/rank * B A`.
#[derive(Clone, Debug)]
pub struct Lora<F: Float = f32> {
    rank: usize,
    alpha: f64,
    parameters: Parameters<F>,
}

impl Lora {
    /// As PEFT starts one: A uniform in ±1/√in, B zero, so that it changes nothing yet.
    pub fn new(_architecture: &Architecture, _rank: usize, _alpha: f64, _seed: u64) -> Self {
        unimplemented!()
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors` as PEFT writes them.
    ///
    /// # Errors
    /// [`TensorError`] names what is missing, or asked for and not supported.
    pub fn load(_architecture: &Architecture, _dir: &Path) -> Result<Self, TensorError> {
        unimplemented!()
    }

    /// Writes both files, each whole or not at all, as PEFT reads them. `base_name` becomes
    /// `base_model_name_or_path`.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save(&self, _dir: &Path, _base_name: &str) -> Result<(), TensorError> {
        unimplemented!()
    }
}

impl<F: Float> Lora<F> {
    /// Rank of A and B.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The scale's numerator.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// A and B of every linear, under PEFT's names.
    pub fn parameters(&self) -> &Parameters<F> {
        &self.parameters
    }

    /// Adds the adapter to the weights it was trained on.
    pub fn merge(&self, _weights: &mut Weights<F>) {
        unimplemented!()
    }
}

/// Weights, with or without an adapter. What is trained is the adapter where there is one, and all weights where
/// there is none.
#[derive(Clone, Debug)]
pub struct Model<F: Float = f32> {
    /// The base.
    pub weights: Weights<F>,
    /// What was or is trained on top of it.
    pub adapter: Option<Lora<F>>,
}

impl<F: Float> Model<F> {
    /// What training changes.
    pub fn trainable(&self) -> &Parameters<F> {
        match &self.adapter {
            Some(adapter) => &adapter.parameters,
            None => &self.weights.parameters,
        }
    }

    /// What training changes, to change it (restore a checkpoint).
    pub fn trainable_mut(&mut self) -> &mut Parameters<F> {
        match &mut self.adapter {
            Some(adapter) => &mut adapter.parameters,
            None => &mut self.weights.parameters,
        }
    }
}

impl<F: Float> Parameters<F> {
    /// The tensors as the bytes of a safetensors file, exact (for checkpoints; F32).
    pub fn to_bytes(&self) -> Result<Vec<u8>, TensorError> {
        unimplemented!()
    }

    /// Sets every tensor from [`Parameters::to_bytes`]'s bytes; nothing changes unless all fit.
    ///
    /// # Errors
    /// [`TensorError::State`], [`TensorError::Missing`], [`TensorError::Unexpected`] or [`TensorError::Shape`].
    pub fn restore(&mut self, _bytes: &[u8]) -> Result<(), TensorError> {
        unimplemented!()
    }
}

/// Summed negative log-likelihood and what it was summed over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of −ln p(target) in nats.
    pub nats: f64,
    /// Targets in the sum.
    pub tokens: u64,
}

/// Gradients of everything trainable in one model, and the buffers that computing them reuses: make one per run,
/// and [`Gradients::zero`] it after each step.
#[derive(Debug)]
pub struct Gradients<F: Float = f32> {
    parameters: Parameters<F>,
}

impl<F: Float> Gradients<F> {
    /// Zeros for what `model` trains.
    pub fn new(model: &Model<F>) -> Self {
        Self { parameters: model.trainable().zeros_like() }
    }

    /// Back to zeros.
    pub fn zero(&mut self) {
        unimplemented!()
    }

    /// Euclidean norm over all of them (for clipping).
    pub fn norm(&self) -> f64 {
        unimplemented!()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, _factor: f64) {
        unimplemented!()
    }

    /// By the names of the parameters.
    pub fn named(&self) -> &Parameters<F> {
        &self.parameters
    }
}

/// Adds `scale` times the gradient of the summed negative log-likelihood to `gradients`, and returns that sum.
///
/// `scale` is one over the trained tokens of the whole optimiser step, so that micro-batches add up to the gradient
/// of the mean. With `recompute` a block keeps only its input and computes its inside again in the backward: less
/// memory, about a third slower, the same bits.
///
/// # Errors
/// What [`Batch::check`] finds, and [`TensorError::Mismatch`].
pub fn forward_backward<F: Float>(
    _model: &Model<F>,
    _batch: &Batch,
    _scale: f32,
    _recompute: bool,
    _gradients: &mut Gradients<F>,
) -> Result<LossSum, TensorError> {
    unimplemented!()
}

/// AdamW's first and second moments of everything trainable, and its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<F: Float = f32> {
    first: Parameters<F>,
    second: Parameters<F>,
    steps: u64,
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

    /// Moments and steps as the bytes of a safetensors file, exact.
    ///
    /// # Errors
    /// [`TensorError::State`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, TensorError> {
        unimplemented!()
    }

    /// Sets both moments and the steps from [`Moments::to_bytes`]'s bytes; nothing changes unless all fit.
    ///
    /// # Errors
    /// As [`Parameters::restore`].
    pub fn restore(&mut self, _bytes: &[u8]) -> Result<(), TensorError> {
        unimplemented!()
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
    _model: &mut Model<F>,
    _gradients: &Gradients<F>,
    _moments: &mut Moments<F>,
    _settings: AdamW,
) -> Result<(), TensorError> {
    unimplemented!()
}

/// −ln p(target) in nats of every position, `[rows]`; 0 where the target is [`crate::IGNORE`].
///
/// # Errors
/// What [`Batch::check`] finds.
pub fn token_losses<F: Float>(_model: &Model<F>, _batch: &Batch) -> Result<Vec<F>, TensorError> {
    unimplemented!()
}

/// Logits of every position, `[rows, vocabulary]`: for tests and short texts, since it holds them whole.
///
/// # Errors
/// What [`Batch::check`] finds.
pub fn logits<F: Float>(_model: &Model<F>, _batch: &Batch) -> Result<Vec<F>, TensorError> {
    unimplemented!()
}

/// Keys and values of the tokens that one answer has seen so far.
#[derive(Clone, Debug)]
pub struct Cache<F: Float = f32> {
    layers: Vec<(Vec<F>, Vec<F>)>,
    length: usize,
}

impl<F: Float> Cache<F> {
    /// Empty, with room for `tokens` before it has to grow.
    pub fn new(_model: &Model<F>, _tokens: usize) -> Self {
        unimplemented!()
    }

    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has seen none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() || self.length == 0
    }
}

/// Takes `tokens` after those that the cache has seen, and returns the logits `[vocabulary]` after the last.
///
/// # Errors
/// [`TensorError::Token`], [`TensorError::Position`], or [`TensorError::Batch`] if there is no token.
pub fn decode<F: Float>(
    _model: &Model<F>,
    _cache: &mut Cache<F>,
    _tokens: &[u32],
) -> Result<Vec<F>, TensorError> {
    unimplemented!()
}
