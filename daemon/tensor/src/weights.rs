use std::path::Path;

use moat_contracts::{Architecture, Digest};

use crate::random::Random;
use crate::{Float, Folder, Parameter, Parameters, StoredType, TensorError, stored};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's weights, under Hugging Face's names in the order of [`Architecture::tensors`].
#[derive(Clone, Debug)]
pub struct Weights<F: Float = f32> {
    pub(crate) architecture: Architecture,
    pub(crate) parameters: Parameters<F>,
}

impl Weights {
    /// Reads `config.json` and `model.safetensors`, or the shards that `model.safetensors.index.json` lists, as plain
    /// files. Stored `f32`, `f16` and `bf16` become `f32`.
    ///
    /// # Errors
    /// [`TensorError`] names the file or the tensor that is missing, unexpected, damaged or of a wrong shape.
    pub fn load(dir: &Path) -> Result<Self, TensorError> {
        Self::load_from(&Folder::plain(dir))
    }

    /// [`Weights::load`] from files that may be sealed.
    ///
    /// # Errors
    /// Those of [`Weights::load`] and of [`Folder::read`].
    pub fn load_from(folder: &Folder) -> Result<Self, TensorError> {
        let format = |reason: &str| folder.damaged("config.json", reason.to_owned());
        let config = String::from_utf8(folder.read("config.json")?).map_err(|_| format("it is not UTF-8"))?;
        let architecture = Architecture::from_config(&config)?;
        let mut parameters = empty(&architecture);
        let mut found = vec![false; parameters.list().len()];
        let tied = architecture.tied;
        let ignored =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
        for name in files(folder)? {
            stored::stream_into(folder.open(&name)?, &mut parameters, &mut found, ignored)
                .map_err(|error| error.at(&folder.place(&name)))?;
        }
        stored::all_found(&parameters, &found)?;
        Ok(Self { architecture, parameters })
    }

    /// Fresh weights: linears and embeddings normal with deviation 0.02, norms 1 with their offset, biases 0. The seed
    /// decides them.
    pub fn random(architecture: Architecture, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut parameters = empty(&architecture);
        for parameter in parameters.list_mut() {
            let count = parameter.shape.iter().product();
            parameter.values = match parameter.shape.len() {
                2 => (0..count).map(|_| (random.normal() * 0.02) as f32).collect(),
                _ if parameter.name.ends_with(".bias") => vec![0.0; count],
                _ => vec![(1.0 - architecture.norm_offset) as f32; count],
            };
        }
        Self { architecture, parameters }
    }

    /// Writes `model.safetensors` whole or not at all. `config.json` is the caller's to copy.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save(&self, dir: &Path, stored: StoredType) -> Result<(), TensorError> {
        self.save_to(&Folder::plain(dir), stored).map(drop)
    }

    /// [`Weights::save`] into files that may be sealed. Returns the SHA-256 of what was written, before any seal.
    ///
    /// # Errors
    /// [`TensorError::Io`].
    pub fn save_to(&self, folder: &Folder, stored: StoredType) -> Result<Digest, TensorError> {
        let named = self.parameters.list().iter().map(|parameter| (parameter.name.clone(), parameter));
        let format = Some(("format", "pt".to_owned()));
        folder.write(WEIGHTS, |into| stored::write(into, named, stored, format))
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

    /// The tensors, to change their values.
    pub fn parameters_mut(&mut self) -> &mut Parameters<F> {
        &mut self.parameters
    }

    /// The same architecture without tensors.
    pub(crate) fn emptied(&self) -> Self {
        Self { architecture: self.architecture.clone(), parameters: Parameters::new(Vec::new()) }
    }

    /// The same weights as other numbers.
    pub fn cast<G: Float>(&self) -> Weights<G> {
        Weights { architecture: self.architecture.clone(), parameters: self.parameters.cast() }
    }
}

/// Names and shapes without values.
fn empty(architecture: &Architecture) -> Parameters {
    let tensors = architecture.tensors().into_iter();
    Parameters::new(
        tensors
            .map(|tensor| Parameter { name: tensor.name, shape: tensor.shape, values: Vec::new() })
            .collect(),
    )
}

/// The one file, or the shards of the index, each once and in order.
fn files(folder: &Folder) -> Result<Vec<String>, TensorError> {
    if !folder.has(INDEX) {
        return Ok(vec![WEIGHTS.to_owned()]);
    }
    let format = |reason: &str| folder.damaged(INDEX, reason.to_owned());
    let index: serde_json::Value =
        serde_json::from_slice(&folder.read(INDEX)?).map_err(|error| format(&error.to_string()))?;
    let map = index["weight_map"].as_object().ok_or_else(|| format("it has no weight_map"))?;
    let mut names = map
        .values()
        .map(|name| name.as_str().ok_or_else(|| format("weight_map holds something other than file names")))
        .collect::<Result<Vec<&str>, TensorError>>()?;
    names.sort_unstable();
    names.dedup();
    if names.iter().any(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        return Err(format("weight_map names a file outside its folder"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}
