//! `moat` with `moatd`: one request a connection, then any number of [`Reply::Update`]s, then one final reply.
//!
//! The caller is known by SO_PEERCRED; no message says who it is from.

use std::collections::BTreeMap;

use moat_contracts::{Completion, Dataset, Progress, Recipe, Sampling, Sweep};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::boundary::{Canary, Confined, Key, LedgerEntry, LedgerPage, NewSlot, Seal, Secret, Slot};
pub use crate::comparison::{Against, Comparison, KeyDifference, SweepReport, SweepRun, SweepState};
pub use crate::data::{
    Change, DatasetFacts, Decided, Judgement, Mark, Near, Piece, REVIEW_COUNT, RecordFilter, RecordFound,
    RecordShown, RecordsFound, Review, ReviewQueue, ShownDocument, ShownText, Tryout, TryoutExample, Waiting,
};
pub use crate::report::{
    BackedUp, Base, Course, DatasetDiff, DatasetSummary, DiffEntry, Exported, Hour, JoinedSteps, Made,
    Newest, Reached, Run, RunPreview, RunState, Sample, SourceStatus, Status, StepPoint, Training, Twin,
    ValidationPoint, Why, WhyRecord,
};
pub use crate::rights::{
    Account, ApiKey, Enlisted, Guest, Invitation, MadeAccount, NewAccount, Proof, Statement,
};
pub use crate::source::{
    Added, AskedSource, FaultyDocument, FolderEntry, FolderListing, RemovedSource, SourceDefinition,
    SourceEntry, SourceFaults, SourceListing, SourceProblem, SourceTrial,
};

/// What `moat` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verb", content = "value", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What can be asked for, as OpenAPI 3.1.
    Api,
    /// How everything stands.
    Status,
    /// Look at the sources again, and answer when everything found is curated.
    Scan,
    /// Every source, and how it stands.
    Sources,
    /// What a folder of a source holds.
    SourceList {
        /// The source.
        source: String,
        /// The folder, from the source's root; the root where empty.
        #[serde(default)]
        folder: String,
        /// Only names behind this one.
        #[serde(default)]
        after: Option<String>,
    },
    /// Whether a source can be read, without taking anything in.
    SourceTest {
        /// The source.
        source: String,
    },
    /// A source's documents that were not read, or only in part.
    SourceFaults {
        /// The source.
        source: String,
        /// Only documents behind the one of this number.
        #[serde(default)]
        after: Option<u64>,
    },
    /// Take nothing in from a source until it is resumed.
    SourcePause {
        /// The source.
        source: String,
    },
    /// Take in from a paused source again.
    SourceResume {
        /// The source.
        source: String,
    },
    /// The folders of this machine from which a source can be chosen.
    SourceFolders {
        /// The folder whose folders are wanted; empty for those at which one begins.
        #[serde(default)]
        folder: String,
        /// Only names behind this one.
        #[serde(default)]
        after: Option<String>,
    },
    /// Whether a source that is not there yet can be read, and what it would read. Nothing is taken in.
    SourceTry {
        /// The source.
        definition: Box<SourceDefinition>,
    },
    /// Ask for a new source, which is read once somebody else agrees.
    SourceAdd {
        /// The source.
        definition: Box<SourceDefinition>,
        /// Who asks.
        proof: Proof,
    },
    /// Remove a source that was added, with all its documents and their records.
    SourceRemove {
        /// The source.
        source: String,
    },
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
    /// How a dataset is spread, and what was made of it.
    DatasetFacts {
        /// The id or its beginning.
        id: String,
    },
    /// Look for words in the texts of records.
    RecordSearch {
        /// The words; several in quotation marks are one phrase. Empty for every record that the filter lets through.
        words: String,
        /// Which records.
        #[serde(default)]
        filter: RecordFilter,
        /// Records found at most.
        most: usize,
        /// Go on where a search ended ([`RecordsFound::after`]).
        #[serde(default)]
        after: Option<u64>,
        /// Milliseconds after which to answer with what was found so far; until the end where absent.
        #[serde(default)]
        patience: Option<u64>,
    },
    /// One record with its text.
    Record {
        /// Its id or the id's beginning.
        id: String,
    },
    /// Records that wait for a person, and what was decided last.
    Reviews {
        /// Begin after this record, which waits.
        #[serde(default)]
        after: Option<String>,
        /// Records at most.
        most: usize,
    },
    /// Decide about a record.
    Review {
        /// Its id or the id's beginning.
        id: String,
        /// What.
        judgement: Judgement,
    },
    /// What other curation rules would keep and drop. Nothing is kept of it.
    Tryout {
        /// Keys of `[curation]` with other values, as JSON; what is absent stays as it is in force.
        changes: serde_json::Value,
        /// Records to judge at most.
        most: u64,
        /// Draws them where there are more.
        seed: u64,
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
    /// Build the dataset, and tell what a run would train on and take, with an example of the data.
    RunPreview {
        /// The recipe.
        recipe: Box<Recipe>,
    },
    /// As [`Request::RunPreview`], without any text of the data.
    RunPlan {
        /// The recipe.
        recipe: Box<Recipe>,
    },
    /// Several runs side by side, the later ones against the first.
    RunCompare {
        /// Their names or the names' beginnings.
        names: Vec<String>,
    },
    /// Put a run for each point of a sweep into the queue.
    SweepStart {
        /// The sweep.
        sweep: Box<Sweep>,
    },
    /// All sweeps.
    Sweeps,
    /// One sweep.
    Sweep {
        /// Its name or the name's beginning.
        name: String,
    },
    /// How a sweep stands, again and again until none of its runs goes on.
    SweepWatch {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Stop a sweep: its run in hand at a checkpoint, those that wait at once.
    SweepStop {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Put a sweep's stopped and failed runs into the queue again.
    SweepResume {
        /// Its name or the name's beginning.
        name: String,
    },
    /// All runs.
    Runs,
    /// One run.
    Run {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Steps of a run as they were measured, in order.
    RunSteps {
        /// Its name or the name's beginning.
        name: String,
        /// Only those after this one.
        after: u64,
        /// Steps at most.
        most: u64,
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
    /// The model card of a run, as an export of it holds it.
    RunCard {
        /// Its name or the name's beginning.
        name: String,
    },
    /// Complete the beginning of a held-back record with the base and a run's tuned model.
    RunSample {
        /// The run's name or the name's beginning.
        name: String,
        /// Which of the held-back records, from 1; the first where absent.
        #[serde(default)]
        number: Option<u64>,
        /// New tokens at most.
        #[serde(default)]
        tokens: Option<usize>,
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
    /// Invite people to make the first accounts themselves, in their browsers.
    Invite,
    /// Take an invitation up: the account is made once two invited people can do what takes two.
    Enlist {
        /// The invitation's code.
        code: Secret,
        /// The account that is to be.
        account: NewAccount,
    },
    /// Show that the device of somebody who was enlisted shows the right codes.
    EnlistConfirm {
        /// The account's name.
        name: String,
        /// The code that the device shows now.
        code: Secret,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// The request is being worked on.
    Update(Update),
    /// The answer to [`Request::Api`].
    Api(Box<serde_json::Value>),
    /// The answer to [`Request::Status`] and [`Request::Scan`].
    Status(Box<Status>),
    /// The answer to [`Request::Sources`], [`Request::SourcePause`] and [`Request::SourceResume`]: sources by name.
    Sources(BTreeMap<String, SourceStatus>),
    /// The answer to [`Request::SourceList`].
    SourceListing(SourceListing),
    /// The answer to [`Request::SourceTest`] and [`Request::SourceTry`].
    SourceTrial(SourceTrial),
    /// The answer to [`Request::SourceFolders`].
    SourceFolders(FolderListing),
    /// The answer to [`Request::SourceRemove`].
    SourceRemoved(RemovedSource),
    /// The answer to [`Request::SourceFaults`].
    SourceFaults(SourceFaults),
    /// The answer to [`Request::Why`]: one for every document that the path names.
    Why(Vec<Why>),
    /// The answer to [`Request::DatasetBuild`] and [`Request::Dataset`].
    Dataset(Box<Dataset>),
    /// The answer to [`Request::Datasets`].
    Datasets(Vec<DatasetSummary>),
    /// The answer to [`Request::DatasetDiff`].
    DatasetDiff(DatasetDiff),
    /// The answer to [`Request::DatasetFacts`].
    DatasetFacts(Box<DatasetFacts>),
    /// The answer to [`Request::RecordSearch`].
    Records(RecordsFound),
    /// The answer to [`Request::Record`].
    Record(Box<RecordShown>),
    /// The answer to [`Request::Reviews`].
    Reviews(ReviewQueue),
    /// The answer to [`Request::Review`].
    Reviewed(Decided),
    /// The answer to [`Request::Tryout`].
    Tryout(Box<Tryout>),
    /// The answer to [`Request::BaseImport`].
    Base(Base),
    /// The answer to [`Request::Bases`].
    Bases(Vec<Base>),
    /// The answer to the requests on one run.
    Run(Box<Run>),
    /// The answer to [`Request::RunSteps`].
    Steps(Vec<StepPoint>),
    /// The answer to [`Request::RunCompare`].
    Comparison(Box<Comparison>),
    /// The answer to the requests on one sweep.
    Sweep(Box<SweepReport>),
    /// The answer to [`Request::Sweeps`].
    Sweeps(Vec<SweepReport>),
    /// The answer to [`Request::RunPreview`] and [`Request::RunPlan`]; the latter's example is empty.
    Preview(Box<RunPreview>),
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
    /// The answer to [`Request::RunCard`]: Markdown.
    Card(String),
    /// The answer to [`Request::RunSample`].
    Sample(Box<Sample>),
    /// The answer to [`Request::Invite`].
    Invitation(Invitation),
    /// The answer to [`Request::EnlistConfirm`].
    Enlisted(Enlisted),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Texts are being searched, or judged by other rules.
    Looking {
        /// Texts done.
        records: u64,
        /// Texts in all.
        of: u64,
        /// Records found, or judged otherwise.
        found: u64,
    },
    /// A run entered a state.
    RunState {
        /// The run.
        run: String,
        /// The state.
        state: RunState,
    },
    /// A sweep that is watched stands otherwise than before.
    Sweep(Box<SweepReport>),
    /// New text of an answer; sent to whoever asked, and to nobody else.
    Answering {
        /// `base` or `tuned`.
        model: String,
        /// The text.
        text: String,
    },
    /// A run's engine reports.
    Run {
        /// The run.
        run: String,
        /// What it reports.
        progress: Progress,
    },
}
