use std::path::Path;

use moat_contracts::{Architecture, Digest, Frozen, Precision};
use rayon::prelude::*;

use crate::held::Held;
use crate::model::Index;
use crate::random::Random;
use crate::{Float, Folder, Parameter, Parameters, StoredType, TensorError, stored};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's weights, under Hugging Face's names in the order of [`Architecture::tensors`].
#[derive(Clone, Debug)]
pub struct Weights<F: Float = f32> {
    pub(crate) architecture: Architecture,
    pub(crate) parameters: Parameters<F>,
    /// Tensors that are held in fewer bits, by their places; they have no values among the parameters then.
    pub(crate) held: Vec<Option<Held>>,
    frozen: Frozen,
    precision: Precision,
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
        Self::load_frozen(folder, Frozen::F32)
    }

    /// [`Weights::load_from`] with the linears of the blocks held so. Each is rounded as it is read: one at most is ever
    /// whole in memory.
    ///
    /// # Errors
    /// Those of [`Weights::load_from`], and [`TensorError::NotFinite`].
    pub fn load_frozen(folder: &Folder, frozen: Frozen) -> Result<Self, TensorError> {
        let format = |reason: &str| folder.damaged("config.json", reason.to_owned());
        let config = String::from_utf8(folder.read("config.json")?).map_err(|_| format("it is not UTF-8"))?;
        let architecture = Architecture::from_config(&config)?;
        let mut parameters = empty(&architecture);
        let mut found = vec![false; parameters.list().len()];
        let tied = architecture.tied;
        let ignored =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
        let mut held = vec![None; found.len()];
        let linears = linears(&architecture);
        let mut close = |place: usize, parameter: &mut Parameter| {
            if linears[place] { close(parameter, frozen, &mut held[place]) } else { Ok(()) }
        };
        for name in files(folder)? {
            stored::stream_into(folder.open(&name)?, &mut parameters, &mut found, ignored, &mut close)
                .map_err(|error| error.at(&folder.place(&name)))?;
        }
        stored::all_found(&parameters, &found)?;
        Ok(Self { architecture, parameters, held, frozen, precision: Precision::F32 })
    }

    /// The same weights with the linears of the blocks held so.
    ///
    /// # Errors
    /// [`TensorError::NotFinite`], and [`TensorError::Frozen`] where they are held in fewer bits already.
    pub fn freeze(mut self, frozen: Frozen) -> Result<Self, TensorError> {
        if self.frozen != Frozen::F32 {
            return Err(TensorError::Frozen { frozen: self.frozen.word() });
        }
        let linears = linears(&self.architecture);
        for (place, parameter) in self.parameters.list_mut().iter_mut().enumerate() {
            if linears[place] {
                close(parameter, frozen, &mut self.held[place])?;
            }
        }
        self.frozen = frozen;
        Ok(self)
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
        Self::whole(architecture, parameters)
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
        if self.frozen != Frozen::F32 {
            let mut whole = self.clone();
            whole.thaw();
            return whole.save_to(folder, stored);
        }
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

    /// Takes tensors that are whole.
    fn whole(architecture: Architecture, parameters: Parameters<F>) -> Self {
        let held = vec![None; parameters.list().len()];
        Self { architecture, parameters, held, frozen: Frozen::F32, precision: Precision::F32 }
    }

    /// How the linears of the blocks are held.
    pub fn frozen(&self) -> Frozen {
        self.frozen
    }

    /// What products with the linears of the blocks are computed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Has products with the linears of the blocks computed so from here on.
    ///
    /// # Errors
    /// [`TensorError::Precision`] for 8 bits where the weights are not held in them.
    pub fn set_precision(&mut self, precision: Precision) -> Result<(), TensorError> {
        if precision == Precision::Int8 && self.frozen != Frozen::Int8 {
            return Err(TensorError::Precision { frozen: self.frozen.word() });
        }
        self.precision = precision;
        Ok(())
    }

    /// Opens what is held in fewer bits: the same numbers, each whole.
    pub fn thaw(&mut self) {
        for (parameter, held) in self.parameters.list_mut().iter_mut().zip(&mut self.held) {
            if let Some(held) = held.take() {
                parameter.values = vec![F::ZERO; held.count()];
                held.open(&mut parameter.values);
            }
        }
        (self.frozen, self.precision) = (Frozen::F32, Precision::F32);
    }

    /// Makes a tensor whole that is to be changed for a while, and hands out what [`Weights::restore`] puts back.
    pub(crate) fn lend(&mut self, place: usize) -> Lent<F> {
        let parameter = &mut self.parameters.list_mut()[place];
        match self.held[place].take() {
            Some(held) => {
                parameter.values = vec![F::ZERO; held.count()];
                held.open(&mut parameter.values);
                Lent::Held(held)
            }
            None => Lent::Whole(parameter.values.clone()),
        }
    }

    /// Puts a tensor back as it was lent.
    pub(crate) fn restore(&mut self, place: usize, lent: Lent<F>) {
        let values = match lent {
            Lent::Whole(values) => values,
            Lent::Held(held) => {
                self.held[place] = Some(held);
                Vec::new()
            }
        };
        self.parameters.list_mut()[place].values = values;
    }

    /// A number for each tensor that changes with any bit of what is held in fewer bits; 0 for one that is whole.
    pub fn held_sums(&self) -> Vec<u64> {
        self.held.par_iter().map(|held| held.as_ref().map_or(0, Held::sum)).collect()
    }

    /// The tensors. Those that are held in fewer bits have no values.
    pub fn parameters(&self) -> &Parameters<F> {
        &self.parameters
    }

    /// The tensors, to change their values.
    pub fn parameters_mut(&mut self) -> &mut Parameters<F> {
        &mut self.parameters
    }

    /// The same architecture without tensors.
    pub(crate) fn emptied(&self) -> Self {
        Self::whole(self.architecture.clone(), Parameters::new(Vec::new()))
    }

    /// The same weights as other numbers.
    pub fn cast<G: Float>(&self) -> Weights<G> {
        let (architecture, parameters) = (self.architecture.clone(), self.parameters.cast());
        let (frozen, precision) = (self.frozen, self.precision);
        Weights { architecture, parameters, held: self.held.clone(), frozen, precision }
    }
}

/// A tensor as it was before it was changed for a while.
pub(crate) enum Lent<F> {
    Whole(Vec<F>),
    Held(Held),
}

/// Which tensors are linears of blocks.
fn linears(architecture: &Architecture) -> Vec<bool> {
    let mut linears = vec![false; architecture.tensors().len()];
    for linear in Index::new(architecture).blocks.iter().flat_map(|block| &block.linears) {
        linears[linear.weight] = true;
    }
    linears
}

/// Puts a tensor's values in fewer bits, where that is asked for.
fn close(parameter: &mut Parameter, frozen: Frozen, held: &mut Option<Held>) -> Result<(), TensorError> {
    if frozen == Frozen::F32 {
        return Ok(());
    }
    let closed = Held::close(&parameter.values, parameter.shape[1], frozen);
    *held = Some(closed.ok_or_else(|| TensorError::NotFinite { name: parameter.name.clone() })?);
    parameter.values = Vec::new();
    Ok(())
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
