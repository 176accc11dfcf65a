//! From Hugging Face's `config.json` to an [`Architecture`].

use serde_json::Value;

use super::{Activation, Architecture, ArchitectureError, Family, Rope, RopeScaling, Sliding};

/// What a family's name stands for, where `config.json` does not say it: the defaults of transformers among it.
struct Description {
    /// In `architectures`.
    name: &'static str,
    family: Family,
    /// The key of the activation, and what it is without one.
    activation: (&'static str, &'static str),
    bias: Bias,
    qk_norm: bool,
    /// Norms' weights are stored less one, what is added to the stream is normed, embeddings are scaled, and
    /// `query_pre_attn_scalar` scales the scores.
    gemma: bool,
    /// Caps of scores and logits where no key says them.
    caps: [Option<f64>; 2],
    slides: Slides,
    /// The window where no key says it.
    window: Option<usize>,
    fused: bool,
    max_position: usize,
    theta: f64,
    /// The base of the frequencies where a block slides, if it is another.
    local_theta: Option<f64>,
    /// Whether the head is the embedding where no key says it.
    tied: bool,
}

/// Which of the attention's linears have a bias.
#[derive(Clone, Copy, PartialEq)]
enum Bias {
    None,
    /// All of them, where `attention_bias` says so.
    Asked,
    /// q, k and v.
    Queries,
}

/// Which blocks slide, where `sliding_window` gives a window and no `layer_types` says more.
#[derive(Clone, Copy, PartialEq)]
enum Slides {
    None,
    All,
    /// Those from `max_window_layers` on, where `use_sliding_window` says so.
    From,
    /// All but every n-th; `sliding_window_pattern` may say n.
    But(u64),
}

const LLAMA: Description = Description {
    name: "LlamaForCausalLM",
    family: Family::Llama,
    activation: ("hidden_act", "silu"),
    bias: Bias::Asked,
    qk_norm: false,
    gemma: false,
    caps: [None; 2],
    slides: Slides::None,
    window: None,
    fused: false,
    max_position: 2048,
    theta: 1e4,
    local_theta: None,
    tied: false,
};

const GEMMA2: Description = Description {
    name: "Gemma2ForCausalLM",
    family: Family::Gemma2,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    gemma: true,
    caps: [Some(50.0), Some(30.0)],
    slides: Slides::But(2),
    window: Some(4096),
    max_position: 8192,
    tied: true,
    ..LLAMA
};

const FAMILIES: [Description; 7] = [
    LLAMA,
    Description {
        name: "MistralForCausalLM",
        family: Family::Mistral,
        bias: Bias::None,
        slides: Slides::All,
        window: Some(4096),
        max_position: 131_072,
        ..LLAMA
    },
    Description {
        name: "Qwen2ForCausalLM",
        family: Family::Qwen2,
        bias: Bias::Queries,
        slides: Slides::From,
        window: Some(4096),
        max_position: 32_768,
        ..LLAMA
    },
    Description {
        name: "Qwen3ForCausalLM",
        family: Family::Qwen3,
        qk_norm: true,
        slides: Slides::From,
        window: Some(4096),
        max_position: 32_768,
        ..LLAMA
    },
    GEMMA2,
    Description {
        name: "Gemma3ForCausalLM",
        family: Family::Gemma3,
        qk_norm: true,
        caps: [None; 2],
        slides: Slides::But(6),
        max_position: 131_072,
        theta: 1e6,
        local_theta: Some(1e4),
        ..GEMMA2
    },
    Description {
        name: "Phi3ForCausalLM",
        family: Family::Phi3,
        bias: Bias::None,
        slides: Slides::All,
        fused: true,
        max_position: 4096,
        ..LLAMA
    },
];

/// What sets an architecture apart that is not among [`FAMILIES`], by the keys that give it away.
const MISSING: [(&[&str], &str); 5] = [
    (&["vision_config", "vision_tower"], "it has a vision part, and Moat computes text alone"),
    (&["audio_config", "audio_processor"], "it has an audio part, and Moat computes text alone"),
    (
        &["num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size"],
        "its blocks route tokens to experts, which Moat does not compute",
    ),
    (
        &["state_size", "ssm_cfg", "mamba_d_state", "linear_num_key_heads"],
        "its blocks carry a recurrent state, which Moat does not compute",
    ),
    (&["encoder_layers", "num_decoder_layers"], "it has an encoder, which Moat does not compute"),
];

/// The names of all families, for an error.
pub(super) fn names() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// A parsed `config.json`.
struct Config<'a>(&'a Value);

impl Config<'_> {
    fn size(&self, key: &'static str) -> Result<usize, ArchitectureError> {
        let value = self.0[key].as_u64().filter(|value| (1..=1 << 32).contains(value));
        value.and_then(|value| usize::try_from(value).ok()).ok_or(ArchitectureError::Key(key))
    }

    fn size_or(&self, key: &'static str, default: usize) -> Result<usize, ArchitectureError> {
        if self.0[key].is_null() { Ok(default) } else { self.size(key) }
    }

    fn number_or(&self, key: &'static str, default: f64) -> Result<f64, ArchitectureError> {
        if self.0[key].is_null() { Ok(default) } else { positive(&self.0[key], key) }
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool, ArchitectureError> {
        match &self.0[key] {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(*value),
            _ => Err(ArchitectureError::Key(key)),
        }
    }

    /// What is switched off by `null`, which is something else than a key that is not there.
    fn optional<T>(
        &self,
        key: &'static str,
        default: Option<T>,
        read: impl Fn(&Self, &'static str) -> Result<T, ArchitectureError>,
    ) -> Result<Option<T>, ArchitectureError> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => read(self, key).map(Some),
        }
    }
}

impl Architecture {
    /// Reads Hugging Face's `config.json`, both the layout of transformers 4 (`rope_theta`, `rope_scaling`) and of
    /// 5 (`rope_parameters`). Nothing that changes the forward is ignored: what is not known is refused.
    ///
    /// # Errors
    /// [`ArchitectureError`] names the family, the key or the value that cannot be honoured.
    pub fn from_config(json: &str) -> Result<Self, ArchitectureError> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| ArchitectureError::Json(error.to_string()))?;
        if !value.is_object() {
            return Err(ArchitectureError::Json("it holds another value".to_owned()));
        }
        let config = Config(&value);
        let of = family(&value)?;
        refuse(&config, of)?;
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.size_or("num_key_value_heads", heads)?;
        let head_dim = config.size_or("head_dim", if of.gemma { 256 } else { hidden / heads })?;
        if heads % kv_heads != 0 {
            let remedy = "it must divide num_attention_heads";
            return Err(unsupported("num_key_value_heads", &kv_heads.to_string(), remedy));
        }
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(unsupported("head_dim", &head_dim.to_string(), "it must be even"));
        }
        let activation = match value[of.activation.0].as_str().unwrap_or(of.activation.1) {
            "silu" => Activation::Silu,
            "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => return Err(unsupported(of.activation.0, other, "only silu and gelu_pytorch_tanh")),
        };
        let layers = config.size("num_hidden_layers")?;
        let positions = config.size_or("max_position_embeddings", of.max_position)?;
        let (rope, max_position, local) = ropes(&config, of, head_dim, positions)?;
        let asked = of.bias == Bias::Asked && config.flag("attention_bias", false)?;
        let width =
            if of.gemma { config.number_or("query_pre_attn_scalar", 256.0)? } else { head_dim as f64 };
        let cap = |key, default| {
            let read = |config: &Config<'_>, key| positive(&config.0[key], key);
            if of.gemma { config.optional(key, default, read) } else { Ok(None) }
        };
        Ok(Self {
            family: of.family,
            hidden,
            layers,
            heads,
            kv_heads,
            head_dim,
            intermediate: config.size("intermediate_size")?,
            vocabulary: config.size("vocab_size")?,
            max_position,
            norm_epsilon: value["rms_norm_eps"].as_f64().ok_or(ArchitectureError::Key("rms_norm_eps"))?,
            norm_offset: if of.gemma { 1.0 } else { 0.0 },
            output_norms: of.gemma,
            qk_norm: of.qk_norm,
            embedding_scale: if of.gemma { (hidden as f64).sqrt() } else { 1.0 },
            rope,
            sliding: sliding(&config, of, layers, local)?,
            attention_scale: width.sqrt().recip(),
            attention_cap: cap("attn_logit_softcapping", of.caps[0])?,
            logit_cap: cap("final_logit_softcapping", of.caps[1])?,
            activation,
            qkv_bias: asked || of.bias == Bias::Queries,
            output_bias: asked,
            fused: of.fused,
            tied: config.flag("tie_word_embeddings", of.tied)?,
        })
    }
}

fn family(config: &Value) -> Result<&'static Description, ArchitectureError> {
    let name = config["architectures"][0].as_str().ok_or(ArchitectureError::Key("architectures"))?;
    if let Some(known) = FAMILIES.iter().find(|family| family.name == name) {
        return Ok(known);
    }
    let has = |keys: &[&str]| keys.iter().any(|key| !config[*key].is_null());
    let missing = MISSING.iter().find(|(keys, _)| has(keys));
    let missing = missing.map_or("how its blocks compute is not known here", |(_, missing)| missing);
    Err(ArchitectureError::Family { name: name.to_owned(), missing })
}

/// Refuses what would change the forward and is not done here.
fn refuse(config: &Config<'_>, of: &Description) -> Result<(), ArchitectureError> {
    let switched = [
        ("mlp_bias", "only MLPs without biases"),
        ("use_bidirectional_attention", "only models that never look ahead"),
    ];
    for (key, remedy) in switched {
        if config.flag(key, false)? {
            return Err(unsupported(key, "true", remedy));
        }
    }
    let quantised = &config.0["quantization_config"];
    if !quantised.is_null() {
        let remedy = "take the base with its weights as F32, F16 or BF16";
        let method = quantised["quant_method"].as_str().unwrap_or("a method");
        return Err(unsupported("quantization_config", method, remedy));
    }
    if of.family == Family::Gemma3 && !config.0["attn_logit_softcapping"].is_null() {
        let value = config.0["attn_logit_softcapping"].to_string();
        let remedy = "transformers computes Gemma 3 without it: set it to null";
        return Err(unsupported("attn_logit_softcapping", &value, remedy));
    }
    Ok(())
}

/// Which blocks slide. `layer_types` says it where it is there; a family that slides everywhere has none.
fn sliding(
    config: &Config<'_>,
    of: &Description,
    layers: usize,
    rope: Rope,
) -> Result<Option<Sliding>, ArchitectureError> {
    let used = match of.slides {
        Slides::None => false,
        Slides::From => config.flag("use_sliding_window", false)?,
        Slides::All | Slides::But(_) => true,
    };
    let window = if used { config.optional("sliding_window", of.window, Config::size)? } else { None };
    let types = &config.0["layer_types"];
    let which: Vec<bool> = if types.is_null() {
        let from = config.0["max_window_layers"].as_u64().unwrap_or(28);
        let every = config.0["sliding_window_pattern"].as_u64().filter(|every| *every > 0);
        let slides = |layer: u64| match of.slides {
            Slides::None => false,
            Slides::All => true,
            Slides::From => layer >= from,
            Slides::But(own) => !(layer + 1).is_multiple_of(every.unwrap_or(own)),
        };
        (0..layers as u64).map(slides).collect()
    } else {
        let types = types.as_array().filter(|types| types.len() == layers);
        let types = types.ok_or(ArchitectureError::Key("layer_types"))?;
        types
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => {
                    let remedy = "only full_attention and sliding_attention";
                    Err(unsupported("layer_types", &kind.to_string(), remedy))
                }
            })
            .collect::<Result<_, _>>()?
    };
    match window {
        Some(window) if which.contains(&true) => {
            // Ministral alternates under Mistral's name; transformers computes it under its own only.
            if of.slides == Slides::All && which.contains(&false) {
                let remedy = "in this family every block slides or none does";
                return Err(unsupported("layer_types", "full_attention", remedy));
            }
            Ok(Some(Sliding { window, rope, layers: which }))
        }
        None if !types.is_null() && which.contains(&true) => Err(ArchitectureError::Key("sliding_window")),
        _ => Ok(None),
    }
}

/// How positions turn heads, how many there may be, and how they turn heads where a block slides.
fn ropes(
    config: &Config<'_>,
    of: &Description,
    head_dim: usize,
    positions: usize,
) -> Result<(Rope, usize, Rope), ArchitectureError> {
    let all = config.0;
    let parameters = &all["rope_parameters"];
    // One set of parameters for each kind of block, or one for all.
    let layered = parameters["full_attention"].is_object() || parameters["sliding_attention"].is_object();
    let parameters = if layered { &parameters["full_attention"] } else { parameters };
    let scaling = if parameters.is_null() { &all["rope_scaling"] } else { parameters };
    let theta = [&parameters["rope_theta"], &all["rope_theta"]];
    let theta = first_of(&theta, "rope_theta", of.theta)?;
    let share = [&parameters["partial_rotary_factor"], &all["partial_rotary_factor"]];
    let share = first_of(&share, "partial_rotary_factor", 1.0)?;
    let width = (head_dim as f64 * share) as usize;
    if (share != 1.0 && of.family != Family::Phi3)
        || width > head_dim
        || width < 2
        || !width.is_multiple_of(2)
    {
        let remedy = "only Phi-3 turns a part of a head, an even number of components";
        return Err(unsupported("partial_rotary_factor", &share.to_string(), remedy));
    }
    let (scaling, max_position) = rope_scaling(config, scaling, of, width, positions)?;
    let rope = Rope { theta, scaling, width };
    let Some(local_theta) = of.local_theta else {
        let local = rope.clone();
        return Ok((rope, max_position, local));
    };
    let parameters = if layered { &all["rope_parameters"]["sliding_attention"] } else { &Value::Null };
    let theta = [&parameters["rope_theta"], &all["rope_local_base_freq"]];
    let theta = first_of(&theta, "rope_local_base_freq", local_theta)?;
    let (scaling, _) = rope_scaling(config, parameters, of, width, positions)?;
    Ok((rope, max_position, Rope { theta, scaling, width }))
}

/// The scaling, and how many positions it leaves.
fn rope_scaling(
    config: &Config<'_>,
    scaling: &Value,
    of: &Description,
    width: usize,
    positions: usize,
) -> Result<(Option<RopeScaling>, usize), ArchitectureError> {
    let number = |key: &'static str| positive(&scaling[key], key);
    let named = if scaling["rope_type"].is_null() { &scaling["type"] } else { &scaling["rope_type"] };
    let original = "original_max_position_embeddings";
    let scaling = match named.as_str().unwrap_or("default") {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: scaling[original].as_u64().ok_or(ArchitectureError::Key(original))?,
        }),
        "longrope" | "su" if of.family == Family::Phi3 => {
            let divisors = scaling["short_factor"].as_array().filter(|list| list.len() == width / 2);
            let divisors = divisors.ok_or(ArchitectureError::Key("short_factor"))?;
            let divisors = divisors.iter().map(|divisor| positive(divisor, "short_factor"));
            let divisors = divisors.collect::<Result<_, _>>()?;
            let first = if scaling[original].is_null() {
                config.size(original)
            } else {
                Config(scaling).size(original)
            };
            let first = first?;
            let factor =
                if scaling["factor"].is_null() { positions as f64 / first as f64 } else { number("factor")? };
            let attention_factor = if !scaling["attention_factor"].is_null() {
                number("attention_factor")?
            } else if factor <= 1.0 {
                1.0
            } else {
                (1.0 + factor.ln() / (first as f64).ln()).sqrt()
            };
            return Ok((Some(RopeScaling::LongRope { divisors, attention_factor }), positions.min(first)));
        }
        other => {
            return Err(unsupported(
                "rope_type",
                other,
                "only default, linear, llama3, and longrope for Phi-3",
            ));
        }
    };
    Ok((scaling, positions))
}

/// The first that is there.
fn first_of(values: &[&Value], key: &'static str, default: f64) -> Result<f64, ArchitectureError> {
    values.iter().find(|value| !value.is_null()).map_or(Ok(default), |value| positive(value, key))
}

fn positive(value: &Value, key: &'static str) -> Result<f64, ArchitectureError> {
    value.as_f64().filter(|value| value.is_finite() && *value > 0.0).ok_or(ArchitectureError::Key(key))
}

fn unsupported(key: &'static str, value: &str, remedy: &'static str) -> ArchitectureError {
    ArchitectureError::Unsupported { key, value: value.to_owned(), remedy }
}
