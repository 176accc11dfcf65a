use moat_contracts::Architecture;

use crate::linear::{Linear, LowRank};
use crate::{Float, Lora, Parameters, Weights};

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

    /// The same model as other numbers.
    pub fn cast<G: Float>(&self) -> Model<G> {
        Model { weights: self.weights.cast(), adapter: self.adapter.as_ref().map(Lora::cast) }
    }

    /// Linear `slot` of a block, in the order of [`Architecture::linears`].
    pub(crate) fn linear(&self, block: &BlockIndex, layer: usize, slot: usize) -> Linear<'_, F> {
        let values = |index: usize| self.weights.parameters.list()[index].values.as_slice();
        let (weight, biased) = block.linears[slot];
        let [outputs, inputs] = self.weights.architecture.linears()[slot].1;
        let adapter = self.adapter.as_ref().and_then(|adapter| {
            let (list, first) = (adapter.parameters.list(), adapter.first(layer, slot)?);
            let scale = F::from_f64(adapter.scale());
            Some(LowRank { a: &list[first].values, b: &list[first + 1].values, rank: adapter.rank, scale })
        });
        let bias = biased.then(|| values(weight + 1));
        Linear { weight: values(weight), bias, adapter, outputs, inputs }
    }
}

/// Where a block's tensors stand in the order of [`Architecture::tensors`].
#[derive(Clone, Debug)]
pub(crate) struct BlockIndex {
    pub(crate) input_norm: usize,
    pub(crate) post_norm: usize,
    /// Weight, and whether its bias follows.
    pub(crate) linears: [(usize, bool); 7],
    /// Norms of the heads of q and k.
    pub(crate) head_norms: Option<(usize, usize)>,
}

/// Where all tensors stand; the embedding is the first.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) blocks: Vec<BlockIndex>,
    pub(crate) norm: usize,
    /// The embedding itself where the head is tied to it.
    pub(crate) head: usize,
}

impl Index {
    pub(crate) fn new(architecture: &Architecture) -> Self {
        let mut next = 1;
        let mut step = |count: usize| {
            next += count;
            next - count
        };
        let mut blocks = Vec::with_capacity(architecture.layers);
        for _ in 0..architecture.layers {
            let (input_norm, post_norm) = (step(1), step(1));
            let linears = architecture.linears().map(|(name, _)| {
                let output = name == "self_attn.o_proj";
                let inner = name.starts_with("self_attn") && !output;
                let biased = (inner && architecture.qkv_bias) || (output && architecture.output_bias);
                (step(1 + usize::from(biased)), biased)
            });
            let head_norms = architecture.qk_norm.then(|| (step(1), step(1)));
            blocks.push(BlockIndex { input_norm, post_norm, linears, head_norms });
        }
        let norm = step(1);
        let head = if architecture.tied { 0 } else { step(1) };
        Self { blocks, norm, head }
    }
}
