use std::io::Write;
use std::path::Path;

use moat_contracts::{Architecture, Digest, LinearShape};
use serde_json::{Value, json};

use crate::kernels::{Cpu, Kernels, Matrix, MatrixMut};
use crate::linear::set_lengths;
use crate::model::{BlockIndex, Index, LinearIndex};
use crate::random::Random;
use crate::{Float, Folder, Parameter, Parameters, StoredType, TensorError, Weights, stored};

/// A low-rank adapter on linears of every block: `W + s B A` with `s = alpha/rank`, or `alpha/√rank` where it is
/// rank-stabilised; decomposed, the rows of that sum have lengths that are learnt (DoRA).
#[derive(Clone, Debug)]
pub struct Lora<F: Float = f32> {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    stabilized: bool,
    /// Whether there is a magnitude beside each A and B.
    pub(crate) decomposed: bool,
    /// Which of [`Architecture::linears`] carry it.
    carried: Vec<bool>,
    pub(crate) parameters: Parameters<F>,
}

/// What a new adapter is to be like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraShape<'a> {
    /// Rank of A and B.
    pub rank: usize,
    /// The scale's numerator.
    pub alpha: f64,
    /// Scale by `alpha/√rank` instead of `alpha/rank` (rsLoRA: Kalajdzievski, arXiv 2312.03732).
    pub rank_stabilized: bool,
    /// Learn the lengths of the sum's rows apart from their directions (DoRA: Liu et al., arXiv 2402.09353).
    pub decomposed: bool,
    /// Last parts of the names of the linears that carry it, such as `q_proj`; empty for all of them.
    pub targets: &'a [String],
}

const WEIGHTS: &str = "adapter_model.safetensors";

impl Lora {
    /// The file that every adapter's folder has.
    pub(crate) const CONFIG: &str = "adapter_config.json";

    /// As PEFT starts one: A uniform in ±1/√in (Kaiming's with a = √5), B zero, so that it changes nothing yet.
    pub fn new(architecture: &Architecture, rank: usize, alpha: f64, seed: u64) -> Self {
        let shape = LoraShape { rank, alpha, rank_stabilized: false, decomposed: false, targets: &[] };
        Self::started(architecture, shape, vec![true; architecture.linears().len()], seed)
    }

    /// [`Lora::new`] of another shape. The magnitudes of a decomposed one are 1 until [`Lora::measure`] takes them.
    ///
    /// # Errors
    /// [`TensorError::Target`] for a target that the architecture does not have.
    pub fn shaped(architecture: &Architecture, shape: LoraShape<'_>, seed: u64) -> Result<Self, TensorError> {
        Ok(Self::started(architecture, shape, carried(architecture, shape.targets)?, seed))
    }

    fn started(architecture: &Architecture, shape: LoraShape<'_>, carried: Vec<bool>, seed: u64) -> Self {
        let LoraShape { rank, alpha, rank_stabilized: stabilized, decomposed, .. } = shape;
        let mut random = Random::new(seed);
        let mut parameters = empty(architecture, rank, decomposed, &carried);
        for parameter in parameters.list_mut() {
            if parameter.shape.len() == 1 {
                parameter.values = vec![1.0; parameter.shape[0]];
                continue;
            }
            let (count, bound) = (parameter.shape.iter().product(), 1.0 / (parameter.shape[1] as f64).sqrt());
            parameter.values = if parameter.name.ends_with("lora_A.weight") {
                (0..count).map(|_| (bound * (2.0 * random.uniform() - 1.0)) as f32).collect()
            } else {
                vec![0.0; count]
            };
        }
        Self { rank, alpha, stabilized, decomposed, carried, parameters }
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
        let stabilized = config["use_rslora"] == true;
        let carried = match &config["target_modules"] {
            Value::Array(names) => {
                let names = names.iter().map(|name| name.as_str().map(ToOwned::to_owned));
                let names: Option<Vec<String>> = names.collect();
                let names = names.filter(|names| !names.is_empty());
                carried(
                    architecture,
                    &names.ok_or_else(|| format("its `target_modules` name none".to_owned()))?,
                )?
            }
            // What is missing of them is told by its tensor.
            Value::Null => carried(architecture, &[])?,
            Value::String(all) if all == "all-linear" => carried(architecture, &[])?,
            _ => return Err(format("its `target_modules` are a pattern: list the modules".to_owned())),
        };
        let decomposed = config["use_dora"] == true;
        let mut parameters = empty(architecture, rank, decomposed, &carried);
        let mut found = vec![false; parameters.list().len()];
        stored::read_into(&folder.read(WEIGHTS)?, &mut parameters, &mut found, |_| false)
            .map_err(|error| error.at(&folder.place(WEIGHTS)))?;
        stored::all_found(&parameters, &found)?;
        Ok(Self { rank, alpha, stabilized, decomposed, carried, parameters })
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
            "use_dora": self.decomposed,
            "use_rslora": self.stabilized,
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

    /// Whether rank, scale and carriers are the same, so that one may go on from where the other is.
    pub fn is_like(&self, other: &Self) -> bool {
        let alike = self.scale().to_bits() == other.scale().to_bits() && self.carried == other.carried;
        alike && self.parameters.fits(&other.parameters)
    }

    /// Whether it scales by `alpha/√rank`.
    pub fn is_rank_stabilized(&self) -> bool {
        self.stabilized
    }

    /// Whether it learns the lengths of the rows.
    pub fn is_decomposed(&self) -> bool {
        self.decomposed
    }

    /// Takes the magnitudes of a decomposed adapter from the weights that it is to be trained on, so that with B = 0 it
    /// changes nothing.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] if they are of another architecture.
    pub fn measure(&mut self, weights: &Weights<F>) -> Result<(), TensorError> {
        if !self.parameters.fits(&empty(&weights.architecture, self.rank, self.decomposed, &self.carried)) {
            return Err(TensorError::Mismatch);
        }
        let index = Index::new(&weights.architecture);
        for linear in index.blocks.iter().flat_map(|block| &block.linears).filter(|_| self.decomposed) {
            let Some(first) = self.first(linear) else { continue };
            let lengths = &mut self.parameters.list_mut()[first + 2].values;
            match &weights.held[linear.weight] {
                Some(held) => {
                    let mut opened = vec![F::ZERO; held.count()];
                    held.open(&mut opened);
                    Cpu.row_lengths(&opened, linear.inputs, lengths);
                }
                None => {
                    let values = &weights.parameters.list()[linear.weight].values;
                    Cpu.row_lengths(values, linear.inputs, lengths);
                }
            }
        }
        Ok(())
    }

    /// What the product of B and A is multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.stabilized { rank.sqrt() } else { rank }
    }

    /// A, B and the magnitude, if there is one, of every linear that carries it, under PEFT's names.
    pub fn parameters(&self) -> &Parameters<F> {
        &self.parameters
    }

    /// The same, to change their values.
    pub fn parameters_mut(&mut self) -> &mut Parameters<F> {
        &mut self.parameters
    }

    /// Last parts of the names of the linears that carry it, each once, in the order of the forward.
    pub fn targets(&self) -> Vec<&str> {
        let mut targets = Vec::new();
        for parameter in self.parameters.list().iter().filter(|parameter| parameter.shape.len() == 2) {
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
        Lora {
            rank: self.rank,
            alpha: self.alpha,
            stabilized: self.stabilized,
            decomposed: self.decomposed,
            carried: self.carried.clone(),
            parameters: self.parameters.cast(),
        }
    }

    /// Where a linear's A stands, if the linear carries an adapter; its B follows, and its magnitude if there is one.
    pub(crate) fn first(&self, linear: &LinearIndex) -> Option<usize> {
        let count = |slots: &[bool]| slots.iter().filter(|carried| **carried).count();
        let before = linear.layer * count(&self.carried) + count(&self.carried[..linear.slot]);
        let each = if self.decomposed { 3 } else { 2 };
        self.carried[linear.slot].then_some(each * before)
    }

    /// Adds the adapter to the weights it was trained on, which are opened where they are held in fewer bits.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] if they are of another architecture.
    pub fn merge(&self, weights: &mut Weights<F>) -> Result<(), TensorError> {
        weights.thaw();
        let index = Index::new(&weights.architecture);
        index.blocks.iter().try_for_each(|block| self.merge_block(weights, block))
    }

    /// The same for one block whose weights are whole.
    pub(crate) fn merge_block(
        &self,
        weights: &mut Weights<F>,
        block: &BlockIndex,
    ) -> Result<(), TensorError> {
        if !self.parameters.fits(&empty(&weights.architecture, self.rank, self.decomposed, &self.carried)) {
            return Err(TensorError::Mismatch);
        }
        let scale = F::from_f64(self.scale());
        for linear in &block.linears {
            let Some(first) = self.first(linear) else { continue };
            let [a, b] = [0, 1].map(|offset| &self.parameters.list()[first + offset].values);
            let weight = &mut weights.parameters.list_mut()[linear.weight].values;
            let (a, b) = (Matrix::new(a, linear.inputs), Matrix::new(b, self.rank));
            Cpu.product(MatrixMut::new(weight, linear.inputs), b, a, scale, true);
            if self.decomposed {
                let magnitude = &self.parameters.list()[first + 2].values;
                set_lengths(&Cpu, weight, linear.inputs, magnitude);
            }
        }
        Ok(())
    }
}

/// PEFT's names and shapes without values.
fn empty(architecture: &Architecture, rank: usize, decomposed: bool, carried: &[bool]) -> Parameters {
    let mut list = Vec::new();
    for layer in 0..architecture.layers {
        let linears = architecture.linears().into_iter().zip(carried).filter(|(_, carried)| **carried);
        for (LinearShape { name, outputs, inputs, .. }, _) in linears {
            let prefix = format!("base_model.model.model.layers.{layer}.{name}");
            for (part, shape) in [("lora_A", vec![rank, inputs]), ("lora_B", vec![outputs, rank])] {
                list.push(Parameter { name: format!("{prefix}.{part}.weight"), shape, values: Vec::new() });
            }
            if decomposed {
                let (name, shape) = (format!("{prefix}.lora_magnitude_vector"), vec![outputs]);
                list.push(Parameter { name, shape, values: Vec::new() });
            }
        }
    }
    Parameters::new(list)
}

/// Which linears of a block the targets name, as PEFT matches them: by the last parts of their names. All where there are
/// no targets.
pub(crate) fn carried(architecture: &Architecture, targets: &[String]) -> Result<Vec<bool>, TensorError> {
    let linears: Vec<&str> = architecture.linears().iter().map(|linear| linear.name).collect();
    let named = |name: &str, target: &String| name == target || name.ends_with(&format!(".{target}"));
    if let Some(unknown) = targets.iter().find(|target| !linears.iter().any(|name| named(name, target))) {
        let known: Vec<_> = linears.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
        return Err(TensorError::Target { name: unknown.clone(), known: known.join(", ") });
    }
    let carries = |name: &&str| targets.is_empty() || targets.iter().any(|target| named(name, target));
    Ok(linears.iter().map(carries).collect())
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
    let done = |key: &str| key == "use_rslora" || key == "use_dora";
    let variant = |key: &str| {
        !done(key) && (key.starts_with("use_") || key.ends_with("_config") || changing.contains(&key))
    };
    let keys = config.as_object().into_iter().flat_map(|map| map.keys());
    match keys.filter(|key| variant(key)).find(|key| !off(&config[*key])) {
        Some(key) => refuse(key),
        None => Ok(()),
    }
}
