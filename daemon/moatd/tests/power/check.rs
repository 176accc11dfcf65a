//! What must be true of whatever a kill or a power cut leaves, given what had been told by then.

use std::collections::BTreeMap;

use moat_catalog::{RunRow, StepRow};
use moat_ledger::{Entry, Phase, verify_receipt};
use moat_protocol::control::{Run, Seal};

use crate::disk::Image;
use crate::parts::{Books, Core, Parts, Stock, Work, hold, said};
use crate::story::{Documents, Told};

/// Holds states against what was told, and against the life's end.
pub(crate) struct Checker<'a> {
    parts: &'a Parts,
    steps: BTreeMap<String, Vec<StepRow>>,
    lines: Vec<Vec<u8>>,
}

impl<'a> Checker<'a> {
    /// Learns the life's end.
    pub(crate) fn new(parts: &'a Parts, end: &Image) -> Self {
        let core = parts.core(end).unwrap();
        let steps = core.as_ref().as_ref().unwrap().catalog.as_ref().unwrap().steps.clone();
        let books = parts.books(end).unwrap();
        assert_eq!(
            books.witnessed,
            books.lines.len() as u64,
            "the witness vouches for all of a life that ended"
        );
        Self { steps, lines: books.lines.clone(), parts }
    }

    /// Checks a state. The error says what was lost.
    pub(crate) fn check(&self, image: &Image, told: &Told<'_>) -> Result<(), String> {
        let books = self.parts.books(image)?;
        let bases = self.parts.bases(image)?;
        let exports = self.parts.exports(image)?;
        let works = self.parts.runs(image)?;
        let core = self.parts.core(image)?;
        let acts = Acts(&books.entries);
        self.ledger(&books, told)?;
        let Some(core) = core.as_ref() else {
            hold!(told.seals.is_empty() && books.lines.is_empty(), "the vault is gone");
            return Ok(());
        };
        vault(core, told, &acts)?;
        for base in &told.bases {
            hold!(bases.get(&base.name) == Some(&base.hash), "base {} is gone", base.name);
        }
        for (name, files) in &told.exports {
            hold!(exports.get(name) == Some(*files), "export {name} is gone");
        }
        acts.announced("base.import", bases.len())?;
        acts.announced("statement.approve", exports.len())?;
        let Some(stock) = &core.catalog else {
            let nothing = told.scans == 0 && told.runs.is_empty() && told.datasets.is_empty();
            hold!(nothing && works.is_empty(), "the catalog is gone");
            return Ok(());
        };
        documents(stock, told, &acts)?;
        for (id, dataset) in &told.datasets {
            hold!(stock.datasets.get(id) == Some(*dataset), "dataset {id} is gone");
        }
        for name in told.runs.keys().copied().chain(works.keys().map(String::as_str)) {
            hold!(stock.runs.iter().any(|run| run.name == name), "run {name} is gone");
        }
        acts.announced("run.start", stock.runs.len())?;
        for name in &told.accounts {
            hold!(stock.accounts.contains(name), "account {name} is gone");
        }
        acts.announced("site.set-up", usize::from(!stock.accounts.is_empty()))?;
        // Nothing leaves before both signatures are kept.
        hold!(
            exports.len() <= stock.agreed,
            "{} exports, and {} were agreed to",
            exports.len(),
            stock.agreed
        );
        stock.runs.iter().try_for_each(|run| self.run(stock, run, works.get(&run.name), told, &acts))
    }

    fn ledger(&self, books: &Books, told: &Told<'_>) -> Result<(), String> {
        let size = books.lines.len() as u64;
        hold!(size >= told.ledger, "the ledger has {size} entries of {} that were told", told.ledger);
        hold!(self.lines.starts_with(&books.lines), "the ledger has other lines");
        for receipt in &told.receipts {
            let (entry, checkpoint) = said("a receipt", verify_receipt(receipt, &self.parts.public_key()))?;
            hold!(checkpoint.size <= size && entry.index < size, "a receipt proves more than there is");
        }
        Ok(())
    }

    fn run(
        &self,
        stock: &Stock,
        run: &RunRow,
        work: Option<&Work>,
        told: &Told<'_>,
        acts: &Acts<'_>,
    ) -> Result<(), String> {
        let name = run.name.as_str();
        hold!(run.dataset.is_none_or(|id| stock.datasets.contains_key(&id)), "the dataset of {name} is gone");
        let steps = &stock.steps[name];
        hold!(self.steps[name].starts_with(steps), "run {name} has other steps");
        let done = steps.len() as u64;
        let checkpoint = told.checkpoints.get(name).copied().unwrap_or_default();
        hold!(done >= checkpoint, "run {name} has {done} steps of {checkpoint} that were told");
        if let Some(last) = told.runs.get(name) {
            as_told(run, last, done)?;
        }
        hold!(!told.done.contains(name) || run.state == "done", "run {name} was done and is {}", run.state);
        hold!((work.is_none() && done == 0) || acts.of("run.train", name), "run {name} trained unannounced");
        let Some(outcome) = &run.outcome else {
            // Once a run is trained, its checkpoints are removed, and one may be there by half; before, none may.
            let newest = work.map_or(Ok(0), |work| work.checkpoint.clone())?;
            hold!(newest >= checkpoint, "run {name} has checkpoint {newest} of {checkpoint} that was told");
            return Ok(());
        };
        let outcome: moat_contracts::TrainOutcome = said("an outcome", serde_json::from_str(outcome))?;
        let Some(work) = work else { return Err(format!("the folder of run {name} is gone")) };
        hold!(work.weights.clone()? == outcome.weights, "the weights of run {name} are others");
        Ok(())
    }
}

fn vault(core: &Core, told: &Told<'_>, acts: &Acts<'_>) -> Result<(), String> {
    let Core { slots, generation, serial, .. } = core;
    let stands = |seal: &&Seal| seal.slots.iter().map(|slot| slot.id).eq(slots.iter().copied());
    let fits = told.seals.is_empty() || told.seals.iter().any(stands);
    hold!(fits, "slots {slots:?}, but told was {:?}", told.seals);
    let last = told.seals.first().and_then(|seal| seal.generation);
    let fits = last.is_none_or(|last| (last..=last + 1).contains(generation));
    hold!(fits, "generation {generation} after {last:?} was told");
    acts.announced("vault.rotate", *generation as usize - 1)?;
    let known = acts.0.iter().filter(|entry| entry.act == "vault.unseal" && entry.phase == Phase::Done);
    for known in known.filter_map(|entry| entry.detail.get("serial")) {
        let older = known.parse::<u64>().is_ok_and(|known| known <= *serial);
        hold!(older, "the ledger knows root file {known}, but {serial} is there");
    }
    Ok(())
}

fn documents(stock: &Stock, told: &Told<'_>, acts: &Acts<'_>) -> Result<(), String> {
    let present = &stock.documents;
    acts.announced("source.take-in", usize::from(!present.is_empty()))?;
    let nothing = Documents::new();
    let allowed: Vec<&Documents> = told.documents.iter().map(|told| told.unwrap_or(&nothing)).collect();
    for path in allowed.iter().flat_map(|documents| documents.keys()).chain(present.keys()) {
        let there = present.get(path);
        let fits = allowed.iter().any(|documents| documents.get(path) == there);
        hold!(fits, "{path} is {there:?}, and not as told or as it was next");
    }
    Ok(())
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

/// What the ledger announces.
struct Acts<'a>(&'a [Entry]);

impl Acts<'_> {
    /// Whether an act was announced at least so many times, before it took effect.
    fn announced(&self, act: &str, times: usize) -> Result<(), String> {
        let found = self.0.iter().filter(|entry| entry.act == act && entry.phase == Phase::Intent).count();
        hold!(found >= times, "{act} took effect {times} times and was announced {found} times");
        Ok(())
    }

    fn of(&self, act: &str, run: &str) -> bool {
        self.0.iter().any(|entry| entry.act == act && entry.on.get("run").is_some_and(|name| name == run))
    }
}
