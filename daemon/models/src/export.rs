use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use moat_contracts::{Dataset, DatasetId, Digest, EdgeReport, Method, Recipe, RunKey, RunPart, TrainOutcome};
use moat_vault::{DataKey, Recipient, SealedFolder, VaultError};
use serde::Serialize;
use serde_json::json;

use crate::files::{self, Passage, SUMS, digest, fresh_folder, publish, sums_text, sync_folder, write};
use crate::{ImportedBase, ModelError, card};

/// What a file that is encrypted to a recipient ends with.
const ENCRYPTED: &str = ".age";

/// Everything that an export tells of a run.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// Moat's version.
    pub version: &'a str,
    /// What decided the result.
    pub recipe: &'a Recipe,
    /// What was trained and measured on.
    pub dataset: &'a Dataset,
    /// The dataset's canonical manifest.
    pub manifest: &'a str,
    /// What was tuned.
    pub base: &'a ImportedBase,
    /// How training ended.
    pub outcome: &'a TrainOutcome,
    /// What it brought.
    pub edge: &'a EdgeReport,
    /// The runs whose weights it started from, the nearest first.
    pub earlier: &'a [Earlier],
    /// Where its files lie.
    pub files: Parts<'a>,
}

/// A run from whose weights another started: what it learnt is in these too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Its name.
    pub run: String,
    /// Hash of its recipe.
    pub recipe: Digest,
    /// What it was trained on.
    pub dataset: DatasetId,
    /// SHA-256 of its weights.
    pub weights: Digest,
}

/// Where the files of an export lie until two people agreed to it: all of them sealed.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The run's name.
    pub run: &'a str,
    /// The key of the run's files.
    pub key: &'a RunKey,
    /// Folder of what the run trained: an adapter, or a model where the recipe trains all weights.
    pub tuned: &'a Path,
    /// Folder of what is made for the export: its papers and, for an adapter, `model`, which an engine merges.
    pub staging: &'a Path,
}

/// An export that is complete and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Each file's path and SHA-256.
    pub files: BTreeMap<String, Digest>,
    /// SHA-256 of its `SHA256SUMS`, which names it.
    pub hash: Digest,
    /// Bytes of all its files, `SHA256SUMS` included.
    pub bytes: u64,
}

impl Parts<'_> {
    /// Where an engine is to write the merged model, if what was trained is an adapter.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.staging.join(RunPart::Model.word())
    }

    fn folder(&self, path: &Path, part: RunPart) -> SealedFolder {
        SealedFolder::new(path, DataKey::from_bytes(self.key.expose()), part.object(self.run))
    }

    fn papers(&self) -> SealedFolder {
        self.folder(self.staging, RunPart::Export)
    }

    /// The folders of weights, by their names in the export.
    fn weights(&self) -> Vec<(RunPart, SealedFolder)> {
        let merged = self.model();
        if merged.exists() {
            let adapter = self.folder(self.tuned, RunPart::Adapter);
            vec![(RunPart::Adapter, adapter), (RunPart::Model, self.folder(&merged, RunPart::Model))]
        } else {
            vec![(RunPart::Model, self.folder(self.tuned, RunPart::Model))]
        }
    }
}

/// Completes an export where it lies sealed: sums `adapter/` and `model/`, and adds `README.md`, `lineage.json`,
/// `dataset-manifest` and `SHA256SUMS`. Nothing plain is written.
///
/// # Errors
/// [`ModelError::Sum`] where the weights are not those that the run ended with, or what cannot be read or written.
pub fn stage(facts: &Export<'_>) -> Result<Staged, ModelError> {
    let (mut sums, mut bytes) = (BTreeMap::new(), 0);
    for (part, folder) in facts.files.weights() {
        for name in folder.names().map_err(|error| unopened(folder.path(), error))? {
            let (sum, size) = pass(&folder, &name, None)?;
            sums.insert(format!("{}/{name}", part.word()), sum);
            bytes += size;
        }
    }
    let (part, weights) = match facts.recipe.train.method {
        Method::Lora => (RunPart::Adapter, "adapter_model.safetensors"),
        Method::Full => (RunPart::Model, "model.safetensors"),
    };
    let (expected, path) = (facts.outcome.weights, facts.files.tuned.join(weights));
    match sums.get(&format!("{}/{weights}", part.word())) {
        Some(found) if *found == expected => {}
        Some(found) => {
            return Err(ModelError::Sum { path, sums: "the run's outcome", expected, found: *found });
        }
        None => return Err(ModelError::NoFile { folder: facts.files.tuned.to_owned(), file: weights }),
    }
    fs::create_dir_all(facts.files.staging).map_err(ModelError::written(facts.files.staging))?;
    let papers = facts.files.papers();
    let mut keep = |name: &str, text: &str| {
        let place = papers.place(name);
        let mut file = papers.create(name).map_err(|error| unwritten(&place, error))?;
        file.write_all(text.as_bytes()).map_err(ModelError::written(&place))?;
        file.publish().map_err(|error| unwritten(&place, error))?;
        bytes += text.len() as u64;
        Ok::<_, ModelError>(Digest::of(text.as_bytes()))
    };
    for (name, text) in [
        ("README.md", card::card(facts)),
        ("lineage.json", lineage(facts)),
        ("dataset-manifest", facts.manifest.to_owned()),
    ] {
        sums.insert(name.to_owned(), keep(name, &text)?);
    }
    let hash = keep(SUMS, &sums_text(&sums))?;
    sync_folder(facts.files.staging)?;
    sync_folder(facts.files.staging.parent().unwrap_or(Path::new("")))?;
    Ok(Staged { files: sums, hash, bytes })
}

/// What is staged, by what lies there now; the sums of single files are held against their content when they leave.
///
/// # Errors
/// What cannot be read.
pub fn measure(parts: &Parts<'_>) -> Result<Staged, ModelError> {
    let papers = parts.papers();
    let listed = text(&papers, SUMS)?;
    let files = files::parse_sums(&papers.place(SUMS), &listed)?;
    let mut bytes = 0;
    let all = parts.weights().into_iter().map(|(_, folder)| folder).chain([papers]);
    for folder in all {
        for name in folder.names().map_err(|error| unopened(folder.path(), error))? {
            let path = folder.place(&name);
            let mut file = folder.open(&name).map_err(|error| unopened(&path, error))?;
            bytes += file.length().map_err(ModelError::read(&path))?;
        }
    }
    Ok(Staged { files, hash: Digest::of(listed.as_bytes()), bytes })
}

/// Removes what a release into a folder left where it was cut off.
pub fn forget_unfinished(to: &Path) {
    drop(Unfinished(beside(to)));
}

/// Writes a staged export into a new folder: plain, or each file encrypted to a recipient (the age format), with sums of
/// what is written. It appears whole or not at all. Returns each written file's path in it and its SHA-256.
///
/// # Errors
/// [`ModelError::Sum`] where anything is not what `hash` names, [`ModelError::Exists`], or what cannot be read or
/// written.
pub fn release(
    parts: &Parts<'_>,
    hash: Digest,
    to: &Path,
    recipient: Option<&Recipient>,
) -> Result<BTreeMap<String, Digest>, ModelError> {
    if to.exists() {
        return Err(ModelError::Exists(to.to_owned()));
    }
    let unfinished = Unfinished(beside(to));
    fresh_folder(&unfinished.0)?;
    let written = fill(parts, hash, &unfinished.0, recipient)?;
    publish(&unfinished.0, to)?;
    Ok(written)
}

/// A hidden folder, which goes where it was not published.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What cannot be removed now, the next export into the folder removes.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn fill(
    parts: &Parts<'_>,
    hash: Digest,
    to: &Path,
    recipient: Option<&Recipient>,
) -> Result<BTreeMap<String, Digest>, ModelError> {
    let papers = parts.papers();
    let listed = text(&papers, SUMS)?;
    let found = Digest::of(listed.as_bytes());
    if found != hash {
        let path = papers.place(SUMS);
        return Err(ModelError::Sum { path, sums: "what was agreed to", expected: hash, found });
    }
    let mut sums = files::parse_sums(&papers.place(SUMS), &listed)?;
    let mut folders = parts.weights();
    folders.sort_by_key(|(part, _)| part.word());
    for (part, _) in &folders {
        let folder = to.join(part.word());
        fs::create_dir(&folder).map_err(ModelError::written(&folder))?;
    }
    let mut written = BTreeMap::new();
    if recipient.is_some() {
        // Encrypted, the sums that were agreed to go along; the plain ones beside them are of what is written.
        sums.insert(SUMS.to_owned(), hash);
    }
    for (name, expected) in &sums {
        let inner = name.split_once('/');
        let folder = match inner {
            None => Some((&papers, name.as_str())),
            Some((part, inner)) => {
                let folder = folders.iter().find(|(found, _)| found.word() == part);
                folder.map(|(_, folder)| (folder, inner))
            }
        };
        let (folder, inner) =
            folder.ok_or_else(|| ModelError::Unlisted { path: parts.staging.join(name) })?;
        let place = if recipient.is_some() { format!("{name}{ENCRYPTED}") } else { name.clone() };
        let (found, sum) = match recipient {
            None => pass(folder, inner, Some(&to.join(&place))).map(|(sum, _)| (sum, sum))?,
            Some(recipient) => encrypt(folder, inner, &to.join(&place), recipient)?,
        };
        if found != *expected {
            let path = folder.place(inner);
            return Err(ModelError::Sum { path, sums: SUMS, expected: *expected, found });
        }
        written.insert(place, sum);
    }
    for (part, _) in &folders {
        sync_folder(&to.join(part.word()))?;
    }
    write(&to.join(SUMS), sums_text(&written).as_bytes())?;
    Ok(written)
}

/// Reads a sealed file through, and copies its plain bytes where there is a copy. Gives their SHA-256 and number.
fn pass(folder: &SealedFolder, name: &str, to: Option<&Path>) -> Result<(Digest, u64), ModelError> {
    let path = folder.place(name);
    let file = folder.open(name).map_err(|error| unopened(&path, error))?;
    Passage::of(&path, Box::new(file), to)?.finish()
}

/// Encrypts a sealed file's plain bytes into a new file. Gives the SHA-256 of the plain bytes and of the written ones.
fn encrypt(
    folder: &SealedFolder,
    name: &str,
    to: &Path,
    recipient: &Recipient,
) -> Result<(Digest, Digest), ModelError> {
    let path = folder.place(name);
    let from = folder.open(name).map_err(|error| unopened(&path, error))?;
    let mut passage = Passage::of(&path, Box::new(from), None)?;
    let file = fs::File::create_new(to).map_err(ModelError::written(to))?;
    let mut writer = recipient.encrypt(&file).map_err(|error| unwritten(to, error))?;
    let mut buffer = vec![0; files::CHUNK];
    loop {
        let read = passage.fill(&mut buffer)?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).map_err(ModelError::written(to))?;
    }
    writer.finish().map_err(ModelError::written(to))?;
    file.sync_all().map_err(ModelError::written(to))?;
    Ok((passage.finish()?.0, digest(to)?))
}

fn text(folder: &SealedFolder, name: &str) -> Result<String, ModelError> {
    let path = folder.place(name);
    let mut text = String::new();
    let mut file = folder.open(name).map_err(|error| unopened(&path, error))?;
    file.read_to_string(&mut text).map_err(ModelError::read(&path))?;
    Ok(text)
}

/// Recomputes every sum of an exported folder.
///
/// # Errors
/// [`ModelError::Sum`] for a file that changed, [`ModelError::Unlisted`] for one that was added, or what cannot be
/// read.
pub fn verify_export(folder: &Path) -> Result<BTreeMap<String, Digest>, ModelError> {
    let sums = files::read_sums(folder)?;
    let sums = sums.ok_or_else(|| ModelError::NoFile { folder: folder.to_owned(), file: SUMS })?;
    for (name, expected) in &sums {
        let path = folder.join(name);
        let found = digest(&path)?;
        if found != *expected {
            return Err(ModelError::Sum { path, sums: SUMS, expected: *expected, found });
        }
    }
    let mut folders = vec![String::new()];
    while let Some(part) = folders.pop() {
        for name in files::names(&folder.join(&part))? {
            let name = format!("{part}{name}");
            let path = folder.join(&name);
            if path.is_dir() {
                folders.push(format!("{name}/"));
            } else if name != SUMS && !sums.contains_key(&name) {
                return Err(ModelError::Unlisted { path });
            }
        }
    }
    Ok(sums)
}

/// A hidden name in the same folder, so that renaming never crosses file systems.
fn beside(folder: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(".unfinished");
    folder.with_file_name(name)
}

/// The system's own reason where there is one, since the path is named already.
fn unopened(path: &Path, error: VaultError) -> ModelError {
    ModelError::read(path)(match error {
        VaultError::Io { source, .. } => source,
        other => other.into(),
    })
}

fn unwritten(path: &Path, error: VaultError) -> ModelError {
    ModelError::written(path)(match error {
        VaultError::Io { source, .. } => source,
        other => other.into(),
    })
}

/// Where the weights come from, all of it by hash.
fn lineage(facts: &Export<'_>) -> String {
    let Export { dataset, base, recipe, .. } = facts;
    let lineage = json!({
        "version": 1,
        "moat": facts.version,
        "run": facts.files.run,
        "base": { "name": base.name, "hash": base.hash, "family": base.family, "parameters": base.parameters },
        "recipe": recipe,
        "recipe_hash": recipe.hash(),
        "dataset": {
            "id": dataset.id,
            "recipe": dataset.recipe,
            "rules": dataset.rules,
            "tokenizer": dataset.tokenizer,
            "records": dataset.entries.len(),
            "sources": dataset.sources,
        },
        "earlier": facts.earlier,
        "training": facts.outcome,
        "edge": facts.edge,
    });
    format!("{lineage:#}\n")
}
