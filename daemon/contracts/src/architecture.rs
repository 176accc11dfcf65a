use serde::{Deserialize, Serialize};

mod config;
#[cfg(test)]
mod tests;

/// A family of decoder-only transformers that Moat trains and serves. What sets it apart stands in the fields of
/// [`Architecture`]: nothing computes by a family's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `LlamaForCausalLM`: Llama 2 and 3.
    Llama,
    /// `MistralForCausalLM`: Llama with a sliding window.
    Mistral,
    /// `Qwen2ForCausalLM`: biases on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: RMS norm on each head of q and k.
    Qwen3,
    /// `Gemma2ForCausalLM`: norms on what is added to the stream, capped scores and logits, every other block sliding.
    Gemma2,
    /// `Gemma3ForCausalLM`: Gemma 2 with norms on the heads in place of caps, and rotary frequencies of their own where
    /// a block slides.
    Gemma3,
    /// `Phi3ForCausalLM`: one linear makes q, k and v, and one the gate and what it gates.
    Phi3,
}

/// What the gate of an MLP goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x σ(x)`.
    Silu,
    /// `x σ(2√(2/π) (x + 0.044715 x³))`, which is `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
    GeluTanh,
}

/// How rotary frequencies are stretched beyond the length that the base was trained at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Every frequency divided by the factor (`rope_type = "linear"`).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, in between interpolated (`rope_type = "llama3"`).
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Tokens of context at which the base was first trained.
        original_max_position: u64,
    },
    /// Phi-3's (`rope_type = "longrope"`), as it is up to the length at which the base was first trained: beyond it other
    /// divisors hold for all positions, so that [`Architecture::max_position`] ends there.
    LongRope {
        /// A divisor for each frequency (`short_factor`).
        divisors: Vec<f64>,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
    },
}

/// How positions turn the heads of q and k.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are stretched.
    pub scaling: Option<RopeScaling>,
    /// How many of a head's first components are turned; even.
    pub width: usize,
}

/// Blocks that see only so far back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sliding {
    /// Positions that a token sees, itself among them.
    pub window: usize,
    /// How positions turn heads there.
    pub rope: Rope,
    /// Which blocks these are, one entry a block.
    pub layers: Vec<bool>,
}

/// What `config.json` says of a base: everything that shapes its forward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// The family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Inner width of the gated MLP.
    pub intermediate: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Tokens of context.
    pub max_position: usize,
    /// RMS norm's epsilon.
    pub norm_epsilon: f64,
    /// What is added to every norm's stored weight: 0, or 1.
    pub norm_offset: f64,
    /// RMS norm on what attention and the MLP add to the stream.
    pub output_norms: bool,
    /// RMS norm on each head of q and k.
    pub qk_norm: bool,
    /// What embeddings are multiplied by, rounded to the numbers that are computed in, as transformers does.
    pub embedding_scale: f64,
    /// How positions turn heads, but where a block slides.
    pub rope: Rope,
    /// Blocks that see only so far back.
    pub sliding: Option<Sliding>,
    /// What `q·k` is multiplied by.
    pub attention_scale: f64,
    /// Scores `s` become `c tanh(s/c)`.
    pub attention_cap: Option<f64>,
    /// Logits `z` become `c tanh(z/c)`.
    pub logit_cap: Option<f64>,
    /// What the gate of the MLP goes through.
    pub activation: Activation,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// One linear makes q, k and v, and one the gate and what it gates.
    pub fused: bool,
    /// The head is the embedding.
    pub tied: bool,
}

/// One linear of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Its name within the block, without `.weight`.
    pub name: &'static str,
    /// Rows of its weight.
    pub outputs: usize,
    /// Columns of its weight.
    pub inputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// A tensor that a folder of weights must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name in safetensors.
    pub name: String,
    /// Its shape, `[out, in]` for a linear.
    pub shape: Vec<usize>,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// No JSON, or no object.
    #[error("config.json is no JSON object: {0}")]
    Json(String),
    /// A family that Moat does not train.
    #[error("architecture `{name}` is not supported, since {missing}: Moat trains {}", config::names())]
    Family {
        /// What `architectures` says.
        name: String,
        /// What it would take.
        missing: &'static str,
    },
    /// A key is missing or of the wrong type.
    #[error("config.json lacks a usable `{0}`")]
    Key(&'static str),
    /// A value that Moat cannot honour.
    #[error("config.json has {key} = {value}, which Moat does not support: {remedy}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What would work.
        remedy: &'static str,
    },
}

impl Architecture {
    /// Every linear of one block, in the order of the forward: those that make q, k and v, the attention's output, those
    /// that make the gate and what it gates, the MLP's output. These are the ones that carry a LoRA.
    pub fn linears(&self) -> Vec<LinearShape> {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let linear = |name, outputs, inputs, bias| LinearShape { name, outputs, inputs, bias };
        let output = linear("self_attn.o_proj", self.hidden, query, self.output_bias);
        let down = linear("mlp.down_proj", self.hidden, self.intermediate, false);
        if self.fused {
            return vec![
                linear("self_attn.qkv_proj", query + 2 * key, self.hidden, self.qkv_bias),
                output,
                linear("mlp.gate_up_proj", 2 * self.intermediate, self.hidden, false),
                down,
            ];
        }
        vec![
            linear("self_attn.q_proj", query, self.hidden, self.qkv_bias),
            linear("self_attn.k_proj", key, self.hidden, self.qkv_bias),
            linear("self_attn.v_proj", key, self.hidden, self.qkv_bias),
            output,
            linear("mlp.gate_proj", self.intermediate, self.hidden, false),
            linear("mlp.up_proj", self.intermediate, self.hidden, false),
            down,
        ]
    }

    /// Every tensor of the model, under the names of Hugging Face.
    pub fn tensors(&self) -> Vec<TensorShape> {
        let mut tensors = Vec::new();
        let mut add =
            |name: String, shape: &[usize]| tensors.push(TensorShape { name, shape: shape.to_vec() });
        add("model.embed_tokens.weight".to_owned(), &[self.vocabulary, self.hidden]);
        for layer in 0..self.layers {
            let prefix = format!("model.layers.{layer}");
            add(format!("{prefix}.input_layernorm.weight"), &[self.hidden]);
            add(format!("{prefix}.post_attention_layernorm.weight"), &[self.hidden]);
            if self.output_norms {
                add(format!("{prefix}.pre_feedforward_layernorm.weight"), &[self.hidden]);
                add(format!("{prefix}.post_feedforward_layernorm.weight"), &[self.hidden]);
            }
            for LinearShape { name, outputs, inputs, bias } in self.linears() {
                add(format!("{prefix}.{name}.weight"), &[outputs, inputs]);
                if bias {
                    add(format!("{prefix}.{name}.bias"), &[outputs]);
                }
            }
            if self.qk_norm {
                add(format!("{prefix}.self_attn.q_norm.weight"), &[self.head_dim]);
                add(format!("{prefix}.self_attn.k_norm.weight"), &[self.head_dim]);
            }
        }
        add("model.norm.weight".to_owned(), &[self.hidden]);
        if !self.tied {
            add("lm_head.weight".to_owned(), &[self.vocabulary, self.hidden]);
        }
        tensors
    }

    /// What a block sees of the past, and how positions turn heads there: where it slides, as it slides.
    pub fn sliding(&self, layer: usize) -> Option<&Sliding> {
        self.sliding.as_ref().filter(|sliding| sliding.layers.get(layer) == Some(&true))
    }

    /// Parameters in all.
    pub fn parameters(&self) -> u64 {
        self.tensors()
            .iter()
            .map(|tensor| tensor.shape.iter().map(|size| *size as u64).product::<u64>())
            .sum()
    }
}
