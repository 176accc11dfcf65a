use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use moat_contracts::{Dataset, Digest, EdgeReport, Recipe, TrainOutcome};
use serde_json::json;

use crate::files::{self, Passage, SUMS, digest, fresh_folder, publish, sums_text, sync_folder, write};
use crate::{ImportedBase, ModelError, card};

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
    /// Folder of the adapter; none where all weights were trained.
    pub adapter: Option<&'a Path>,
    /// Folder of the merged model, or of the fully trained one.
    pub model: &'a Path,
}

/// Writes `model/` and, where there is one, `adapter/`, with `README.md`, `lineage.json`, `dataset-manifest` and
/// `SHA256SUMS`, into a folder that does not exist yet. It appears whole or not at all. Returns each file's path in
/// it and its SHA-256.
///
/// # Errors
/// [`ModelError::Exists`], or what cannot be read or written.
pub fn export(facts: &Export<'_>, folder: &Path) -> Result<BTreeMap<String, Digest>, ModelError> {
    if folder.exists() {
        return Err(ModelError::Exists(folder.to_owned()));
    }
    let unfinished = beside(folder);
    fresh_folder(&unfinished)?;
    let finished = fill(facts, &unfinished).and_then(|sums| {
        publish(&unfinished, folder)?;
        Ok(sums)
    });
    if finished.is_err() {
        // The reason of the failure matters more than what is left of it; the next export clears it as well.
        let _ = fs::remove_dir_all(&unfinished);
    }
    finished
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
    copy_folder(facts.model, folder, "model", &mut sums)?;
    if let Some(adapter) = facts.adapter {
        copy_folder(adapter, folder, "adapter", &mut sums)?;
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

fn copy_folder(
    from: &Path,
    to: &Path,
    part: &str,
    sums: &mut BTreeMap<String, Digest>,
) -> Result<(), ModelError> {
    let folder = to.join(part);
    fs::create_dir(&folder).map_err(ModelError::written(&folder))?;
    for name in files::names(from)? {
        let (path, copy) = (from.join(&name), folder.join(&name));
        if path.is_file() {
            let (sum, _) = Passage::open(&path, Some(&copy))?.finish()?;
            sums.insert(format!("{part}/{name}"), sum);
        }
    }
    sync_folder(&folder)
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
