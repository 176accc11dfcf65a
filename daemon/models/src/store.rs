use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use moat_contracts::Digest;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::files::{digest, names};

/// The file that makes a folder of the store a base.
pub(crate) const RECORD: &str = "moat-base.json";

/// One file of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// A base that was verified and taken into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedBase {
    /// Its name in recipes, and its folder's in the store.
    pub name: String,
    /// SHA-256 over every file's name and SHA-256, by name.
    pub hash: Digest,
    /// The class that `config.json` names, such as `Qwen2ForCausalLM`.
    pub family: String,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of weights.
    pub bytes: u64,
    /// Chats can be trained and asked through its template.
    pub chat: bool,
    /// Why not, where it has a template but no chat can be trained through it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chat_fault: Option<String>,
    /// Its files.
    pub files: BTreeMap<String, FileEntry>,
    /// Its folder in the store.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// SHA-256 over names and digests, each ended so that no two lists give the same bytes.
pub(crate) fn hash_of(files: &BTreeMap<String, FileEntry>) -> Digest {
    let parts: Vec<&[u8]> = files
        .iter()
        .flat_map(|(name, entry)| [name.as_bytes(), b"\0".as_slice(), entry.sha256.as_bytes().as_slice()])
        .collect();
    Digest::of_parts(&parts)
}

/// All bases of a store, by name. A store that does not exist yet has none.
///
/// # Errors
/// [`ModelError`] where the store or a base in it cannot be read.
pub fn list(store: &Path) -> Result<Vec<ImportedBase>, ModelError> {
    if !store.exists() {
        return Ok(Vec::new());
    }
    let mut bases = Vec::new();
    for name in names(store)? {
        if !name.starts_with('.') && store.join(&name).join(RECORD).exists() {
            bases.extend(read(store, &name)?);
        }
    }
    Ok(bases)
}

/// One base by its name, with its files there in their sizes; `None` where nothing bears the name. [`verify`] reads
/// the files as well.
///
/// # Errors
/// [`ModelError`] says what is wrong with the base.
pub fn find(store: &Path, name: &str) -> Result<Option<ImportedBase>, ModelError> {
    if !is_name(name) {
        return Ok(None);
    }
    let Some(base) = read(store, name)? else { return Ok(None) };
    for (file, entry) in &base.files {
        let path = base.folder.join(file);
        let size = fs::metadata(&path).map_err(ModelError::read(&path))?.len();
        if size != entry.size {
            let reason = format!("it has {size} bytes, but had {} when it was imported", entry.size);
            return Err(ModelError::Format { path, reason });
        }
    }
    Ok(Some(base))
}

/// Reads every byte of a base: it is what was imported.
///
/// # Errors
/// [`ModelError::Unknown`], [`ModelError::Sum`] for the first file that changed, or as [`find`].
pub fn verify(store: &Path, name: &str) -> Result<ImportedBase, ModelError> {
    let base = find(store, name)?.ok_or_else(|| ModelError::Unknown(name.to_owned()))?;
    for (file, entry) in &base.files {
        let path = base.folder.join(file);
        let found = digest(&path)?;
        if found != entry.sha256 {
            return Err(ModelError::Sum { path, sums: RECORD, expected: entry.sha256, found });
        }
    }
    Ok(base)
}

fn read(store: &Path, name: &str) -> Result<Option<ImportedBase>, ModelError> {
    let folder = store.join(name);
    let path = folder.join(RECORD);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ModelError::read(path)(error)),
    };
    let damaged = |reason: String| ModelError::Format { path: path.clone(), reason };
    let base: ImportedBase = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if base.name != name || base.hash != hash_of(&base.files) {
        return Err(damaged("its name or hash is not that of its files".to_owned()));
    }
    Ok(Some(ImportedBase { folder, ..base }))
}

/// Whether a text can name a base: it becomes a folder's name and a word in recipes.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.len() <= 100
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(plain)
}
