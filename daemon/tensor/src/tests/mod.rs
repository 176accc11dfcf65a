//! Small models of each family, and what holds of all of them.

use moat_contracts::{Architecture, Family};

use crate::random::Random;
use crate::{Batch, IGNORE, Lora, Model, Weights};

mod formulas;
mod gradients;
mod properties;
mod storage;
mod workers;

/// A small model of each kind that differs in the code it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Llama,
    Qwen2,
    Qwen3,
    /// Llama with biases on all of attention and an untied head.
    Biased,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Llama, Kind::Qwen2, Kind::Qwen3, Kind::Biased];

pub(crate) fn tiny(kind: Kind) -> Architecture {
    Architecture {
        family: match kind {
            Kind::Llama | Kind::Biased => Family::Llama,
            Kind::Qwen2 => Family::Qwen2,
            Kind::Qwen3 => Family::Qwen3,
        },
        hidden: 12,
        layers: 2,
        heads: 4,
        kv_heads: if kind == Kind::Llama { 1 } else { 2 },
        head_dim: if kind == Kind::Qwen3 { 6 } else { 4 },
        intermediate: 10,
        vocabulary: 17,
        max_position: 256,
        norm_epsilon: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        qkv_bias: matches!(kind, Kind::Qwen2 | Kind::Biased),
        output_bias: kind == Kind::Biased,
        qk_norm: kind == Kind::Qwen3,
        tied: matches!(kind, Kind::Qwen2 | Kind::Qwen3),
    }
}

/// Weights and adapters with nothing at its starting value, so that no gradient is zero by accident.
pub(crate) fn model(architecture: Architecture, rank: Option<usize>, seed: u64) -> Model {
    let mut random = Random::new(seed);
    let adapter = rank.map(|rank| Lora::new(&architecture, rank, 2.0 * rank as f64, seed));
    let mut model = Model { weights: Weights::random(architecture, seed), adapter };
    let stir = |parameters: &mut crate::Parameters, random: &mut Random| {
        for parameter in parameters.list_mut() {
            for value in &mut parameter.values {
                *value += (0.3 * random.normal()) as f32;
            }
        }
    };
    stir(&mut model.weights.parameters, &mut random);
    if let Some(adapter) = &mut model.adapter {
        stir(&mut adapter.parameters, &mut random);
    }
    model
}

/// Segments of these lengths with random tokens; every fifth position and each segment's last are not trained.
pub(crate) fn batch(lengths: &[usize], vocabulary: usize, seed: u64) -> Batch {
    let mut random = Random::new(seed);
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for length in lengths {
        let tokens: Vec<u32> = (0..*length).map(|_| (random.uniform() * vocabulary as f64) as u32).collect();
        let one = Batch::sequence(&tokens);
        batch
            .targets
            .extend(one.targets.iter().enumerate().map(|(i, t)| if i % 5 == 3 { IGNORE } else { *t }));
        batch.tokens.extend(one.tokens);
        batch.segments.push(batch.tokens.len());
    }
    batch
}
