use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moat_contracts::{Architecture, ArchitectureError, Digest};
use moat_template::{BaseText, Message, TemplateError};

use crate::files::{Passage, SUMS, digest, fresh_folder, names, publish, read_json, read_sums, write};
use crate::store::{FileEntry, RECORD, hash_of, is_name};
use crate::weights::{Check, INDEX, Layout};
use crate::{ImportedBase, ModelError, find};

/// What is taken beside the weights, where a folder has it. Everything else stays behind, programs above all.
const COMPANIONS: [&str; 15] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// Verifies a folder in Hugging Face's layout and copies it into the store under `name`, by default the folder's own
/// name. Files that a `SHA256SUMS` in the folder lists must have the sums that it gives.
///
/// The copy appears whole or not at all. The same content under the same name again changes nothing.
///
/// # Errors
/// [`ModelError`] says what is wrong with the folder, or that the name is taken.
pub fn import(folder: &Path, store: &Path, name: Option<&str>) -> Result<ImportedBase, ModelError> {
    let own = fs::canonicalize(folder).map_err(ModelError::read(folder))?;
    let own = own.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.map_or(own, str::to_owned);
    if !is_name(&name) {
        return Err(ModelError::Name(name));
    }
    let present = names(folder)?;
    let (architecture, family) = read_config(folder, &present)?;
    let layout = Layout::of(folder, &present)?;
    let (chat, chat_fault) = check_text(folder, &architecture)?;

    let unfinished = store.join(format!(".import-{name}"));
    fresh_folder(&unfinished)?;
    let copied = copy(folder, &unfinished, &present, &architecture, &layout);
    let finished = copied.and_then(|(files, bytes)| {
        let hash = hash_of(&files);
        let parameters = architecture.parameters();
        let folder = store.join(&name);
        let base = ImportedBase { name, hash, family, parameters, bytes, chat, chat_fault, files, folder };
        finish(store, &unfinished, base)
    });
    if finished.is_err() {
        // The reason of the failure matters more than what is left of it; the next import clears it as well.
        let _ = fs::remove_dir_all(&unfinished);
    }
    finished
}

fn finish(store: &Path, unfinished: &Path, base: ImportedBase) -> Result<ImportedBase, ModelError> {
    if let Some(there) = find(store, &base.name)? {
        if there.hash != base.hash {
            return Err(ModelError::Taken { name: base.name, hash: there.hash });
        }
        fs::remove_dir_all(unfinished).map_err(ModelError::written(unfinished))?;
        return Ok(there);
    }
    let record = unfinished.join(RECORD);
    let json = serde_json::to_vec_pretty(&base)
        .map_err(|error| ModelError::Format { path: record.clone(), reason: error.to_string() })?;
    write(&record, &json)?;
    publish(unfinished, &base.folder)?;
    Ok(base)
}

fn read_config(folder: &Path, present: &[String]) -> Result<(Architecture, String), ModelError> {
    for file in ["config.json", "tokenizer.json"] {
        if !present.iter().any(|name| name == file) {
            return Err(ModelError::NoFile { folder: folder.to_owned(), file });
        }
    }
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::read(&path))?;
    let architecture = Architecture::from_config(&text)?;
    let family = read_json(&path)?["architectures"][0].as_str().map(str::to_owned);
    Ok((architecture, family.ok_or(ArchitectureError::Key("architectures"))?))
}

/// Tokenizer, special tokens and template belong to each other and to the weights. A template that cannot be parsed
/// or rendered is damage; one through which a chat cannot be learnt (many bases carry their chat sibling's, whose
/// end-of-turn token they never stop at) only keeps chats out.
fn check_text(folder: &Path, architecture: &Architecture) -> Result<(bool, Option<String>), ModelError> {
    let text = BaseText::load(folder)?;
    let vocabulary = architecture.vocabulary;
    // Special tokens may lie beyond: Gemma 3's text models have a tokenizer that also marks images.
    let highest = text.plain_size().saturating_sub(1);
    if highest >= vocabulary {
        return Err(ModelError::Vocabulary { what: "tokenizer.json", highest, vocabulary });
    }
    let tokens = text.stops().iter().copied().chain(text.start());
    if let Some(highest) = tokens.map(|token| token as usize).max().filter(|highest| *highest >= vocabulary) {
        return Err(ModelError::Vocabulary { what: "a special token", highest, vocabulary });
    }
    if text.template().is_none() {
        return Ok((false, None));
    }
    match text.check_template() {
        Ok(_) => {
            let printed = text.chat_prompt(&[Message::user("?")])?;
            match printed.into_iter().map(|token| token as usize).max().filter(|token| *token >= vocabulary) {
                Some(highest) => {
                    Err(ModelError::Vocabulary { what: "the chat template", highest, vocabulary })
                }
                None => Ok((true, None)),
            }
        }
        Err(fault @ (TemplateError::NoStop | TemplateError::NoAnswer | TemplateError::Prefix { .. })) => {
            Ok((false, Some(fault.to_string())))
        }
        Err(damage) => Err(damage.into()),
    }
}

fn copy(
    folder: &Path,
    to: &Path,
    present: &[String],
    architecture: &Architecture,
    layout: &Layout,
) -> Result<(BTreeMap<String, FileEntry>, u64), ModelError> {
    let mut sums = read_sums(folder)?.unwrap_or_default();
    let mut vouched = |name: &str, path: &Path, found: Digest| match sums.remove(name) {
        Some(expected) if expected != found => {
            Err(ModelError::Sum { path: path.to_owned(), sums: SUMS, expected, found })
        }
        _ => Ok(()),
    };
    let mut files = BTreeMap::new();
    let index = matches!(layout, Layout::Sharded(_)).then_some(INDEX);
    for name in COMPANIONS.into_iter().chain(index).filter(|name| present.iter().any(|have| have == name)) {
        let (path, copy) = (folder.join(name), to.join(name));
        let (sha256, size) = Passage::open(&path, Some(&copy))?.finish()?;
        vouched(name, &path, sha256)?;
        files.insert(name.to_owned(), FileEntry { sha256, size });
    }
    let mut bytes = 0;
    let mut check = Check::new(architecture, layout);
    for name in layout.files() {
        let (path, copy) = (folder.join(&name), to.join(&name));
        let (sha256, size) = check.file(&name, Passage::open(&path, Some(&copy))?)?;
        vouched(&name, &path, sha256)?;
        bytes += size;
        files.insert(name, FileEntry { sha256, size });
    }
    check.finish()?;
    // What is listed and not taken must still be what it was: a folder that is wrong in one place is not trusted.
    for (name, expected) in sums {
        let path = folder.join(name);
        let found = digest(&path)?;
        if found != expected {
            return Err(ModelError::Sum { path, sums: SUMS, expected, found });
        }
    }
    Ok((files, bytes))
}
