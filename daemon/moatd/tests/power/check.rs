//! What must be true of whatever a kill or a power cut leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_catalog::{Catalog, RunRow, StepRow};
use moat_contracts::{DatasetId, Digest, DocumentState, RunPart};
use moat_ledger::{Act, Entry, Ledger, Phase, PublicKey, Who, verify, verify_receipt};
use moat_protocol::control::Run;
use moat_vault::{DataKey, Kek, SealedFolder, Vault};
use rusqlite::Connection;

use crate::story::{Documents, Told};

/// A document's records: ordinal, id and verdict.
type Rows = Vec<(u32, String, &'static str)>;

/// Holds states against what was told, against the life's end, and against each other.
pub(crate) struct Checker {
    key: PathBuf,
    /// The life's end: what each step of each run measured, and the ledger's lines.
    steps: BTreeMap<String, Vec<StepRow>>,
    lines: Vec<Vec<u8>>,
    /// What records a document of some bytes has: never others.
    rows: HashMap<(String, Digest), Rows>,
}

/// What a state holds, for whoever starts a daemon on it.
pub(crate) struct Held {
    pub(crate) runs: Vec<RunRow>,
}

macro_rules! hold {
    ($holds:expr, $($said:tt)*) => {
        if !$holds {
            return Err(format!($($said)*));
        }
    };
}

fn said<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

impl Checker {
    /// Learns the life's end, in a folder that is its own to change.
    pub(crate) fn new(key: &Path, end: &Path) -> Self {
        let mut checker =
            Self { key: key.to_owned(), steps: BTreeMap::new(), lines: Vec::new(), rows: HashMap::new() };
        let vault = checker.vault(&end.join("state")).unwrap();
        let catalog = Catalog::open(&end.join("state/catalog.db"), &vault).unwrap();
        for run in catalog.runs().unwrap() {
            checker.steps.insert(run.name.clone(), catalog.steps(&run.name).unwrap());
        }
        checker.lines = lines(&end.join("state/ledger"));
        assert!(!checker.lines.is_empty() && checker.steps.len() == 2);
        checker
    }

    fn vault(&self, state: &Path) -> Result<Arc<Vault>, String> {
        let key = Kek::credential_in(&self.key).unwrap();
        said("the vault does not open", Vault::open(&state.join("vault"), &key)).map(Arc::new)
    }

    /// Checks a state, and changes it. The error says what was lost.
    pub(crate) fn check(&mut self, site: &Path, told: &Told<'_>) -> Result<Held, String> {
        let state = site.join("state");
        if !Vault::exists(&state.join("vault")) {
            hold!(told.vault.is_none() && told.ledger == 0, "the vault is gone");
            for path in ["catalog.db", "ledger/entries"] {
                hold!(!state.join(path).exists(), "{path} came before the vault");
            }
            return Ok(Held { runs: Vec::new() });
        }
        let vault = self.vault(&state)?;
        self.slots(&vault, told)?;
        let entries = self.ledger(site, &vault, told)?;
        let acts = Acts(&entries);
        let serial = said("serial", vault.serial())?;
        let known = entries.iter().filter(|entry| entry.act == "vault.unseal" && entry.phase == Phase::Done);
        for known in known.filter_map(|entry| entry.detail.get("serial")) {
            hold!(known.parse::<u64>().is_ok_and(|known| known <= serial), "the ledger knows a newer vault");
        }
        let generation = said("generation", vault.generation())?;
        acts.announced("vault.rotate", generation as usize - 1)?;
        self.bases(&state, told, &acts)?;
        exports(site, told, &acts)?;
        if !state.join("catalog.db").exists() {
            hold!(told.documents.is_none() && told.runs.is_empty() && told.datasets.is_empty(), "no catalog");
            return Ok(Held { runs: Vec::new() });
        }
        self.catalog(&state, &vault, told, &acts)
    }

    fn slots(&self, vault: &Vault, told: &Told<'_>) -> Result<(), String> {
        let Some(seal) = told.vault else { return Ok(()) };
        let found: Vec<u32> = said("slots", vault.slots())?.iter().map(|slot| slot.id).collect();
        let allowed = [Some(seal), told.vault_next].into_iter().flatten();
        let mut allowed = allowed.map(|seal| seal.slots.iter().map(|slot| slot.id).collect::<Vec<_>>());
        hold!(allowed.any(|slots| slots == found), "slots {found:?} after {:?} were told", seal.slots);
        let generation = said("generation", vault.generation())?;
        let last = seal.generation.unwrap_or(1);
        hold!((last..=last + 1).contains(&generation), "generation {generation} after {last} was told");
        Ok(())
    }

    fn ledger(&self, site: &Path, vault: &Vault, told: &Told<'_>) -> Result<Vec<Entry>, String> {
        let folder = site.join("state/ledger");
        let seed = said("the signing key", vault.derived("ledger signing key"))?;
        let key = said("the public key", PublicKey::of_seed(seed.expose()))?;
        let witness = site.join("witness/checkpoints");
        let witness = Some(witness.as_path()).filter(|witness| witness.exists());
        if folder.join("entries").exists() {
            let report = said("the ledger cannot be verified", verify(&folder, &key, witness))?;
            hold!(report.is_sound(), "the ledger is not sound: {report:?}");
        }
        let ledger = said("the ledger does not open", Ledger::open(&folder, Some(seed.expose())))?;
        let size = ledger.size();
        hold!(size >= told.ledger, "the ledger has {size} entries of {} that were told", told.ledger);
        for receipt in &told.receipts {
            let (entry, checkpoint) = said("a receipt", verify_receipt(receipt, &key))?;
            hold!(checkpoint.size <= size && entry.index < size, "a receipt proves more than there is");
            hold!(said("a root", ledger.root_at(checkpoint.size))? == checkpoint.root, "a receipt is void");
        }
        let found = lines(&folder);
        hold!(found.len() as u64 == size && self.lines.starts_with(&found), "the ledger has other lines");
        // It goes on from here.
        let act = Act::new(Who::daemon(), "daemon.end", Phase::Done);
        hold!(said("an append", ledger.append(&act))? == size, "the next entry is not the next");
        said("a checkpoint", ledger.checkpoint())?;
        if let Some(witness) = witness {
            said("the witness", ledger.copy_checkpoint(witness))?;
        }
        drop(ledger);
        let report = said("the ledger cannot be verified again", verify(&folder, &key, witness))?;
        hold!(report.is_sound() && report.covered == size + 1, "the ledger is not sound again: {report:?}");
        found.iter().map(|line| said("an entry", serde_json::from_slice(&line[18..]))).collect()
    }

    fn bases(&self, state: &Path, told: &Told<'_>, acts: &Acts<'_>) -> Result<(), String> {
        let store = state.join("bases");
        for base in &told.bases {
            let found = said("a base", moat_models::verify(&store, &base.name))?;
            hold!(found.hash == base.hash, "base {} is another", base.name);
        }
        let visible = names(&store).into_iter().filter(|name| !name.starts_with('.'));
        for name in visible {
            said("a visible base", moat_models::verify(&store, &name))?;
            acts.announced("base.import", 1)?;
        }
        Ok(())
    }

    fn catalog(
        &mut self,
        state: &Path,
        vault: &Arc<Vault>,
        told: &Told<'_>,
        acts: &Acts<'_>,
    ) -> Result<Held, String> {
        let path = state.join("catalog.db");
        let catalog = said("the catalog does not open", Catalog::open(&path, vault))?;
        let database = said("the catalog's file", Connection::open(&path))?;
        let whole = said(
            "integrity",
            database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)),
        )?;
        hold!(whole == "ok", "the catalog is damaged: {whole}");
        let orphans = said("keys", database.prepare("PRAGMA foreign_key_check"))?.exists([]);
        hold!(!said("keys", orphans)?, "a row of the catalog refers to none");
        drop(database);
        self.documents(&catalog, told, acts)?;

        let mut datasets = BTreeSet::new();
        for summary in said("datasets", catalog.datasets())? {
            dataset(&catalog, summary.id, told)?;
            datasets.insert(summary.id);
        }
        hold!(told.datasets.keys().all(|id| datasets.contains(id)), "a dataset that was told is gone");
        let runs = said("runs", catalog.runs())?;
        hold!(
            told.runs.keys().all(|name| runs.iter().any(|run| run.name == *name)),
            "a run that was told is gone"
        );
        acts.announced("run.start", runs.len())?;
        for run in &runs {
            hold!(run.dataset.is_none_or(|id| datasets.contains(&id)), "the dataset of {} is gone", run.name);
            self.run(state, &catalog, run, told, acts)?;
        }
        let folders = names(&state.join("runs"));
        let orphan = folders.iter().find(|name| !runs.iter().any(|run| run.name == **name));
        hold!(orphan.is_none(), "the folder of run {orphan:?} came before the run");
        Ok(Held { runs })
    }

    fn documents(&mut self, catalog: &Catalog, told: &Told<'_>, acts: &Acts<'_>) -> Result<(), String> {
        let mut found = Vec::new();
        let each = |known| {
            found.push(known);
            Ok(())
        };
        said("documents", catalog.each_document("documents", each))?;
        if !found.is_empty() {
            acts.announced("source.take-in", 1)?;
        }
        let nothing = Documents::new();
        let last = told.documents.unwrap_or(&nothing);
        let next = told.documents_next.unwrap_or(last);
        let present: BTreeMap<&str, Digest> =
            found.iter().map(|known| (known.document.path.as_str(), known.document.digest)).collect();
        hold!(present.len() == found.len(), "a document is there twice");
        for path in last.keys().chain(next.keys()).map(String::as_str).chain(present.keys().copied()) {
            let there = present.get(path);
            let allowed = there == last.get(path) || there == next.get(path);
            hold!(allowed, "{path} is {there:?}, not {:?} or {:?}", last.get(path), next.get(path));
        }
        for known in found {
            hold!(known.state == DocumentState::Present, "{} is not present", known.document.path);
            let mut rows = Rows::new();
            for row in said("records", catalog.record_rows(known.document.id))? {
                let text = said("a text does not open", catalog.text(row.id))?;
                hold!(
                    text.is_some_and(|text| !text.is_empty()),
                    "the text of {} is gone",
                    known.document.path
                );
                rows.push((row.key.ordinal, row.id.to_string(), row.verdict.word()));
            }
            let document = (known.document.path.clone(), known.document.digest);
            let first = self.rows.entry(document).or_insert_with(|| rows.clone());
            hold!(!rows.is_empty() && *first == rows, "{} has other records", known.document.path);
        }
        Ok(())
    }

    fn run(
        &self,
        state: &Path,
        catalog: &Catalog,
        run: &RunRow,
        told: &Told<'_>,
        acts: &Acts<'_>,
    ) -> Result<(), String> {
        let name = run.name.as_str();
        let key = said("the key of a run", catalog.run_key(name))?;
        let Some(key) = key else { return Err(format!("the key of run {name} is gone")) };
        let steps = said("steps", catalog.steps(name))?;
        let all = &self.steps[name];
        hold!(all.starts_with(&steps), "run {name} has other steps");
        let done = steps.len() as u64;
        let checkpoint = told.checkpoints.get(name).copied().unwrap_or_default();
        hold!(done >= checkpoint, "run {name} has {done} steps of {checkpoint} that were told");
        if let Some(last) = told.runs.get(name) {
            as_told(run, last, done)?;
        }
        hold!(!told.done.contains(name) || run.state == "done", "run {name} was done and is {}", run.state);
        let folder = state.join("runs").join(name);
        if folder.exists() || steps.len() > 1 {
            hold!(acts.of("run.train", name), "run {name} trained before that was announced");
        }
        // Once the run is trained, its checkpoints are removed, and one may be there by half.
        let newest = sealed(&folder, name, &key, run.outcome.is_none())?;
        let Some(outcome) = &run.outcome else {
            hold!(newest >= checkpoint, "run {name} has checkpoint {newest} of {checkpoint} that was told");
            return Ok(());
        };
        let outcome: moat_contracts::TrainOutcome = said("an outcome", serde_json::from_str(outcome))?;
        let adapter = SealedFolder::new(
            &folder.join("adapter"),
            DataKey::from_bytes(key.expose()),
            RunPart::Adapter.object(name),
        );
        hold!(said("adapter", adapter.names())?.len() == 2, "the adapter of run {name} lacks a file");
        let weights = Digest::of(&opened(&adapter, "adapter_model.safetensors")?);
        hold!(weights == outcome.weights, "the weights of run {name} are others");
        Ok(())
    }
}

/// Whether a run is at least as far as its last word.
fn as_told(run: &RunRow, last: &Run, steps: u64) -> Result<(), String> {
    let name = &run.name;
    hold!(steps >= last.steps, "run {name} has {steps} steps of {} that were told", last.steps);
    hold!(last.dataset.is_none() || run.dataset == last.dataset, "run {name} has another dataset");
    hold!(run.recipe == last.recipe, "run {name} has another recipe");
    for (kept, told) in [(&run.outcome, last.outcome.is_some()), (&run.edge, last.edge.is_some())] {
        hold!(!told || kept.is_some(), "the result of run {name} is gone");
    }
    Ok(())
}

fn dataset(catalog: &Catalog, id: DatasetId, told: &Told<'_>) -> Result<(), String> {
    let found = said("a dataset", catalog.dataset(id))?;
    let Some(found) = found else { return Err(format!("dataset {id} is gone")) };
    hold!(Digest::of(moat_datasets::manifest(&found).as_bytes()) == id.0, "dataset {id} is another");
    hold!(told.datasets.get(&id).is_none_or(|told| **told == found), "dataset {id} is not as told");
    for entry in &found.entries {
        let text = said("a dataset's text does not open", catalog.text(entry.record))?;
        hold!(text.is_some(), "a text of dataset {id} is gone");
    }
    Ok(())
}

/// Opens every sealed file of a run that bears its final name; gives the newest checkpoint, which must be `whole`.
fn sealed(run: &Path, name: &str, key: &DataKey, whole: bool) -> Result<u64, String> {
    let open = |folder: &Path, part: RunPart| -> Result<SealedFolder, String> {
        let sealed = SealedFolder::new(folder, DataKey::from_bytes(key.expose()), part.object(name));
        for file in said("a folder", sealed.names())? {
            opened(&sealed, &file)?;
        }
        Ok(sealed)
    };
    let mut newest = None;
    for part in names(run) {
        let folder = run.join(&part);
        if part != "checkpoint" {
            open(&folder, RunPart::Adapter)?;
            continue;
        }
        for step in names(&folder) {
            let opened = open(&folder.join(&step), RunPart::Checkpoint)?;
            newest = newest.max(step.parse::<u64>().ok().map(|step| (step, opened.path().to_owned())));
        }
    }
    let Some((step, folder)) = newest.filter(|_| whole) else { return Ok(0) };
    let saved =
        SealedFolder::new(&folder, DataKey::from_bytes(key.expose()), RunPart::Checkpoint.object(name));
    let state: serde_json::Value =
        said("a checkpoint", serde_json::from_slice(&opened(&saved, "state.json")?))?;
    hold!(state["state"]["step"] == step, "checkpoint {step} of run {name} is another");
    for part in ["trainable", "moments"] {
        let digest = Digest::of(&opened(&saved, &format!("{part}.safetensors"))?).to_string();
        hold!(state[part] == digest, "the {part} of checkpoint {step} of run {name} are others");
    }
    Ok(step)
}

fn opened(folder: &SealedFolder, name: &str) -> Result<Vec<u8>, String> {
    let place = folder.place(name).display().to_string();
    let mut bytes = Vec::new();
    said(&place, folder.open(name))?.read_to_end(&mut bytes).map_err(|error| format!("{place}: {error}"))?;
    Ok(bytes)
}

fn exports(site: &Path, told: &Told<'_>, acts: &Acts<'_>) -> Result<(), String> {
    let folder = site.join("exports");
    for (name, files) in &told.exports {
        let found = said("an export", moat_models::verify_export(&folder.join(name)))?;
        hold!(found == **files, "export {name} is another");
    }
    for name in names(&folder).into_iter().filter(|name| !name.starts_with('.')) {
        said("a visible export", moat_models::verify_export(&folder.join(name)))?;
        acts.announced("export.write", 1)?;
    }
    Ok(())
}

/// What the ledger announces.
struct Acts<'a>(&'a [Entry]);

impl Acts<'_> {
    /// Whether an act was announced so many times, before it took effect.
    fn announced(&self, act: &str, times: usize) -> Result<(), String> {
        let found = self.0.iter().filter(|entry| entry.act == act && entry.phase == Phase::Intent).count();
        hold!(found >= times, "{act} took effect {times} times and was announced {found} times");
        Ok(())
    }

    fn of(&self, act: &str, run: &str) -> bool {
        self.0.iter().any(|entry| entry.act == act && entry.on.get("run").is_some_and(|name| name == run))
    }
}

/// The names in a folder; none where it is not there.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The ledger's lines.
fn lines(ledger: &Path) -> Vec<Vec<u8>> {
    let mut segments = names(&ledger.join("entries"));
    segments.sort();
    let bytes = segments.iter().flat_map(|name| fs::read(ledger.join("entries").join(name)).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}
