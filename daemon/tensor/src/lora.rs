use std::io::Write;
use std::path::Path;

use moat_contracts::{Architecture, Digest, LinearShape};
use serde_json::{Value, json};

use crate::kernels::{Cpu, Kernels, Matrix, MatrixMut};
use crate::model::Index;
use crate::random::Random;
use crate::{Float, Folder, Parameter, Parameters, StoredType, TensorError, Weights, stored};

/// A low-rank adapter on every linear of every block: `W + alpha/rank * B A`.
#[derive(Clone, Debug)]
pub struct Lora<F: Float = f32> {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) parameters: Parameters<F>,
}

const WEIGHTS: &str = "adapter_model.safetensors";

impl Lora {
    /// The file that every adapter's folder has.
    pub(crate) const CONFIG: &str = "adapter_config.json";

    /// As PEFT starts one: A uniform in ±1/√in (Kaiming's with a = √5), B zero, so that it changes nothing yet.
    pub fn new(architecture: &Architecture, rank: usize, alpha: f64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut parameters = empty(architecture, rank);
        for parameter in parameters.list_mut() {
            let (count, bound) = (parameter.shape.iter().product(), 1.0 / (parameter.shape[1] as f64).sqrt());
            parameter.values = if parameter.name.ends_with("lora_A.weight") {
                (0..count).map(|_| (bound * (2.0 * random.uniform() - 1.0)) as f32).collect()
            } else {
                vec![0.0; count]
            };
        }
        Self { rank, alpha, parameters }
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors` as PEFT writes them, as plain files.
    ///
    /// # Errors
    /// [`TensorError`] names what is missing, or asked for and not supported.
    pub fn load(architecture: &Architecture, dir: &Path) -> Result<Self, TensorError> {
        Self::load_from(architecture, &Folder::plain(dir))
    }

    /// [`Lora::load`] from files that may be sealed.
    ///
    /// # Errors
    /// Those of [`Lora::load`] and of [`Folder::read`].
    pub fn load_from(architecture: &Architecture, folder: &Folder) -> Result<Self, TensorError> {
        let format = |reason: String| folder.damaged(Self::CONFIG, reason);
        let config: Value =
            serde_json::from_slice(&folder.read(Self::CONFIG)?).map_err(|error| format(error.to_string()))?;
        supported(&config).map_err(&format)?;
        let rank = config["r"].as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|rank| *rank > 0);
        let rank = rank.ok_or_else(|| format("it has no usable `r`".to_owned()))?;
        let alpha = config["lora_alpha"]
            .as_f64()
            .ok_or_else(|| format("it has no usable `lora_alpha`".to_owned()))?;
        let mut parameters = empty(architecture, rank);
        let mut found = vec![false; parameters.list().len()];
        stored::read_into(&folder.read(WEIGHTS)?, &mut parameters, &mut found, |_| false)
            .map_err(|error| error.at(&folder.place(WEIGHTS)))?;
        stored::all_found(&parameters, &found)?;
        Ok(Self { rank, alpha, parameters })
    }

    /// Writes both files, each whole or not at all, as PEFT reads them. `base_name` becomes
    /// `base_model_name_or_path`.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save(&self, dir: &Path, base_name: &str) -> Result<(), TensorError> {
        self.save_to(&Folder::plain(dir), base_name).map(drop)
    }

    /// [`Lora::save`] into files that may be sealed. Returns the SHA-256 of the weights' file, before any seal.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save_to(&self, folder: &Folder, base_name: &str) -> Result<Digest, TensorError> {
        let alpha = if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) };
        let config = json!({
            "base_model_name_or_path": base_name,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": self.targets(),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        let named = self.parameters.list().iter().map(|parameter| (parameter.name.clone(), parameter));
        let format = Some(("format", "pt".to_owned()));
        let weights = folder.write(WEIGHTS, |into| stored::write(into, named, StoredType::F32, format))?;
        folder.write(Self::CONFIG, |into| into.write_all(format!("{config:#}\n").as_bytes()))?;
        Ok(weights)
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

    /// The names of the linears, each once, in the order of the forward.
    fn targets(&self) -> Vec<&str> {
        let mut targets = Vec::new();
        for parameter in self.parameters.list() {
            // As in `….self_attn.q_proj.lora_A.weight`.
            if let Some(target) = parameter.name.rsplit('.').nth(2).filter(|target| !targets.contains(target))
            {
                targets.push(target);
            }
        }
        targets
    }

    /// The same adapter as other numbers.
    pub fn cast<G: Float>(&self) -> Lora<G> {
        Lora { rank: self.rank, alpha: self.alpha, parameters: self.parameters.cast() }
    }

    /// Adds the adapter to the weights it was trained on.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] if they are of another architecture.
    pub fn merge(&self, weights: &mut Weights<F>) -> Result<(), TensorError> {
        if !self.parameters.fits(&empty(&weights.architecture, self.rank)) {
            return Err(TensorError::Mismatch);
        }
        let scale = F::from_f64(self.alpha / self.rank as f64);
        let index = Index::new(&weights.architecture);
        for linear in index.blocks.iter().flat_map(|block| &block.linears) {
            let [a, b] = [0, 1].map(|offset| &self.parameters.list()[linear.adapter + offset].values);
            let weight = &mut weights.parameters.list_mut()[linear.weight].values;
            let (a, b) = (Matrix::new(a, linear.inputs), Matrix::new(b, self.rank));
            Cpu.product(MatrixMut::new(weight, linear.inputs), b, a, scale, true);
        }
        Ok(())
    }
}

/// PEFT's names and shapes without values.
fn empty(architecture: &Architecture, rank: usize) -> Parameters {
    let mut list = Vec::new();
    for layer in 0..architecture.layers {
        for LinearShape { name, outputs, inputs, .. } in architecture.linears() {
            let prefix = format!("base_model.model.model.layers.{layer}.{name}");
            for (part, shape) in [("lora_A", vec![rank, inputs]), ("lora_B", vec![outputs, rank])] {
                list.push(Parameter { name: format!("{prefix}.{part}.weight"), shape, values: Vec::new() });
            }
        }
    }
    Parameters::new(list)
}

/// Refuses what would change the forward and is not done here.
fn supported(config: &Value) -> Result<(), String> {
    let refuse = |key: &str| Err(format!("`{key}` = {} is not supported", config[key]));
    if config["peft_type"] != "LORA" {
        return refuse("peft_type");
    }
    if !config["bias"].is_null() && config["bias"] != "none" {
        return refuse("bias");
    }
    let off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let changing = [
        "fan_in_fan_out",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layer_replication",
        "lora_bias",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
    ];
    // PEFT names its variants `use_…` and their settings `…_config`.
    let variant = |key: &str| key.starts_with("use_") || key.ends_with("_config") || changing.contains(&key);
    let keys = config.as_object().into_iter().flat_map(|map| map.keys());
    match keys.filter(|key| variant(key)).find(|key| !off(&config[*key])) {
        Some(key) => refuse(key),
        None => Ok(()),
    }
}
