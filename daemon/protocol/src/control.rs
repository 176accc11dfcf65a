//! `moat` with `moatd`: one request a connection, then any number of [`Reply::Update`]s, then one final reply.
//!
//! The caller is known by SO_PEERCRED; no message says who it is from.

use std::collections::BTreeMap;

use moat_contracts::{
    Completion, Dataset, DatasetEntry, DatasetId, Digest, EdgeReport, Progress, Reason, Recipe, Sampling,
    TextFault, TrainOutcome,
};
use serde::{Deserialize, Serialize};

pub use crate::boundary::{Canary, Key, LedgerEntry, LedgerPage, NewSlot, Seal, Secret, Slot};
pub use crate::rights::{Account, ApiKey, MadeAccount, NewAccount, Proof, Statement};

/// What `moat` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "value", rename_all = "snake_case")]
pub enum Request {
    /// How everything stands.
    Status,
    /// Look at the sources again, and answer when everything found is curated.
    Scan,
    /// What became of a document, and why. `path` as the source names it, or a path on this machine.
    Why {
        /// The path.
        path: String,
    },
    /// Build a dataset by a recipe, or find the one that is already built.
    DatasetBuild {
        /// The recipe.
        recipe: Box<Recipe>,
    },
    /// All datasets.
    Datasets,
    /// One dataset by its id or the id's beginning.
    Dataset {
        /// The id or its beginning.
        id: String,
    },
    /// What differs between two datasets.
    DatasetDiff {
        /// The older one.
        a: String,
        /// The newer one.
        b: String,
    },
    /// Take a base into Moat from a folder on this machine.
    BaseImport {
        /// The folder.
        folder: String,
        /// Its name from now on; the folder's name where absent.
        name: Option<String>,
    },
    /// All bases.
    Bases,
    /// Build the dataset, train, evaluate.
    RunStart {
        /// The recipe.
        recipe: Box<Recipe>,
    },
    /// All runs.
    Runs,
    /// One run.
    Run {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Updates of a run until it ends.
    RunWatch {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Write a checkpoint and stop.
    RunStop {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Go on from the last checkpoint.
    RunResume {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Ask for an export: adapter, merged model, card, lineage and sums into a new folder, once somebody else agrees.
    Export {
        /// The run.
        run: String,
        /// The folder, which must not exist.
        folder: String,
        /// The age public key to which it is encrypted; plain where absent.
        recipient: Option<String>,
        /// Who asks.
        proof: Proof,
    },
    /// Complete a prompt with the base and a run's tuned model.
    Ask {
        /// The run; the newest finished one where absent.
        run: Option<String>,
        /// The prompt.
        prompt: String,
        /// Put the prompt through the chat template.
        chat: bool,
        /// How to draw tokens.
        sampling: Sampling,
    },
    /// Make the vault, with a first way to open it.
    VaultInit {
        /// The way.
        with: NewSlot,
    },
    /// Open the vault with a passphrase, or give one share of several.
    VaultUnseal {
        /// A passphrase or a share.
        with: Key,
    },
    /// Wipe the keys from memory: everything but the status stops until the vault is opened again.
    VaultSeal,
    /// Add another way to open the vault.
    VaultSlotAdd {
        /// The way.
        with: NewSlot,
    },
    /// Remove a way to open the vault.
    VaultSlotRemove {
        /// The slot's number.
        id: u32,
    },
    /// Wrap every key under a new root, and forget the old one.
    VaultRotate,
    /// Make the first accounts, which ends that whoever may call may do everything.
    SetUp {
        /// They, with their roles.
        accounts: Vec<NewAccount>,
    },
    /// All accounts.
    Accounts,
    /// Make an account, which has no role yet.
    AccountCreate {
        /// It.
        account: NewAccount,
    },
    /// Ask for other roles of an account.
    AccountRoles {
        /// Its name.
        name: String,
        /// All roles that it is to have.
        roles: Vec<String>,
        /// Who asks.
        proof: Proof,
    },
    /// Disable an account for good.
    AccountDisable {
        /// Its name.
        name: String,
    },
    /// Give an account a new password, code and signing key.
    AccountReset {
        /// Its name.
        name: String,
        /// The new password.
        password: Secret,
    },
    /// Ask that the policy that the configuration says be the site's.
    PolicyRequest {
        /// Who asks.
        proof: Proof,
    },
    /// All that took or takes two people.
    Statements,
    /// Agree to what somebody else asks for, which then happens.
    Approve {
        /// The statement's id or its beginning.
        id: String,
        /// Who agrees.
        proof: Proof,
    },
    /// Take a request back, or refuse it.
    Withdraw {
        /// The statement's id or its beginning.
        id: String,
    },
    /// All API keys.
    ApiKeys,
    /// Make an API key for the caller's account.
    ApiKeyCreate {
        /// What to call it.
        name: String,
        /// The acts that it is for.
        scope: Vec<String>,
        /// Days until it is void.
        days: u32,
    },
    /// Revoke an API key.
    ApiKeyRevoke {
        /// Its id or the beginning.
        id: String,
    },
    /// Entries of the ledger, newest first.
    Ledger {
        /// Only acts that begin so, such as `vault.`.
        act: Option<String>,
        /// Only entries before this one.
        before: Option<u64>,
        /// Entries at most.
        most: usize,
    },
    /// A signed proof that an entry is in the ledger.
    LedgerReceipt {
        /// The entry.
        index: u64,
    },
    /// Copy everything that the daemon keeps, sealed as it is, into a new folder.
    Backup {
        /// The folder, which must not exist.
        folder: String,
    },
    /// End the daemon after its work in hand is safe.
    Shutdown,
}

/// What `moatd` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// The request is being worked on.
    Update(Update),
    /// The answer to [`Request::Status`] and [`Request::Scan`].
    Status(Box<Status>),
    /// The answer to [`Request::Why`]: one for every document that the path names.
    Why(Vec<Why>),
    /// The answer to [`Request::DatasetBuild`] and [`Request::Dataset`].
    Dataset(Box<Dataset>),
    /// The answer to [`Request::Datasets`].
    Datasets(Vec<DatasetSummary>),
    /// The answer to [`Request::DatasetDiff`].
    DatasetDiff(DatasetDiff),
    /// The answer to [`Request::BaseImport`].
    Base(Base),
    /// The answer to [`Request::Bases`].
    Bases(Vec<Base>),
    /// The answer to the requests on one run.
    Run(Box<Run>),
    /// The answer to [`Request::Runs`].
    Runs(Vec<Run>),
    /// The answer to [`Request::SetUp`], [`Request::AccountCreate`] and [`Request::AccountReset`].
    Made(Vec<MadeAccount>),
    /// The answer to [`Request::Accounts`] and [`Request::AccountDisable`].
    Accounts(Vec<Account>),
    /// The answer to the requests that take two people, and to [`Request::Withdraw`].
    Statement(Box<Statement>),
    /// The answer to [`Request::Statements`].
    Statements(Vec<Statement>),
    /// The answer to [`Request::ApiKeys`] and [`Request::ApiKeyRevoke`].
    ApiKeys(Vec<ApiKey>),
    /// The answer to [`Request::ApiKeyCreate`]: the key, shown this once.
    ApiKey(Secret),
    /// The answer to [`Request::Approve`] of an export.
    Exported(Exported),
    /// The answer to [`Request::Backup`].
    BackedUp(BackedUp),
    /// The answer to [`Request::Ask`].
    Answer(Vec<Completion>),
    /// The answer to [`Request::VaultInit`] and [`Request::VaultSlotAdd`]: shares, which are shown this once.
    Shares(Vec<Secret>),
    /// The answer to what changes how the vault stands.
    Seal(Seal),
    /// The answer to [`Request::Ledger`].
    Ledger(LedgerPage),
    /// The answer to [`Request::LedgerReceipt`]: the text of the proof.
    Receipt(String),
    /// The request is done and there is nothing to tell.
    Done,
    /// The request could not be done.
    Failed {
        /// Decides the exit code of `moat`.
        fault: Fault,
        /// What happened, where, and what to do.
        message: String,
    },
}

/// Whose fault it is that a request could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The request names something that is not there, or cannot be done as asked.
    Request,
    /// The caller may not.
    Denied,
    /// Moat failed: disk, engine, damaged state.
    Internal,
    /// Something that the request started ended badly: a run that failed.
    Failed,
    /// The vault is sealed, so nothing can be read or done.
    Sealed,
}

/// What goes on while a request is being worked on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "update", content = "value", rename_all = "snake_case")]
pub enum Update {
    /// Sources are being read and curated.
    Curating {
        /// Documents done in this scan.
        documents: u64,
        /// Bytes done in this scan.
        bytes: u64,
        /// Documents expected, once the walk is complete.
        of: Option<u64>,
    },
    /// A dataset is being built.
    Building {
        /// Records tokenised.
        records: u64,
        /// Records in all.
        of: u64,
    },
    /// A run entered a state.
    RunState {
        /// The run.
        run: String,
        /// The state.
        state: RunState,
    },
    /// A run's engine reports.
    Run {
        /// The run.
        run: String,
        /// What it reports.
        progress: Progress,
    },
}

/// How everything stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `moatd`'s version.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// Hash of the curation rules in force.
    pub rules: Option<Digest>,
    /// Each configured source, by name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// Runs that are not ended.
    pub active_runs: Vec<String>,
    /// How the vault stands.
    pub seal: Seal,
    /// Entries of the ledger.
    pub ledger: u64,
    /// What a person must look at now: a way out that was open.
    pub alarm: Option<String>,
    /// What the canaries tried.
    pub canary: Canary,
    /// Sandbox protections of this process: name and whether it was had.
    pub protections: BTreeMap<String, bool>,
    /// What waits for a second person.
    pub waiting: u64,
}

/// How one source stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `folder` or `git`.
    pub kind: String,
    /// Where it lies.
    pub location: String,
    /// The last scan's failure, if it failed.
    pub fault: Option<String>,
    /// True while a scan is under way.
    pub scanning: bool,
    /// Seconds since 1970 at which the last whole scan ended.
    pub scanned: Option<i64>,
    /// Documents whose content the last whole scan opened; 0 where nothing had changed.
    pub read: u64,
    /// Documents in the source that were read.
    pub present: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Documents of which some place could not be read.
    pub partial: u64,
    /// Documents not read, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Documents deleted since Moat first saw them.
    pub deleted: u64,
    /// Records by effective verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Dropped records by their first reason.
    pub dropped: BTreeMap<String, u64>,
    /// Redactions by detector label.
    pub redactions: BTreeMap<String, u64>,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Its source.
    pub source: String,
    /// Its path in the source.
    pub path: String,
    /// `present`, `skipped` or `deleted`.
    pub state: String,
    /// Why it was skipped, if it was.
    pub skip: Option<String>,
    /// SHA-256 of its bytes.
    pub digest: Option<Digest>,
    /// Bytes.
    pub size: u64,
    /// Places of it that could not be read; what is there is in no record.
    pub faults: Vec<TextFault>,
    /// Each record made of it. For a deleted document: empty.
    pub records: Vec<WhyRecord>,
    /// Runs whose dataset trained on a record of it, present or past.
    pub reached: Vec<Reached>,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyRecord {
    /// Its id.
    pub record: Digest,
    /// First line of the span in the document.
    pub first_line: u64,
    /// Its kind.
    pub kind: String,
    /// Its language.
    pub language: Option<String>,
    /// `kept`, `redacted` or `dropped`, duplicates counted in.
    pub verdict: String,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Replaced spans: label, how many.
    pub redactions: BTreeMap<String, u64>,
    /// Where it is a duplicate: the surviving twin's source and path, and their similarity.
    pub twin: Option<Twin>,
}

/// The record that survived in another's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Its source.
    pub source: String,
    /// Its path.
    pub path: String,
    /// Estimated Jaccard similarity of the shingles; 1 for the same text.
    pub similarity: f64,
}

/// A dataset or model that a document reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The dataset.
    pub dataset: DatasetId,
    /// `train` or `held_out`.
    pub split: String,
    /// Runs on it.
    pub runs: Vec<String>,
}

/// A dataset in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Its id.
    pub id: DatasetId,
    /// Seconds since 1970 at which it was first built here.
    pub built: i64,
    /// Records trained on.
    pub train: u64,
    /// Records held back.
    pub held_out: u64,
    /// Tokens of both.
    pub tokens: u64,
}

/// What differs between two datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetDiff {
    /// The older one.
    pub a: DatasetId,
    /// The newer one.
    pub b: DatasetId,
    /// The same selection and split.
    pub same_recipe: bool,
    /// The same curation rules.
    pub same_rules: bool,
    /// The same tokenizer.
    pub same_tokenizer: bool,
    /// Only in `b`, with its documents' paths where they are still known.
    pub added: Vec<DiffEntry>,
    /// Only in `a`.
    pub removed: Vec<DiffEntry>,
    /// In both, on another side.
    pub moved: Vec<DiffEntry>,
}

/// One record of a [`DatasetDiff`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// The record's place, in `b` where it is in both.
    pub entry: DatasetEntry,
    /// Paths of the documents that hold it.
    pub paths: Vec<String>,
}

/// An imported base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// Its name in recipes.
    pub name: String,
    /// Hash over its files.
    pub hash: Digest,
    /// Its family's name in `config.json`.
    pub family: String,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of weights.
    pub bytes: u64,
    /// Has a chat template.
    pub chat: bool,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for the run before it.
    Queued,
    /// Its dataset is being built.
    Building,
    /// It trains.
    Training,
    /// Its edge is being measured.
    Evaluating,
    /// Ended well.
    Done,
    /// Stopped on request; can be resumed.
    Stopped,
    /// Ended badly; can be resumed.
    Failed,
}

impl RunState {
    /// The word that stands in tables, JSON and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Training => "training",
            Self::Evaluating => "evaluating",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One execution of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name: the recipe's name and a number.
    pub name: String,
    /// Where it stands.
    pub state: RunState,
    /// Why it failed or stopped.
    pub message: Option<String>,
    /// Its recipe.
    pub recipe: Recipe,
    /// Hash of the recipe.
    pub recipe_hash: Digest,
    /// Its dataset, once built.
    pub dataset: Option<DatasetId>,
    /// Hash of its base.
    pub base: Option<Digest>,
    /// Seconds since 1970 at which it was asked for.
    pub created: i64,
    /// Optimiser steps done.
    pub steps: u64,
    /// How training ended.
    pub outcome: Option<TrainOutcome>,
    /// What it brought.
    pub edge: Option<EdgeReport>,
    /// Folder of the adapter or model.
    pub weights: Option<String>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Its folder.
    pub folder: String,
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// SHA-256 of its sums, which names it.
    pub hash: Digest,
}

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// What two people agreed to.
    pub statement: Box<Statement>,
    /// The folder.
    pub folder: String,
    /// Each file's path in it and its SHA-256.
    pub files: BTreeMap<String, Digest>,
}
