//! Files and bytes in safetensors' format.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, rename};
use std::io::Write;
use std::path::Path;

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use half::bf16;
use safetensors::{Dtype, View, serialize};

use crate::{Moments, Parameter, Parameters, TensorError};

/// How numbers are stored in a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// A tensor on its way into a file.
struct Outgoing<'a> {
    parameter: &'a Parameter,
    stored: StoredType,
}

impl View for Outgoing<'_> {
    fn dtype(&self) -> Dtype {
        match self.stored {
            StoredType::F32 => Dtype::F32,
            StoredType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.parameter.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.parameter.values.iter();
        Cow::Owned(match self.stored {
            StoredType::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
            StoredType::Bf16 => values.flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        let size = if self.stored == StoredType::F32 { 4 } else { 2 };
        self.parameter.values.len() * size
    }
}

/// Tensors as the bytes of a safetensors file. `rename` gives each the name that it is stored under.
pub(crate) fn to_bytes<'a>(
    parameters: impl IntoIterator<Item = (String, &'a Parameter)>,
    stored: StoredType,
    metadata: Option<(&str, String)>,
) -> Result<Vec<u8>, TensorError> {
    let outgoing = parameters.into_iter().map(|(name, parameter)| (name, Outgoing { parameter, stored }));
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value)]));
    serialize(outgoing, metadata).map_err(|error| TensorError::State(error.to_string()))
}

/// Reads `parameters` by name out of a safetensors file's bytes, as `f32`. Marks in `found` those that were there,
/// and refuses any that are neither wanted nor ignored.
pub(crate) fn read_into(
    bytes: &[u8],
    parameters: &mut Parameters,
    found: &mut [bool],
    ignored: impl Fn(&str) -> bool,
) -> Result<(), ReadError> {
    let format = |error: candle_core::Error| ReadError::Format(error.to_string());
    let file = SliceSafetensors::new(bytes).map_err(format)?;
    for (name, view) in file.tensors() {
        let place = parameters.list().iter().position(|parameter| parameter.name == name);
        let Some(place) = place else {
            if ignored(&name) {
                continue;
            }
            return Err(TensorError::Unexpected { name }.into());
        };
        let parameter = &mut parameters.list_mut()[place];
        if view.shape() != parameter.shape {
            let (expected, found) = (parameter.shape.clone(), view.shape().to_vec());
            return Err(TensorError::Shape { name, expected, found }.into());
        }
        if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(TensorError::Type { name, found: format!("{:?}", view.dtype()) }.into());
        }
        let tensor = file.load(&name, &Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F32));
        parameter.values =
            tensor.and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>()).map_err(format)?;
        found[place] = true;
    }
    Ok(())
}

/// Why bytes cannot be read; who calls knows the file's name.
pub(crate) enum ReadError {
    Format(String),
    Tensor(TensorError),
}

impl From<TensorError> for ReadError {
    fn from(error: TensorError) -> Self {
        Self::Tensor(error)
    }
}

impl ReadError {
    pub(crate) fn at(self, path: &Path) -> TensorError {
        match self {
            Self::Format(reason) => TensorError::Format { path: path.to_owned(), reason },
            Self::Tensor(error) => error,
        }
    }
}

/// The first that was not there.
pub(crate) fn all_found(parameters: &Parameters, found: &[bool]) -> Result<(), TensorError> {
    match parameters.list().iter().zip(found).find(|(_, found)| !**found) {
        Some((parameter, _)) => Err(TensorError::Missing { name: parameter.name.clone() }),
        None => Ok(()),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TensorError> {
    std::fs::read(path).map_err(|source| TensorError::Io { path: path.to_owned(), what: "read", source })
}

/// Writes a file whole or not at all: beside its place, synced, moved there, and the folder synced.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TensorError> {
    let (path, new) = (dir.join(name), dir.join(format!(".{name}.new")));
    let all = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    all().map_err(|source| TensorError::Io { path: path.clone(), what: "written", source })
}

impl Parameters {
    /// The tensors as the bytes of a safetensors file, exact (for checkpoints; F32).
    ///
    /// # Errors
    /// [`TensorError::State`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, TensorError> {
        to_bytes(
            self.list().iter().map(|parameter| (parameter.name.clone(), parameter)),
            StoredType::F32,
            None,
        )
    }

    /// Sets every tensor from [`Parameters::to_bytes`]'s bytes; nothing changes unless all fit.
    ///
    /// # Errors
    /// [`TensorError::State`], [`TensorError::Missing`], [`TensorError::Unexpected`] or [`TensorError::Shape`].
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TensorError> {
        let (mut restored, mut found) = (self.clone(), vec![false; self.list().len()]);
        read_into(bytes, &mut restored, &mut found, |_| false).map_err(state)?;
        all_found(&restored, &found)?;
        *self = restored;
        Ok(())
    }
}

fn state(error: ReadError) -> TensorError {
    match error {
        ReadError::Format(reason) => TensorError::State(reason),
        ReadError::Tensor(error) => error,
    }
}

impl Moments {
    /// Both moments under one list of names.
    fn joined(&self) -> Parameters {
        let prefixed = |prefix: &'static str, parameters: &Parameters| -> Vec<Parameter> {
            let rename = |parameter: &Parameter| {
                let name = format!("{prefix}.{}", parameter.name);
                Parameter { name, ..parameter.clone() }
            };
            parameters.list().iter().map(rename).collect()
        };
        let mut list = prefixed("first", &self.first);
        list.append(&mut prefixed("second", &self.second));
        Parameters::new(list)
    }

    /// Moments and steps as the bytes of a safetensors file, exact.
    ///
    /// # Errors
    /// [`TensorError::State`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, TensorError> {
        let joined = self.joined();
        let named = joined.list().iter().map(|parameter| (parameter.name.clone(), parameter));
        to_bytes(named, StoredType::F32, Some(("steps", self.steps.to_string())))
    }

    /// Sets both moments and the steps from [`Moments::to_bytes`]'s bytes; nothing changes unless all fit.
    ///
    /// # Errors
    /// As [`Parameters::restore`].
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TensorError> {
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes)
            .map_err(|error| TensorError::State(error.to_string()))?;
        let steps = header.metadata().as_ref().and_then(|metadata| metadata.get("steps"));
        let steps = steps.and_then(|steps| steps.parse().ok());
        let steps = steps.ok_or_else(|| TensorError::State("it does not say its steps".to_owned()))?;
        let mut joined = self.joined();
        joined.restore(bytes)?;
        let halves = self.first.list_mut().iter_mut().chain(self.second.list_mut());
        for (place, restored) in halves.zip(joined.list_mut()) {
            place.values = std::mem::take(&mut restored.values);
        }
        self.steps = steps;
        Ok(())
    }
}
