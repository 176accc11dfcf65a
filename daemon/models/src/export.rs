use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use moat_contracts::{Dataset, Digest, EdgeReport, Method, Recipe, RunKey, RunPart, TrainOutcome};
use moat_vault::{DataKey, SealedFolder, VaultError};
use serde_json::json;

use crate::files::{self, Passage, SUMS, digest, fresh_folder, publish, sums_text, sync_folder, write};
use crate::{ImportedBase, ModelError, card};

/// The folder of the model in an export; `Begun::model` and a fully trained run's part agree on it.
const MODEL: &str = RunPart::Model.word();

/// Everything that an export tells of a run.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The run's name.
    pub run: &'a str,
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
    /// Folder of what the run trained: an adapter, or a model where the recipe trains all weights.
    pub tuned: &'a Path,
    /// Opens what the run trained; none where it is plain.
    pub key: Option<&'a RunKey>,
}

/// An export on its way, hidden beside its place. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Begun {
    folder: PathBuf,
    unfinished: PathBuf,
}

/// Begins an export into a folder that does not exist yet.
///
/// # Errors
/// [`ModelError::Exists`], or what cannot be written.
pub fn begin(folder: &Path) -> Result<Begun, ModelError> {
    if folder.exists() {
        return Err(ModelError::Exists(folder.to_owned()));
    }
    let begun = Begun { folder: folder.to_owned(), unfinished: beside(folder) };
    fresh_folder(&begun.unfinished)?;
    Ok(begun)
}

impl Begun {
    /// Where an engine is to write the merged model, before the end, if what was trained is an adapter.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.unfinished.join(MODEL)
    }

    /// Adds `adapter/`, or `model/` where all weights were trained, with `README.md`, `lineage.json`,
    /// `dataset-manifest` and `SHA256SUMS`, all of it plain, and gives the folder its name. It appears whole or not at
    /// all. Returns each file's path in it and its SHA-256.
    ///
    /// # Errors
    /// [`ModelError::Sum`] where the weights are not those that the run ended with, [`ModelError::Exists`], or what
    /// cannot be read or written.
    pub fn finish(self, facts: &Export<'_>) -> Result<BTreeMap<String, Digest>, ModelError> {
        let sums = fill(facts, &self.unfinished)?;
        publish(&self.unfinished, &self.folder)?;
        Ok(sums)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // What cannot be removed now, the next export into the folder removes.
        drop(fs::remove_dir_all(&self.unfinished));
    }
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

fn fill(facts: &Export<'_>, folder: &Path) -> Result<BTreeMap<String, Digest>, ModelError> {
    let mut sums = BTreeMap::new();
    let (part, weights) = match facts.recipe.train.method {
        Method::Lora => {
            sum_folder(folder, MODEL, &mut sums)?;
            (RunPart::Adapter, "adapter_model.safetensors")
        }
        Method::Full => (RunPart::Model, "model.safetensors"),
    };
    copy_part(facts, part, folder, &mut sums)?;
    let (expected, path) = (facts.outcome.weights, folder.join(part.word()).join(weights));
    match sums.get(&format!("{}/{weights}", part.word())) {
        Some(found) if *found == expected => {}
        Some(found) => {
            return Err(ModelError::Sum { path, sums: "the run's outcome", expected, found: *found });
        }
        None => return Err(ModelError::NoFile { folder: facts.tuned.to_owned(), file: weights }),
    }
    for (name, text) in [
        ("README.md", card::card(facts)),
        ("lineage.json", lineage(facts)),
        ("dataset-manifest", facts.manifest.to_owned()),
    ] {
        sums.insert(name.to_owned(), write(&folder.join(name), text.as_bytes())?);
    }
    write(&folder.join(SUMS), sums_text(&sums).as_bytes())?;
    Ok(sums)
}

/// Takes in what was written to its place already.
fn sum_folder(folder: &Path, part: &str, sums: &mut BTreeMap<String, Digest>) -> Result<(), ModelError> {
    let folder = folder.join(part);
    for name in files::names(&folder)? {
        sums.insert(format!("{part}/{name}"), digest(&folder.join(&name))?);
    }
    Ok(())
}

/// Copies what the run trained; what is sealed is opened on the way, chunk by chunk.
fn copy_part(
    facts: &Export<'_>,
    part: RunPart,
    to: &Path,
    sums: &mut BTreeMap<String, Digest>,
) -> Result<(), ModelError> {
    let to = to.join(part.word());
    fs::create_dir(&to).map_err(ModelError::written(&to))?;
    let sealed = facts
        .key
        .map(|key| SealedFolder::new(facts.tuned, DataKey::from_bytes(key.expose()), part.object(facts.run)));
    let names = match &sealed {
        Some(folder) => folder.names().map_err(|error| unopened(facts.tuned, error))?,
        None => files::names(facts.tuned)?,
    };
    for name in names {
        let copy = to.join(&name);
        let sum = match &sealed {
            Some(folder) => {
                let path = folder.place(&name);
                let file = folder.open(&name).map_err(|error| unopened(&path, error))?;
                Passage::of(&path, Box::new(file), Some(&copy))?.finish()?.0
            }
            None => {
                let path = facts.tuned.join(&name);
                if !path.is_file() {
                    continue;
                }
                Passage::open(&path, Some(&copy))?.finish()?.0
            }
        };
        sums.insert(format!("{}/{name}", part.word()), sum);
    }
    sync_folder(&to)
}

/// The system's own reason where there is one, since the path is named already.
fn unopened(path: &Path, error: VaultError) -> ModelError {
    ModelError::read(path)(match error {
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
        "run": facts.run,
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
        "training": facts.outcome,
        "edge": facts.edge,
    });
    format!("{lineage:#}\n")
}
