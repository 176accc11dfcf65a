use moat_contracts::{Architecture, Precision};

use crate::linear::{Linear, LowRank, Weight};
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

    /// A linear, with its part of the adapter where there is one.
    pub(crate) fn linear(&self, linear: &LinearIndex) -> Linear<'_, F> {
        let values = |index: usize| self.weights.parameters.list()[index].values.as_slice();
        let adapter = self.adapter.as_ref().and_then(|adapter| {
            let (list, first) = (adapter.parameters.list(), adapter.first(linear)?);
            let scale = F::from_f64(adapter.scale());
            let magnitude = adapter.decomposed.then(|| list[first + 2].values.as_slice());
            let (a, b) = (&list[first].values, &list[first + 1].values);
            Some(LowRank { a, b, rank: adapter.rank, scale, magnitude })
        });
        let bias = linear.bias.then(|| values(linear.weight + 1));
        let (outputs, inputs) = (linear.outputs, linear.inputs);
        let weight = match &self.weights.held[linear.weight] {
            Some(held) => match held.tiles().filter(|_| self.weights.precision() == Precision::Int8) {
                Some(tiles) => Weight::Tiles(held, tiles),
                None => Weight::Held(held),
            },
            None => Weight::Whole(values(linear.weight)),
        };
        Linear { weight, bias, adapter, outputs, inputs }
    }
}

/// Where a linear's tensors stand in the order of [`Architecture::tensors`].
#[derive(Clone, Debug)]
pub(crate) struct LinearIndex {
    pub(crate) weight: usize,
    /// Whether its bias follows.
    pub(crate) bias: bool,
    pub(crate) layer: usize,
    /// Its place among [`Architecture::linears`].
    pub(crate) slot: usize,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// Where a block's tensors stand.
#[derive(Clone, Debug)]
pub(crate) struct BlockIndex {
    /// Before attention.
    pub(crate) input_norm: usize,
    /// On what attention adds to the stream.
    pub(crate) attention_norm: Option<usize>,
    /// Before the MLP.
    pub(crate) middle_norm: usize,
    /// On what the MLP adds to the stream.
    pub(crate) mlp_norm: Option<usize>,
    /// In the order of [`Architecture::linears`].
    pub(crate) linears: Vec<LinearIndex>,
    /// Norms of the heads of q and k.
    pub(crate) head_norms: Option<(usize, usize)>,
}

impl BlockIndex {
    /// One fused linear, or three, make q, k and v; one or two make the gate and what it gates; one follows each.
    fn fused(&self) -> bool {
        self.linears.len() == 4
    }

    /// Those that make q, k and v.
    pub(crate) fn queries(&self) -> &[LinearIndex] {
        &self.linears[..if self.fused() { 1 } else { 3 }]
    }

    /// The attention's output.
    pub(crate) fn output(&self) -> &LinearIndex {
        &self.linears[self.queries().len()]
    }

    /// Those that make the gate and what it gates.
    pub(crate) fn gates(&self) -> &[LinearIndex] {
        let first = self.queries().len() + 1;
        &self.linears[first..self.linears.len() - 1]
    }

    /// The MLP's output.
    pub(crate) fn down(&self) -> &LinearIndex {
        &self.linears[self.linears.len() - 1]
    }
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
        let shapes = architecture.linears();
        let mut blocks = Vec::with_capacity(architecture.layers);
        for layer in 0..architecture.layers {
            let (input_norm, second) = (step(1), step(1));
            // Where outputs are normed, the second in line is the norm of the attention's.
            let (attention_norm, middle_norm, mlp_norm) = if architecture.output_norms {
                (Some(second), step(1), Some(step(1)))
            } else {
                (None, second, None)
            };
            let linears = shapes.iter().enumerate().map(|(slot, shape)| {
                let weight = step(1 + usize::from(shape.bias));
                let (bias, outputs, inputs) = (shape.bias, shape.outputs, shape.inputs);
                LinearIndex { weight, bias, layer, slot, outputs, inputs }
            });
            let linears = linears.collect();
            let head_norms = architecture.qk_norm.then(|| (step(1), step(1)));
            blocks.push(BlockIndex {
                input_norm,
                attention_norm,
                middle_norm,
                mlp_norm,
                linears,
                head_norms,
            });
        }
        let norm = step(1);
        let head = if architecture.tied { 0 } else { step(1) };
        Self { blocks, norm, head }
    }
}
