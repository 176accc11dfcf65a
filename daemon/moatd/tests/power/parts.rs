//! The parts of a state, each opened with the product's own crates and looked through as a whole. States share most of
//! their parts, so each different one is looked through once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use moat_catalog::{Catalog, RunRow, StepRow};
use moat_contracts::{Dataset, DatasetId, Digest, DocumentState, RunPart};
use moat_ledger::{Act, Entry, Ledger, Phase, PublicKey, Who, verify};
use moat_vault::{DataKey, Kek, SealedFolder, Vault};
use rusqlite::Connection;

use crate::disk::Image;
use crate::laid_out;
use crate::story::Documents;

macro_rules! hold {
    ($holds:expr, $($said:tt)*) => {
        if !$holds {
            return Err(format!($($said)*));
        }
    };
}
pub(crate) use hold;

/// Names what was being done when an error came.
pub(crate) fn said<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

type Seen<T> = RefCell<HashMap<Digest, Result<Arc<T>, String>>>;

/// Where the parts of a state lie.
const CORE: [&str; 2] = ["state/vault", "state/catalog.db"];
const LEDGER: [&str; 2] = ["state/ledger", "witness"];
const BASES: [&str; 1] = ["state/bases"];
const RUNS: [&str; 1] = ["state/runs"];
const EXPORTS: [&str; 1] = ["exports"];

/// The vault and what it opens of the catalog.
pub(crate) struct Core {
    pub(crate) slots: Vec<u32>,
    pub(crate) generation: u32,
    pub(crate) serial: u64,
    /// What the catalog holds, where there is one.
    pub(crate) catalog: Option<Stock>,
}

pub(crate) struct Stock {
    pub(crate) documents: Documents,
    pub(crate) datasets: BTreeMap<DatasetId, Dataset>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) steps: BTreeMap<String, Vec<StepRow>>,
    pub(crate) keys: BTreeMap<String, [u8; 32]>,
    /// Names of accounts, each of which opens.
    pub(crate) accounts: BTreeSet<String>,
    /// Statements that two people signed.
    pub(crate) agreed: usize,
}

/// The ledger, recomputed, and after that appended to, signed and recomputed again.
pub(crate) struct Books {
    pub(crate) lines: Vec<Vec<u8>>,
    pub(crate) entries: Vec<Entry>,
    /// Entries that the witness vouches for.
    pub(crate) witnessed: u64,
}

/// What lies in a run's folder. Errors are the checker's to judge: what is no longer needed may be there by half.
pub(crate) struct Work {
    pub(crate) checkpoint: Result<u64, String>,
    pub(crate) weights: Result<Digest, String>,
}

/// An export's files by name, with their sums.
pub(crate) type Sums = BTreeMap<String, Digest>;

/// A document's records: ordinal, id and verdict.
type Rows = Vec<(u32, String, &'static str)>;

pub(crate) struct Parts {
    kek: Kek,
    core: Seen<Option<Core>>,
    books: Seen<Books>,
    bases: Seen<BTreeMap<String, Digest>>,
    runs: Seen<BTreeMap<String, Work>>,
    exports: Seen<BTreeMap<String, Sums>>,
    /// What records a document of some bytes has: never others.
    rows: RefCell<HashMap<(String, Digest), Rows>>,
    /// What signs the ledger, and what opens the runs' folders; known from the life's end.
    seed: [u8; 32],
    keys: BTreeMap<String, [u8; 32]>,
}

impl Parts {
    /// Learns the keys from the life's end.
    pub(crate) fn new(credentials: &Path, end: &Image) -> Self {
        let mut parts = Self {
            kek: Kek::credential_in(credentials).unwrap(),
            core: Seen::default(),
            books: Seen::default(),
            bases: Seen::default(),
            runs: Seen::default(),
            exports: Seen::default(),
            rows: RefCell::default(),
            seed: [0; 32],
            keys: BTreeMap::new(),
        };
        let folder = laid_out(&part(end, &CORE));
        let vault = Vault::open(&folder.path().join("state/vault"), &parts.kek).unwrap();
        parts.seed = *vault.derived("ledger signing key").unwrap().expose();
        drop(vault);
        let core = parts.core(end).unwrap();
        let stock = core.as_ref().as_ref().unwrap().catalog.as_ref().unwrap();
        parts.keys.clone_from(&stock.keys);
        parts
    }

    /// The public half of the key that signs the ledger.
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::of_seed(&self.seed).unwrap()
    }

    /// The vault and the catalog; nothing where there is no vault, and so no catalog.
    pub(crate) fn core(&self, image: &Image) -> Result<Arc<Option<Core>>, String> {
        seen(&self.core, image, &CORE, |folder| self.look_at_core(&folder.join("state")))
    }

    pub(crate) fn books(&self, image: &Image) -> Result<Arc<Books>, String> {
        seen(&self.books, image, &LEDGER, |folder| self.look_at_ledger(folder))
    }

    /// Hashes of the bases by name.
    pub(crate) fn bases(&self, image: &Image) -> Result<Arc<BTreeMap<String, Digest>>, String> {
        seen(&self.bases, image, &BASES, |folder| {
            let store = folder.join("state/bases");
            let visible = names(&store).into_iter().filter(|name| !name.starts_with('.'));
            let verified = |name: String| said("a visible base", moat_models::verify(&store, &name));
            visible.map(|name| Ok((name.clone(), verified(name)?.hash))).collect()
        })
    }

    /// The runs' folders by name.
    pub(crate) fn runs(&self, image: &Image) -> Result<Arc<BTreeMap<String, Work>>, String> {
        seen(&self.runs, image, &RUNS, |folder| {
            let folder = folder.join("state/runs");
            let look = |name: &String| {
                let key = self.keys.get(name).ok_or_else(|| format!("run {name} has a folder and no key"))?;
                look_at_run(&folder.join(name), name, key)
            };
            names(&folder).into_iter().map(|name| Ok((name.clone(), look(&name)?))).collect()
        })
    }

    /// The exports' sums by name.
    pub(crate) fn exports(&self, image: &Image) -> Result<Arc<BTreeMap<String, Sums>>, String> {
        seen(&self.exports, image, &EXPORTS, |folder| {
            let folder = folder.join("exports");
            let visible = names(&folder).into_iter().filter(|name| !name.starts_with('.'));
            let verified =
                |name: &String| said("a visible export", moat_models::verify_export(&folder.join(name)));
            visible.map(|name| Ok((name.clone(), verified(&name)?))).collect()
        })
    }

    fn look_at_core(&self, state: &Path) -> Result<Option<Core>, String> {
        let catalog = state.join("catalog.db");
        if !Vault::exists(&state.join("vault")) {
            hold!(!catalog.exists(), "the catalog is there without a vault");
            return Ok(None);
        }
        let vault = Arc::new(said("the vault does not open", Vault::open(&state.join("vault"), &self.kek))?);
        Ok(Some(Core {
            slots: said("slots", vault.slots())?.iter().map(|slot| slot.id).collect(),
            generation: said("generation", vault.generation())?,
            serial: said("serial", vault.serial())?,
            catalog: if catalog.exists() { Some(self.look_at_catalog(&catalog, &vault)?) } else { None },
        }))
    }

    fn look_at_catalog(&self, path: &Path, vault: &Arc<Vault>) -> Result<Stock, String> {
        let catalog = said("the catalog does not open", Catalog::open(path, vault))?;
        let database = said("the catalog's file", Connection::open(path))?;
        let word = |sql: &str| database.query_row(sql, [], |row| row.get::<_, String>(0));
        let whole = said("integrity", word("PRAGMA integrity_check"))?;
        hold!(whole == "ok", "the catalog is damaged: {whole}");
        let orphans = said("keys", database.prepare("PRAGMA foreign_key_check"))?.exists([]);
        hold!(!said("keys", orphans)?, "a row of the catalog refers to none");
        drop(database);
        let mut stock = Stock {
            documents: self.look_at_documents(&catalog)?,
            datasets: BTreeMap::new(),
            runs: said("runs", catalog.runs())?,
            steps: BTreeMap::new(),
            keys: BTreeMap::new(),
            accounts: said("accounts", catalog.accounts())?.into_iter().map(|account| account.name).collect(),
            agreed: said("statements", catalog.statements())?
                .iter()
                .filter(|statement| statement.approval.is_some())
                .count(),
        };
        for summary in said("datasets", catalog.datasets())? {
            let dataset = said("a dataset", catalog.dataset(summary.id))?;
            let Some(dataset) = dataset else { return Err(format!("dataset {} is gone", summary.id)) };
            let named = Digest::of(moat_datasets::manifest(&dataset).as_bytes()) == dataset.id.0;
            hold!(named, "dataset {} is another", dataset.id);
            for entry in &dataset.entries {
                let text = said("a dataset's text does not open", catalog.text(entry.record))?;
                hold!(text.is_some(), "a text of dataset {} is gone", dataset.id);
            }
            stock.datasets.insert(dataset.id, dataset);
        }
        for run in &stock.runs {
            let key = said("the key of a run", catalog.run_key(&run.name))?;
            let Some(key) = key else { return Err(format!("the key of run {} is gone", run.name)) };
            let known = self.keys.get(&run.name).is_none_or(|known| known == key.expose());
            hold!(known, "the key of run {} is another", run.name);
            stock.keys.insert(run.name.clone(), *key.expose());
            let mut steps = said("steps", catalog.steps(&run.name))?;
            // A step that is done again after a stop takes its own time.
            for step in &mut steps {
                (step.tokens_per_second, step.memory, step.seconds_left, step.cores) = (0.0, 0, 0.0, 0.0);
            }
            stock.steps.insert(run.name.clone(), steps);
        }
        Ok(stock)
    }

    fn look_at_documents(&self, catalog: &Catalog) -> Result<Documents, String> {
        let mut found = Vec::new();
        let each = |known| {
            found.push(known);
            Ok(())
        };
        said("documents", catalog.each_document("documents", each))?;
        let mut documents = Documents::new();
        for known in found {
            let path = known.document.path;
            hold!(known.state == DocumentState::Present, "{path} is not present");
            let mut rows = Rows::new();
            for row in said("records", catalog.record_rows(known.document.id))? {
                let text = said("a text does not open", catalog.text(row.id))?;
                hold!(text.is_some_and(|text| !text.is_empty()), "the text of {path} is gone");
                rows.push((row.key.ordinal, row.id.to_string(), row.verdict.word()));
            }
            let mut all = self.rows.borrow_mut();
            let first = all.entry((path.clone(), known.document.digest)).or_insert_with(|| rows.clone());
            hold!(!rows.is_empty() && *first == rows, "{path} has other records than before");
            let twice = documents.insert(path.clone(), known.document.digest).is_some();
            hold!(!twice, "{path} is there twice");
        }
        Ok(documents)
    }

    fn look_at_ledger(&self, site: &Path) -> Result<Books, String> {
        let (folder, key) = (site.join("state/ledger"), self.public_key());
        let witness = site.join("witness/checkpoints");
        let witness = Some(witness.as_path()).filter(|witness| witness.exists());
        let mut witnessed = 0;
        if folder.join("entries").exists() {
            let report = said("the ledger cannot be verified", verify(&folder, &key, witness))?;
            hold!(report.is_sound(), "the ledger is not sound: {report:?}");
            witnessed = report.witnessed;
        } else if !folder.exists() {
            hold!(witness.is_none(), "the witness is there without a ledger");
            return Ok(Books { lines: Vec::new(), entries: Vec::new(), witnessed });
        }
        let ledger = said("the ledger does not open", Ledger::open(&folder, Some(&self.seed)))?;
        let size = ledger.size();
        let lines = lines(&folder);
        hold!(lines.len() as u64 == size, "the ledger has {} lines of {size} entries", lines.len());
        let act = Act::new(Who::daemon(), "daemon.end", Phase::Done);
        hold!(said("an append", ledger.append(&act))? == size, "the next entry is not the next");
        said("a checkpoint", ledger.checkpoint())?;
        if let Some(witness) = witness {
            said("the witness", ledger.copy_checkpoint(witness))?;
        }
        drop(ledger);
        let report = said("the ledger cannot be verified again", verify(&folder, &key, witness))?;
        hold!(report.is_sound() && report.covered == size + 1, "the ledger is not sound again: {report:?}");
        let entry = |line: &Vec<u8>| said("an entry", serde_json::from_slice(&line[18..]));
        Ok(Books { entries: lines.iter().map(entry).collect::<Result<_, _>>()?, lines, witnessed })
    }
}

/// The part of a state at these paths and below, with what SQLite keeps beside its file.
fn part(image: &Image, places: &[&str]) -> Image {
    let begins = |long: &[u8], short: &[u8]| long.starts_with(short);
    let within = |path: &Path| {
        let path = path.as_os_str().as_encoded_bytes();
        places.iter().any(|place| begins(path, place.as_bytes()) || begins(place.as_bytes(), path))
    };
    Image {
        folders: image.folders.iter().filter(|path| within(path)).cloned().collect(),
        files: image
            .files
            .iter()
            .filter(|(path, _)| within(path))
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect(),
    }
}

/// What was seen of a part, or what is seen of it now.
fn seen<T>(
    all: &Seen<T>,
    image: &Image,
    places: &[&str],
    look: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<Arc<T>, String> {
    let part = part(image, places);
    let digest = part.digest();
    if let Some(known) = all.borrow().get(&digest) {
        return known.clone();
    }
    let folder = laid_out(&part);
    let result = look(folder.path()).map(Arc::new);
    all.borrow_mut().insert(digest, result.clone());
    result
}

/// Opens every sealed file of a run that bears its final name.
fn look_at_run(run: &Path, name: &str, key: &[u8; 32]) -> Result<Work, String> {
    let folder =
        |path: &Path, part: RunPart| SealedFolder::new(path, DataKey::from_bytes(key), part.object(name));
    let open_all = |folder: &SealedFolder| -> Result<(), String> {
        said("a folder", folder.names())?.iter().try_for_each(|file| opened(folder, file).map(drop))
    };
    let mut newest = None;
    for part in names(run) {
        if part.starts_with("export-") {
            open_all(&folder(&run.join(&part), RunPart::Export))?;
            let model = run.join(&part).join(RunPart::Model.word());
            if model.exists() {
                open_all(&folder(&model, RunPart::Model))?;
            }
            continue;
        }
        if part != RunPart::Checkpoint.word() {
            open_all(&folder(&run.join(&part), RunPart::Adapter))?;
            continue;
        }
        for step in names(&run.join(&part)) {
            let opened = folder(&run.join(&part).join(&step), RunPart::Checkpoint);
            open_all(&opened)?;
            newest = newest.max(step.parse::<u64>().ok());
        }
    }
    let checkpoint = match newest {
        Some(step) => {
            whole(step, &folder(&run.join("checkpoint").join(step.to_string()), RunPart::Checkpoint))
        }
        None => Ok(0),
    };
    let adapter = folder(&run.join("adapter"), RunPart::Adapter);
    let weights = said("adapter", adapter.names()).and_then(|names| {
        hold!(names.len() == 2, "the adapter of run {name} lacks a file");
        Ok(Digest::of(&opened(&adapter, "adapter_model.safetensors")?))
    });
    Ok(Work { checkpoint, weights })
}

/// Whether a checkpoint is that of its step, and all there.
fn whole(step: u64, folder: &SealedFolder) -> Result<u64, String> {
    let state: serde_json::Value =
        said("a checkpoint", serde_json::from_slice(&opened(folder, "state.json")?))?;
    hold!(state["state"]["step"] == step, "checkpoint {step} is of another step");
    for part in ["trainable", "moments"] {
        let digest = Digest::of(&opened(folder, &format!("{part}.safetensors"))?).to_string();
        hold!(state[part] == digest, "the {part} of checkpoint {step} are others");
    }
    Ok(step)
}

fn opened(folder: &SealedFolder, name: &str) -> Result<Vec<u8>, String> {
    let place = folder.place(name).display().to_string();
    let mut bytes = Vec::new();
    said(&place, folder.open(name))?.read_to_end(&mut bytes).map_err(|error| format!("{place}: {error}"))?;
    Ok(bytes)
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
