use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A family of decoder-only transformers that Moat trains and serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `LlamaForCausalLM`.
    Llama,
    /// `Qwen2ForCausalLM`: biases on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: RMS norm on each head of q and k.
    Qwen3,
}

/// How rotary frequencies are stretched beyond the length that the base was trained at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are stretched.
    pub rope_scaling: Option<RopeScaling>,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// RMS norm on each head of q and k.
    pub qk_norm: bool,
    /// The head is the embedding.
    pub tied: bool,
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
    #[error(
        "architecture `{0}` is not supported: Moat trains LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM"
    )]
    Family(String),
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
    /// Reads Hugging Face's `config.json`, both the layout of transformers 4 (`rope_theta`, `rope_scaling`) and of
    /// 5 (`rope_parameters`). Nothing that changes the forward is ignored: what is not known is refused.
    ///
    /// # Errors
    /// [`ArchitectureError`] names the family, the key or the value that cannot be honoured.
    pub fn from_config(json: &str) -> Result<Self, ArchitectureError> {
        let config: Value =
            serde_json::from_str(json).map_err(|error| ArchitectureError::Json(error.to_string()))?;
        if !config.is_object() {
            return Err(ArchitectureError::Json("it holds another value".to_owned()));
        }
        let name = config["architectures"][0].as_str().ok_or(ArchitectureError::Key("architectures"))?;
        let family = match name {
            "LlamaForCausalLM" => Family::Llama,
            "Qwen2ForCausalLM" => Family::Qwen2,
            "Qwen3ForCausalLM" => Family::Qwen3,
            other => return Err(ArchitectureError::Family(other.to_owned())),
        };
        let size = |key: &'static str| {
            let value = config[key].as_u64().filter(|value| (1..=1 << 32).contains(value));
            value.and_then(|value| usize::try_from(value).ok()).ok_or(ArchitectureError::Key(key))
        };
        let size_or =
            |key: &'static str, default: usize| if config[key].is_null() { Ok(default) } else { size(key) };
        let flag = |key: &'static str, default: bool| match &config[key] {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(*value),
            _ => Err(ArchitectureError::Key(key)),
        };
        if let Some(activation) = config["hidden_act"].as_str().filter(|activation| *activation != "silu") {
            return Err(unsupported("hidden_act", activation, "only silu"));
        }
        if flag("mlp_bias", false)? {
            return Err(unsupported("mlp_bias", "true", "only MLPs without biases"));
        }
        if flag("use_sliding_window", false)? {
            return Err(unsupported(
                "use_sliding_window",
                "true",
                "set it to false where the context stays below the window",
            ));
        }
        let hidden = size("hidden_size")?;
        let heads = size("num_attention_heads")?;
        let kv_heads = size_or("num_key_value_heads", heads)?;
        let head_dim = size_or("head_dim", hidden / heads)?;
        if heads % kv_heads != 0 {
            return Err(unsupported(
                "num_key_value_heads",
                &kv_heads.to_string(),
                "it must divide num_attention_heads",
            ));
        }
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(unsupported("head_dim", &head_dim.to_string(), "it must be even"));
        }
        let attention_bias = flag("attention_bias", false)?;
        let norm_epsilon = config["rms_norm_eps"].as_f64().ok_or(ArchitectureError::Key("rms_norm_eps"))?;
        let parameters = &config["rope_parameters"];
        let theta = if parameters["rope_theta"].is_null() {
            &config["rope_theta"]
        } else {
            &parameters["rope_theta"]
        };
        let rope_theta = if theta.is_null() {
            10_000.0
        } else {
            theta.as_f64().ok_or(ArchitectureError::Key("rope_theta"))?
        };
        let scaling = if parameters.is_null() { &config["rope_scaling"] } else { parameters };
        Ok(Self {
            family,
            hidden,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            intermediate: size("intermediate_size")?,
            vocabulary: size("vocab_size")?,
            max_position: size_or("max_position_embeddings", 2048)?,
            norm_epsilon,
            rope_theta,
            rope_scaling: rope_scaling(scaling)?,
            qkv_bias: family == Family::Qwen2 || attention_bias,
            output_bias: family != Family::Qwen2 && attention_bias,
            qk_norm: family == Family::Qwen3,
            tied: flag("tie_word_embeddings", false)?,
        })
    }

    /// Every linear of one block as (name without `.weight`, shape `[out, in]`), in the order of the forward. These
    /// are the ones that carry a LoRA.
    pub fn linears(&self) -> [(&'static str, [usize; 2]); 7] {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            ("self_attn.q_proj", [query, self.hidden]),
            ("self_attn.k_proj", [key, self.hidden]),
            ("self_attn.v_proj", [key, self.hidden]),
            ("self_attn.o_proj", [self.hidden, query]),
            ("mlp.gate_proj", [self.intermediate, self.hidden]),
            ("mlp.up_proj", [self.intermediate, self.hidden]),
            ("mlp.down_proj", [self.hidden, self.intermediate]),
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
            for (name, shape) in self.linears() {
                add(format!("{prefix}.{name}.weight"), &shape);
                let output = name == "self_attn.o_proj";
                let biased =
                    if output { self.output_bias } else { name.starts_with("self_attn") && self.qkv_bias };
                if biased {
                    add(format!("{prefix}.{name}.bias"), &shape[..1]);
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

    /// Parameters in all.
    pub fn parameters(&self) -> u64 {
        self.tensors()
            .iter()
            .map(|tensor| tensor.shape.iter().map(|size| *size as u64).product::<u64>())
            .sum()
    }
}

fn unsupported(key: &'static str, value: &str, remedy: &'static str) -> ArchitectureError {
    ArchitectureError::Unsupported { key, value: value.to_owned(), remedy }
}

fn rope_scaling(scaling: &Value) -> Result<Option<RopeScaling>, ArchitectureError> {
    if scaling.is_null() {
        return Ok(None);
    }
    let number = |key: &'static str| scaling[key].as_f64().ok_or(ArchitectureError::Key(key));
    let named = if scaling["rope_type"].is_null() { &scaling["type"] } else { &scaling["rope_type"] };
    match named.as_str().unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: number("factor")? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: scaling["original_max_position_embeddings"]
                .as_u64()
                .ok_or(ArchitectureError::Key("original_max_position_embeddings"))?,
        })),
        other => Err(unsupported("rope_type", other, "only default, linear and llama3")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Architecture, ArchitectureError, RopeScaling};

    fn qwen2() -> serde_json::Value {
        serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 128,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})
    }

    #[test]
    fn both_layouts_of_rope_are_read() {
        let new = Architecture::from_config(&qwen2().to_string()).unwrap();
        assert_eq!(
            (new.rope_theta, new.rope_scaling, new.qkv_bias, new.output_bias),
            (1e6, None, true, false)
        );
        let mut config = qwen2();
        config.as_object_mut().unwrap().remove("rope_parameters");
        config["rope_theta"] = 500.0.into();
        config["rope_scaling"] = serde_json::json!({"type": "linear", "factor": 4.0});
        let old = Architecture::from_config(&config.to_string()).unwrap();
        assert_eq!((old.rope_theta, old.rope_scaling), (500.0, Some(RopeScaling::Linear { factor: 4.0 })));
    }

    #[test]
    fn parameters_are_those_of_the_formula() {
        let model = Architecture::from_config(&qwen2().to_string()).unwrap();
        let block = 64 * 64 * 2 + 64 * 32 * 2 + 64 + 32 * 2 + 3 * 64 * 96 + 2 * 64;
        assert_eq!(model.parameters(), 128 * 64 + 2 * block + 64);
    }

    #[test]
    fn what_would_change_the_forward_is_refused() {
        for (key, value) in [
            ("hidden_act", serde_json::json!("gelu")),
            ("mlp_bias", true.into()),
            ("num_key_value_heads", 3.into()),
            ("rope_parameters", serde_json::json!({"rope_type": "yarn", "rope_theta": 1e4})),
        ] {
            let mut config = qwen2();
            config[key] = value;
            let error = Architecture::from_config(&config.to_string()).unwrap_err();
            assert!(matches!(error, ArchitectureError::Unsupported { .. }), "{key}: {error}");
        }
        let mut config = qwen2();
        config["architectures"] = serde_json::json!(["MambaForCausalLM"]);
        assert!(Architecture::from_config(&config.to_string()).unwrap_err().to_string().contains("Mamba"));
    }
}
