//! Files and bytes in safetensors' format.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use safetensors::{Dtype, SafeTensors};

use crate::{Moments, Parameter, Parameters, TensorError};

/// How numbers are stored in a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats: exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// Bytes that a header has at most, as the safetensors library has it.
const HEADER: u64 = 100_000_000;

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

/// The same from a file as it is read, tensor by tensor, so that its bytes are never whole in memory beside its numbers.
/// `each` is given every tensor, and its place, before the next one is read.
pub(crate) fn stream_into(
    mut file: impl Read,
    parameters: &mut Parameters,
    found: &mut [bool],
    ignored: impl Fn(&str) -> bool,
    each: &mut impl FnMut(usize, &mut Parameter) -> Result<(), TensorError>,
) -> Result<(), ReadError> {
    let format = |reason: String| ReadError::Format(reason);
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Format("it ends before its tensors do".to_owned()),
        _ => ReadError::Io(error),
    };
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER {
        return Err(format(format!("its header says that it has {length} bytes")));
    }
    let mut header = Vec::new();
    file.by_ref().take(length).read_to_end(&mut header).map_err(cut)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| format(error.to_string()))?;
    // One after the other and without gaps: what the library checked when it read the header.
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let length = info.data_offsets.1 - info.data_offsets.0;
        let known = parameters.list().iter().position(|parameter| parameter.name == name);
        let Some(known) = known else {
            if !ignored(&name) {
                return Err(TensorError::Unexpected { name }.into());
            }
            if io::copy(&mut file.by_ref().take(length as u64), &mut io::sink()).map_err(cut)? < length as u64
            {
                return Err(cut(io::ErrorKind::UnexpectedEof.into()));
            }
            continue;
        };
        let parameter = &mut parameters.list_mut()[known];
        if info.shape != parameter.shape {
            let (expected, found) = (parameter.shape.clone(), info.shape.clone());
            return Err(TensorError::Shape { name, expected, found }.into());
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(TensorError::Type { name, found: format!("{:?}", info.dtype) }.into());
        }
        parameter.values = numbers_of(&mut file, info.dtype, length).map_err(cut)?;
        each(known, parameter)?;
        found[known] = true;
    }
    match file.read(&mut [0]).map_err(cut)? {
        0 => Ok(()),
        _ => Err(format("it goes on behind its tensors".to_owned())),
    }
}

/// So many bytes of one stored type as numbers, piece by piece.
fn numbers_of(file: &mut impl Read, stored: Dtype, bytes: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(bytes / if stored == Dtype::F32 { 4 } else { 2 });
    let mut piece = vec![0; PIECE.min(bytes)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE)];
        left -= piece.len();
        file.read_exact(piece)?;
        match stored {
            Dtype::F32 => values.extend(piece.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Dtype::F16 => {
                values.extend(piece.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()));
            }
            _ => values.extend(piece.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
        }
    }
    Ok(values)
}

/// Why bytes cannot be read; who calls knows the file's name.
pub(crate) enum ReadError {
    Format(String),
    Io(io::Error),
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
            Self::Io(source) => TensorError::Io { path: path.to_owned(), what: "read", source },
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
        ReadError::Io(error) => TensorError::State(error.to_string()),
        ReadError::Tensor(error) => error,
    }
}

/// What the moments' tensors begin with.
const HALVES: [&str; 2] = ["first", "second"];

impl Moments {
    /// Both moments, with the names that they are stored under.
    fn named(&self) -> impl Iterator<Item = (String, &Parameter)> {
        let halves = HALVES.into_iter().zip([&self.first, &self.second]);
        halves.flat_map(|(half, parameters)| {
            parameters.list().iter().map(move |parameter| (format!("{half}.{}", parameter.name), parameter))
        })
    }

    /// Writes moments and steps as a safetensors file, exact.
    ///
    /// # Errors
    /// Those of `into`.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        let Some(quantized) = &self.quantized else {
            return write(into, self.named(), StoredType::F32, Some(("steps", self.steps.to_string())));
        };
        let named = quantized.iter().zip(self.first.list()).flat_map(|(halves, parameter)| {
            HALVES.iter().zip(halves).flat_map(|(half, part)| {
                let scales: Vec<u8> = part.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                let name = format!("{half}.{}", parameter.name);
                [(format!("{name}.codes"), part.codes.clone()), (format!("{name}.scales"), scales)]
            })
        });
        let named: Vec<(String, Vec<u8>)> = named.collect();
        let other = |error: safetensors::SafeTensorError| io::Error::other(error.to_string());
        let views = named.iter().map(|(name, bytes)| {
            TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(other)?;
        let steps = HashMap::from([("steps".to_owned(), self.steps.to_string())]);
        into.write_all(&safetensors::serialize(views, Some(steps)).map_err(other)?)
    }

    /// Sets the quantised moments from what was written of them.
    fn restore_quantized(&mut self, bytes: &[u8], steps: u64) -> Result<(), TensorError> {
        let state = |error: safetensors::SafeTensorError| TensorError::State(error.to_string());
        let file = SafeTensors::deserialize(bytes).map_err(state)?;
        let mut restored = self.quantized.clone().unwrap_or_default();
        if file.len() != 4 * restored.len() {
            return Err(TensorError::State("it holds moments of another kind or model".to_owned()));
        }
        for (halves, parameter) in restored.iter_mut().zip(self.first.list()) {
            for (half, part) in HALVES.iter().zip(halves) {
                let name = format!("{half}.{}", parameter.name);
                let read = |kind: &str, length: usize| {
                    let name = format!("{name}.{kind}");
                    let view = file.tensor(&name).map_err(|_| TensorError::Missing { name: name.clone() })?;
                    let (expected, found) = (vec![length], view.shape().to_vec());
                    if view.dtype() != Dtype::U8 || expected != found {
                        return Err(TensorError::Shape { name, expected, found });
                    }
                    Ok(view.data().to_vec())
                };
                part.codes = read("codes", part.codes.len())?;
                let scales = read("scales", 4 * part.scales.len())?;
                let (scales, _) = scales.as_chunks::<4>();
                part.scales = scales.iter().map(|scale| f32::from_le_bytes(*scale)).collect();
            }
        }
        (self.quantized, self.steps) = (Some(restored), steps);
        Ok(())
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
        if self.quantized.is_some() {
            return self.restore_quantized(bytes, steps);
        }
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
