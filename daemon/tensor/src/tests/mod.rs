//! Small models of each family, and what holds of all of them.

use moat_contracts::Architecture;
use serde_json::json;

use crate::random::Random;
use crate::{Batch, IGNORE, Lora, Model, Weights};

mod formulas;
mod frozen;
mod gradients;
mod properties;
mod storage;
mod workers;

/// A small model of each kind that differs in the code it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Llama,
    /// Its second block slides.
    Qwen2,
    Qwen3,
    /// Llama with biases on all of attention and an untied head.
    Biased,
    Mistral,
    Gemma2,
    Gemma3,
    Phi3,
}

pub(crate) const KINDS: [Kind; 8] = [
    Kind::Llama,
    Kind::Qwen2,
    Kind::Qwen3,
    Kind::Biased,
    Kind::Mistral,
    Kind::Gemma2,
    Kind::Gemma3,
    Kind::Phi3,
];

/// A `config.json`. Windows are shorter than the texts of the tests, and caps low enough to bend scores and logits.
pub(crate) fn config(kind: Kind) -> serde_json::Value {
    let (name, own) = match kind {
        Kind::Llama => ("LlamaForCausalLM", json!({ "num_key_value_heads": 1 })),
        Kind::Qwen2 => (
            "Qwen2ForCausalLM",
            json!({
                "tie_word_embeddings": true, "use_sliding_window": true, "sliding_window": 5,
                "max_window_layers": 1,
            }),
        ),
        Kind::Qwen3 => ("Qwen3ForCausalLM", json!({ "head_dim": 6, "tie_word_embeddings": true })),
        Kind::Biased => ("LlamaForCausalLM", json!({ "attention_bias": true })),
        Kind::Mistral => ("MistralForCausalLM", json!({ "sliding_window": 4 })),
        Kind::Gemma2 => (
            "Gemma2ForCausalLM",
            json!({
                "query_pre_attn_scalar": 7, "sliding_window": 6, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            }),
        ),
        Kind::Gemma3 => (
            "Gemma3ForCausalLM",
            json!({
                "query_pre_attn_scalar": 5, "sliding_window": 5, "sliding_window_pattern": 2,
                "rope_local_base_freq": 500.0, "rope_scaling": { "rope_type": "linear", "factor": 4.0 },
            }),
        ),
        Kind::Phi3 => (
            "Phi3ForCausalLM",
            json!({
                "head_dim": 8, "partial_rotary_factor": 0.75, "max_position_embeddings": 512,
                "original_max_position_embeddings": 256,
                "rope_scaling": {
                    "type": "longrope", "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0],
                },
            }),
        ),
    };
    let mut config = json!({
        "architectures": [name], "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 10, "vocab_size": 17,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0,
    });
    for (key, value) in own.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

pub(crate) fn tiny(kind: Kind) -> Architecture {
    Architecture::from_config(&config(kind).to_string()).unwrap()
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
