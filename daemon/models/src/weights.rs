use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moat_contracts::{Architecture, Digest};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::ModelError;
use crate::files::{CHUNK, Passage, read_json};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Bytes of a header at most, as the safetensors library has it.
const HEADER_LIMIT: u64 = 100_000_000;

/// The files that hold a folder's weights, and for a sharded one which file holds which tensor.
pub(crate) enum Layout {
    Single,
    Sharded(BTreeMap<String, String>),
}

impl Layout {
    /// Looks at what a folder holds.
    pub(crate) fn of(folder: &Path, names: &[String]) -> Result<Self, ModelError> {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(INDEX) {
            return Self::read_index(&folder.join(INDEX));
        }
        if has(SINGLE) {
            return Ok(Self::Single);
        }
        let pickled = |name: &&String| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        Err(match names.iter().find(pickled) {
            Some(file) => ModelError::Pickle { folder: folder.to_owned(), file: file.clone() },
            None => ModelError::NoFile { folder: folder.to_owned(), file: SINGLE },
        })
    }

    fn read_index(path: &Path) -> Result<Self, ModelError> {
        let damaged = |reason: &str| ModelError::Format { path: path.to_owned(), reason: reason.to_owned() };
        let value = read_json(path)?;
        let map = value["weight_map"].as_object().ok_or_else(|| damaged("it has no object `weight_map`"))?;
        let mut shards = BTreeMap::new();
        for (tensor, file) in map {
            let file = file.as_str().filter(|file| {
                file.ends_with(".safetensors") && !file.starts_with('.') && !file.contains(['/', '\\'])
            });
            let file = file.ok_or_else(|| damaged("`weight_map` names a file that is no shard beside it"))?;
            shards.insert(tensor.clone(), file.to_owned());
        }
        Ok(Self::Sharded(shards))
    }

    /// The files, each once, by name.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        match self {
            Self::Single => BTreeSet::from([SINGLE.to_owned()]),
            Self::Sharded(shards) => shards.values().cloned().collect(),
        }
    }
}

/// Checks weight files against what `config.json` asks for, while they are copied.
pub(crate) struct Check<'a> {
    architecture: &'a Architecture,
    layout: &'a Layout,
    wanted: BTreeMap<String, Vec<usize>>,
    met: BTreeSet<String>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(architecture: &'a Architecture, layout: &'a Layout) -> Self {
        let wanted = architecture.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        Self { architecture, layout, wanted, met: BTreeSet::new() }
    }

    /// Passes one file: every tensor has its place, shape and type, and no number is infinite or none.
    pub(crate) fn file(&mut self, name: &str, mut passage: Passage<'_>) -> Result<(Digest, u64), ModelError> {
        let path = passage.path.to_owned();
        let damaged = |reason: &str| ModelError::Format { path: path.clone(), reason: reason.to_owned() };
        let mut length = [0; 8];
        if passage.fill(&mut length)? < length.len() {
            return Err(damaged("it is shorter than a header"));
        }
        let length = u64::from_le_bytes(length);
        if length > HEADER_LIMIT {
            return Err(damaged("its header is larger than 100 MB"));
        }
        let mut header = vec![0; length as usize];
        if passage.fill(&mut header)? < header.len() {
            return Err(damaged("it ends within its header"));
        }
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(&format!("its header: {error}")))?;
        let tensors = header.tensors();
        let mut tensors: Vec<_> = tensors.iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut at = 0;
        let mut buffer = vec![0; CHUNK];
        for (tensor, info) in tensors {
            self.place(name, tensor, &info.shape, &path)?;
            let size = element_size(tensor, info.dtype)?;
            let bytes = info.shape.iter().try_fold(size, |bytes, side| bytes.checked_mul(*side));
            if info.data_offsets.0 != at || bytes != info.data_offsets.1.checked_sub(at) {
                return Err(damaged(&format!("tensor `{tensor}` does not lie where its shape says")));
            }
            while at < info.data_offsets.1 {
                let wanted = CHUNK.min(info.data_offsets.1 - at);
                let chunk = &mut buffer[..wanted];
                if passage.fill(chunk)? < wanted {
                    return Err(damaged(&format!("it ends within tensor `{tensor}`")));
                }
                if let Some(element) = first_not_finite(chunk, info.dtype) {
                    let before = (at - info.data_offsets.0) / size;
                    return Err(ModelError::NotFinite {
                        name: tensor.clone(),
                        element: (before + element) as u64,
                    });
                }
                at += wanted;
            }
        }
        let before = passage.size;
        let (digest, size) = passage.finish()?;
        if size != before {
            return Err(damaged("it goes on after its last tensor"));
        }
        Ok((digest, size))
    }

    /// After all files: nothing is missing.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        match self.wanted.into_keys().find(|name| !self.met.contains(name)) {
            Some(name) => Err(ModelError::Missing { name }),
            None => Ok(()),
        }
    }

    fn place(&mut self, file: &str, tensor: &str, shape: &[usize], path: &Path) -> Result<(), ModelError> {
        let unexpected = || ModelError::Unexpected { path: path.to_owned(), name: tensor.to_owned() };
        if let Layout::Sharded(shards) = self.layout
            && shards.get(tensor).is_none_or(|shard| shard != file)
        {
            return Err(unexpected());
        }
        match self.wanted.get(tensor) {
            Some(expected) if expected == shape => {
                self.met.insert(tensor.to_owned());
                Ok(())
            }
            Some(expected) => {
                let (name, expected) = (tensor.to_owned(), expected.clone());
                Err(ModelError::Shape { name, expected, found: shape.to_vec() })
            }
            // Both carry nothing of their own: the head is the embedding, the frequencies are computed.
            None if self.architecture.tied && tensor == "lm_head.weight" => Ok(()),
            None if tensor.ends_with("rotary_emb.inv_freq") => Ok(()),
            None => Err(unexpected()),
        }
    }
}

fn element_size(tensor: &str, stored: Dtype) -> Result<usize, ModelError> {
    match stored {
        Dtype::F32 => Ok(4),
        Dtype::F16 | Dtype::BF16 => Ok(2),
        other => Err(ModelError::Type { name: tensor.to_owned(), found: format!("{other:?}") }),
    }
}

/// The first element of which all exponent bits are set (IEEE 754: infinity or NaN).
fn first_not_finite(bytes: &[u8], stored: Dtype) -> Option<usize> {
    if stored == Dtype::F32 {
        let odd = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 == 0x7f80_0000;
        return bytes.chunks_exact(4).position(odd);
    }
    let mask = if stored == Dtype::F16 { 0x7c00 } else { 0x7f80 };
    bytes.chunks_exact(2).position(|b| u16::from_le_bytes([b[0], b[1]]) & mask == mask)
}
