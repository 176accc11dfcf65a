//! Files and bytes in safetensors' format.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Moments, Parameter, Parameters, TensorError};

/// How numbers are stored in a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// Bytes that are converted at once.
const PIECE: usize = 64 << 10;

impl StoredType {
    const fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn put(self, values: &[f32], into: &mut Vec<u8>) {
        match self {
            Self::F32 => into.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16 => into.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
        }
    }
}

/// Writes tensors, each under the name given, as a safetensors file, with the bytes that the safetensors library gives;
/// no second copy of them is made.
pub(crate) fn write<'a>(
    into: &mut dyn Write,
    parameters: impl IntoIterator<Item = (String, &'a Parameter)>,
    stored: StoredType,
    metadata: Option<(&str, String)>,
) -> io::Result<()> {
    let mut parameters: Vec<_> = parameters.into_iter().collect();
    parameters.sort_by(|left, right| left.0.cmp(&right.0));
    let mut end = 0;
    let infos = parameters.iter().map(|(name, parameter)| {
        let start = end;
        end += parameter.values.len() * stored.size();
        let (dtype, shape) = (stored.dtype(), parameter.shape.clone());
        (name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let infos = infos.collect();
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value)]));
    let header = Metadata::new(metadata, infos).map_err(|error| io::Error::other(error.to_string()))?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    into.write_all(&(header.len() as u64).to_le_bytes())?;
    into.write_all(&header)?;
    let mut piece = Vec::with_capacity(PIECE);
    for values in parameters.iter().flat_map(|(_, parameter)| parameter.values.chunks(PIECE / stored.size()))
    {
        piece.clear();
        stored.put(values, &mut piece);
        into.write_all(&piece)?;
    }
    Ok(())
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

impl Parameters {
    /// Writes the tensors as a safetensors file, exact (for checkpoints; F32).
    ///
    /// # Errors
    /// Those of `into`.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        let named = self.list().iter().map(|parameter| (parameter.name.clone(), parameter));
        write(into, named, StoredType::F32, None)
    }

    /// Sets every tensor from what [`Parameters::write`] wrote; nothing changes unless all fit.
    ///
    /// # Errors
    /// [`TensorError::State`], [`TensorError::Missing`], [`TensorError::Unexpected`] or [`TensorError::Shape`].
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TensorError> {
        let (mut restored, mut found) = (self.without_values(), vec![false; self.list().len()]);
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
    /// Both moments, with the names that they are stored under.
    fn named(&self) -> impl Iterator<Item = (String, &Parameter)> {
        let halves = [("first", &self.first), ("second", &self.second)];
        halves.into_iter().flat_map(|(half, parameters)| {
            parameters.list().iter().map(move |parameter| (format!("{half}.{}", parameter.name), parameter))
        })
    }

    /// Writes moments and steps as a safetensors file, exact.
    ///
    /// # Errors
    /// Those of `into`.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        write(into, self.named(), StoredType::F32, Some(("steps", self.steps.to_string())))
    }

    /// Sets both moments and the steps from what [`Moments::write`] wrote; nothing changes unless all fit.
    ///
    /// # Errors
    /// As [`Parameters::restore`].
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TensorError> {
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes)
            .map_err(|error| TensorError::State(error.to_string()))?;
        let steps = header.metadata().as_ref().and_then(|metadata| metadata.get("steps"));
        let steps = steps.and_then(|steps| steps.parse().ok());
        let steps = steps.ok_or_else(|| TensorError::State("it does not say its steps".to_owned()))?;
        let named = self.named().map(|(name, parameter)| Parameter {
            name,
            shape: parameter.shape.clone(),
            values: Vec::new(),
        });
        let mut joined = Parameters::new(named.collect());
        joined.restore(bytes)?;
        let halves = self.first.list_mut().iter_mut().chain(self.second.list_mut());
        for (place, restored) in halves.zip(joined.list_mut()) {
            place.values = std::mem::take(&mut restored.values);
        }
        self.steps = steps;
        Ok(())
    }
}
