//! A recorded life, and what had been told to whom at each moment of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use moat_contracts::{Dataset, DatasetId, Digest, Progress};
use moat_protocol::control::{Base, Reply, Run, RunState, Seal, Update};

use crate::disk::Disk;
use crate::life::{ROOTS, Recording};
use crate::trace::{Call, Trace};

/// Documents by path, with the digest of their bytes.
pub(crate) type Documents = BTreeMap<String, Digest>;

pub(crate) struct Story {
    pub(crate) recording: Recording,
    /// The disk before anything was done.
    pub(crate) beginning: Disk,
    pub(crate) calls: Vec<Call>,
    /// Replies with the number of the call that sent them.
    told: Vec<(usize, Reply)>,
    /// The company's folder as scans found it, with the number of the call that said so.
    pub(crate) scans: Vec<(usize, Documents)>,
}

/// What was promised up to a moment, and what was about to be.
#[derive(Default, Clone)]
pub(crate) struct Told<'a> {
    /// Entries of the ledger.
    pub(crate) ledger: u64,
    /// How the vault stood when it was last told, and how it stood next.
    pub(crate) seals: Vec<&'a Seal>,
    pub(crate) datasets: BTreeMap<DatasetId, &'a Dataset>,
    pub(crate) bases: Vec<&'a Base>,
    /// Runs by name, as last told of.
    pub(crate) runs: BTreeMap<&'a str, &'a Run>,
    /// Runs that were said to be done.
    pub(crate) done: BTreeSet<&'a str>,
    /// The newest checkpoint told of, by run.
    pub(crate) checkpoints: BTreeMap<&'a str, u64>,
    /// Names of accounts.
    pub(crate) accounts: BTreeSet<String>,
    /// Names of exports with their files.
    pub(crate) exports: BTreeMap<String, &'a BTreeMap<String, Digest>>,
    /// Proofs that were handed out.
    pub(crate) receipts: Vec<&'a str>,
    /// How often it was told that the company's folder is taken in; how it was then, and how it was next.
    pub(crate) scans: usize,
    pub(crate) documents: Vec<Option<&'a Documents>>,
}

impl Story {
    pub(crate) fn read(folder: &Path, beginning: Disk) -> Self {
        let recording: Recording =
            serde_json::from_slice(&fs::read(folder.join("recording.json")).unwrap()).unwrap();
        let mut trace = Trace::new(&recording.site, &ROOTS);
        for number in 1..=recording.traces {
            trace.read(&fs::read_to_string(folder.join(format!("trace-{number}"))).unwrap());
        }
        let calls = trace.calls;
        let mut told = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            if let Call::Sent(bytes) = call
                && let Ok(Some(reply)) = moat_protocol::read_blocking::<Reply>(&mut bytes.as_slice())
            {
                told.push((number, reply));
            }
        }
        let (mut scans, mut after) = (Vec::new(), 0);
        for (reply, documents) in &recording.scans {
            let found = told.iter().find(|(number, other)| *number >= after && other == reply);
            after = found.unwrap_or_else(|| panic!("the trace lacks the answer {reply:?}")).0 + 1;
            scans.push((after - 1, documents.clone()));
        }
        Self { recording, beginning, calls, told, scans }
    }

    /// What was told with the first so many calls, beside what had been told before.
    pub(crate) fn told_after<'a>(&'a self, calls: usize, before: &Told<'a>) -> Told<'a> {
        let mut told = before.clone();
        let (mut last, mut next) = (None, None);
        for (at, reply) in &self.told {
            if *at < calls {
                told.hear(reply);
                last = seal(reply).or(last);
            } else if let Some(seal) = seal(reply).filter(|seal| last.is_some_and(|last| last != *seal)) {
                next.get_or_insert(seal);
            }
        }
        if last.is_some() {
            told.seals = last.into_iter().chain(next).collect();
        }
        let scans = self.scans.partition_point(|(at, _)| *at < calls);
        let documents = |number: usize| self.scans.get(number).map(|(_, documents)| documents);
        told.scans += scans;
        match scans.checked_sub(1) {
            Some(last) => told.documents = vec![documents(last)],
            None if before.documents.is_empty() => told.documents = vec![None],
            None => {}
        }
        told.documents.extend(documents(scans).map(Some));
        told
    }
}

fn seal(reply: &Reply) -> Option<&Seal> {
    match reply {
        Reply::Status(status) => Some(&status.seal),
        Reply::Seal(seal) => Some(seal),
        _ => None,
    }
}

impl<'a> Told<'a> {
    fn hear(&mut self, reply: &'a Reply) {
        match reply {
            Reply::Status(status) => self.ledger = self.ledger.max(status.ledger),
            Reply::Dataset(dataset) => _ = self.datasets.insert(dataset.id, dataset),
            Reply::Base(base) => self.bases.push(base),
            Reply::Run(run) => {
                if run.state == RunState::Done {
                    self.done.insert(&run.name);
                }
                self.runs.insert(&run.name, run);
            }
            Reply::Exported(exported) => {
                let name = Path::new(&exported.folder).file_name().unwrap().to_str().unwrap();
                self.exports.insert(name.to_owned(), &exported.files);
            }
            Reply::Made(made) => self.accounts.extend(made.iter().map(|account| account.name.clone())),
            Reply::Receipt(receipt) => self.receipts.push(receipt),
            Reply::Update(Update::Run { run, progress: Progress::Checkpoint { step } }) => {
                let newest = self.checkpoints.entry(run).or_default();
                *newest = (*newest).max(*step);
            }
            _ => {}
        }
    }
}
