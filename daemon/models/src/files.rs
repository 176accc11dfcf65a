use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path};

use moat_contracts::Digest;
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::ModelError;

/// Bytes read at once: a multiple of every stored type's size.
pub(crate) const CHUNK: usize = 1 << 20;

/// The file that `sha256sum -c` reads.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// A file being read once: hashed, and copied where there is a copy.
pub(crate) struct Passage<'a> {
    pub(crate) path: &'a Path,
    from: Box<dyn Read>,
    to: Option<(&'a Path, File)>,
    context: Context,
    pub(crate) size: u64,
}

impl<'a> Passage<'a> {
    pub(crate) fn open(path: &'a Path, to: Option<&'a Path>) -> Result<Self, ModelError> {
        let from = File::open(path).map_err(ModelError::read(path))?;
        Self::of(path, Box::new(from), to)
    }

    /// Reads what lies at a path by other means than opening it.
    pub(crate) fn of(path: &'a Path, from: Box<dyn Read>, to: Option<&'a Path>) -> Result<Self, ModelError> {
        let to = match to {
            Some(to) => Some((to, File::create_new(to).map_err(ModelError::written(to))?)),
            None => None,
        };
        Ok(Self { path, from, to, context: Context::new(&SHA256), size: 0 })
    }

    /// Fills as much of the buffer as the file still holds, and passes it on.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ModelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ModelError::read(self.path)(error)),
            }
        }
        let bytes = &buffer[..filled];
        self.context.update(bytes);
        self.size += filled as u64;
        if let Some((path, file)) = &mut self.to {
            file.write_all(bytes).map_err(ModelError::written(*path))?;
        }
        Ok(filled)
    }

    /// Passes on what is left; the copy is on disk when this returns.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64), ModelError> {
        let mut buffer = vec![0; CHUNK];
        while self.fill(&mut buffer)? > 0 {}
        if let Some((path, file)) = &self.to {
            file.sync_all().map_err(ModelError::written(*path))?;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.finish().as_ref());
        Ok((Digest::from_bytes(digest), self.size))
    }
}

/// SHA-256 of a file, read in pieces.
pub(crate) fn digest(path: &Path) -> Result<Digest, ModelError> {
    Ok(Passage::open(path, None)?.finish()?.0)
}

/// Writes a file, and gives its SHA-256; it is on disk when this returns.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<Digest, ModelError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(ModelError::written(path))?;
    Ok(Digest::of(bytes))
}

/// Makes an empty folder, in place of what an interrupted writer may have left there.
pub(crate) fn fresh_folder(path: &Path) -> Result<(), ModelError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(ModelError::written(path)(error)),
        _ => {}
    }
    fs::create_dir_all(path).map_err(ModelError::written(path))
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), ModelError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(ModelError::written(path))
}

/// Gives a finished folder, whose files are on disk, a name that nothing bears yet.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), ModelError> {
    sync_folder(from)?;
    if to.exists() {
        return Err(ModelError::Exists(to.to_owned()));
    }
    fs::rename(from, to).map_err(ModelError::written(to))?;
    sync_folder(to.parent().unwrap_or(Path::new("")))
}

/// The names of a folder's entries, sorted; those that are no UTF-8 are none of ours.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(ModelError::read(folder))? {
        let entry = entry.map_err(ModelError::read(folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bytes = fs::read(path).map_err(ModelError::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ModelError::Format { path: path.to_owned(), reason: error.to_string() })
}

/// `sha256sum`'s format: digest, two spaces, path.
pub(crate) fn sums_text(files: &BTreeMap<String, Digest>) -> String {
    files.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
}

/// Reads a `SHA256SUMS`; `None` where the folder has none. Paths that lead out of the folder are refused.
pub(crate) fn read_sums(folder: &Path) -> Result<Option<BTreeMap<String, Digest>>, ModelError> {
    let path = folder.join(SUMS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ModelError::read(&path)(error)),
    };
    parse_sums(&path, &text).map(Some)
}

/// Reads the text of a `SHA256SUMS` that lies at a path.
pub(crate) fn parse_sums(path: &Path, text: &str) -> Result<BTreeMap<String, Digest>, ModelError> {
    let mut sums = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields = line.split_once(' ').and_then(|(digest, name)| {
            let name = name.strip_prefix([' ', '*'])?;
            Some((digest.to_lowercase().parse::<Digest>().ok()?, name.strip_prefix("./").unwrap_or(name)))
        });
        let inside =
            |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        match fields.filter(|(_, name)| !name.is_empty() && inside(name)) {
            Some((digest, name)) => sums.insert(name.to_owned(), digest),
            None => {
                let reason = format!("line {} is no digest and path within the folder", index + 1);
                return Err(ModelError::Format { path: path.to_owned(), reason });
            }
        };
    }
    Ok(sums)
}
