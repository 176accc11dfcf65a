//! What `moatd` tells of documents, datasets, bases, runs and the box.

use std::collections::BTreeMap;

use moat_contracts::{
    Completion, DatasetEntry, DatasetId, DatasetSource, Digest, EdgeReport, Interval, MemoryPlan, Preview,
    Proof, Reason, Recipe, RecordId, Survey, TextFault, TrainOutcome,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boundary::{Canary, Confined, Seal};
use crate::rights::Statement;
use crate::source::Added;

/// How everything stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What each process gave up: `moatd`, and the last engine that it started.
    #[serde(default)]
    pub processes: BTreeMap<String, Confined>,
    /// What waits for a second person.
    pub waiting: u64,
    /// Records that wait for a person, counted up to [`crate::control::REVIEW_COUNT`].
    #[serde(default)]
    pub review: u64,
    /// What was made of the sources' records.
    #[serde(default)]
    pub made: Made,
    /// Why no work on data is done although the vault is open.
    #[serde(default)]
    pub held_back: Option<String>,
    /// What came and went in the last hour.
    #[serde(default)]
    pub hour: Hour,
    /// The run that trains now.
    #[serde(default)]
    pub trains: Option<Training>,
}

/// What came and went in the last hour: a count for each minute, the oldest first. Of this start of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hour {
    /// Documents taken in, changed, or found gone.
    pub documents: Vec<u64>,
    /// Prompts answered.
    pub answers: Vec<u64>,
}

/// How far a run is that trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Training {
    /// The run.
    pub run: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps in all, once planned.
    pub planned: Option<u64>,
    /// Tokens a second at the last step that was kept.
    pub tokens_per_second: f64,
    /// Seconds until the last step, as it was judged then.
    pub seconds_left: f64,
}

/// What was made of the sources' records, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Made {
    /// Datasets.
    pub datasets: u64,
    /// Tokens of the newest one.
    pub tokens: u64,
    /// Runs by the word of their state.
    pub runs: BTreeMap<String, u64>,
    /// Runs whose edge was measured: models.
    pub models: u64,
    /// Models of which it is certain that they are better than their base.
    pub better: u64,
    /// The newest model.
    pub newest: Option<Newest>,
    /// Prompts that were answered since the start.
    pub answers: u64,
    /// Bases that were taken in.
    #[serde(default)]
    pub bases: u64,
}

/// The newest model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Newest {
    /// Its run.
    pub run: String,
    /// Bits per byte that it saves on what was held back; none where too little was.
    pub edge: Option<Interval>,
}

/// How one source stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Seconds since 1970 since which it is paused.
    #[serde(default)]
    pub paused: Option<i64>,
    /// Seconds by which what is taken in lags behind the source, as far as is known: since the first change that was noticed
    /// and is not taken in; 0 where it is in step.
    #[serde(default)]
    pub lag: u64,
    /// Files that are being written and are waited for.
    #[serde(default)]
    pub unsettled: u64,
    /// Seconds since 1970 at which the next whole scan is due.
    #[serde(default)]
    pub due: Option<i64>,
    /// Seconds that the last whole scan took.
    #[serde(default)]
    pub took: Option<f64>,
    /// Seconds between two whole scans.
    #[serde(default)]
    pub rescan: u64,
    /// Who brought it; nothing where the configuration names it.
    #[serde(default)]
    pub added: Option<Added>,
    /// Whether it is being removed: its documents are deleted, and it goes after them.
    #[serde(default)]
    pub removing: bool,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Its source.
    pub source: String,
    /// Its path in the source.
    pub path: String,
    /// Whether its source is read no more: neither the configuration nor people name it.
    #[serde(default)]
    pub removed: bool,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What a person decided about its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<crate::data::Review>,
}

/// The record that survived in another's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Twin {
    /// Its source.
    pub source: String,
    /// Its path.
    pub path: String,
    /// Estimated Jaccard similarity of the shingles; 1 for the same text.
    pub similarity: f64,
}

/// A dataset or model that a document reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reached {
    /// The dataset.
    pub dataset: DatasetId,
    /// `train` or `held_out`.
    pub split: String,
    /// Runs on it.
    pub runs: Vec<String>,
}

/// A dataset in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiffEntry {
    /// The record's place, in `b` where it is in both.
    pub entry: DatasetEntry,
    /// Paths of the documents that hold it.
    pub paths: Vec<String>,
}

/// An imported base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Optimiser steps in all, once planned.
    pub planned: Option<u64>,
    /// What every step measured; empty in lists.
    pub course: Course,
    /// How training ended.
    pub outcome: Option<TrainOutcome>,
    /// What it brought.
    pub edge: Option<EdgeReport>,
    /// Folder of the adapter or model.
    pub weights: Option<String>,
    /// The sweep that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<String>,
}

/// What was measured while a run trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Course {
    /// Every step, in order; none where there are too many to tell each, as `joined` does then.
    pub steps: Vec<StepPoint>,
    /// Neighbouring steps of a long run, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<JoinedSteps>,
    /// The last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<StepPoint>,
    /// Every look at the validation side, in order.
    pub validations: Vec<ValidationPoint>,
    /// What it trains on; none in runs of earlier releases, as below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey: Option<Survey>,
    /// What it takes of memory, as it was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryPlan>,
    /// What was proven of it, in the order of the claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
}

/// What a recipe would train on and take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunPreview {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its sides, over all sources.
    pub sides: DatasetSource,
    /// The recipe's hash.
    pub recipe: Digest,
    /// What the engine found, with an example.
    pub preview: Preview,
}

/// How base and tuned model go on from the beginning of a held-back record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The run.
    pub run: String,
    /// The record.
    pub record: RecordId,
    /// Its source.
    pub source: String,
    /// Its number among the held-back records, from 1.
    pub number: u64,
    /// Held-back records.
    pub of: u64,
    /// Whether it is a chat: then its beginning is what a person says, put through the chat template.
    pub chat: bool,
    /// What both were given.
    pub beginning: String,
    /// What the record really goes on with: its first part.
    pub rest: String,
    /// Whether there is more of that.
    pub more: bool,
    /// The base's answer, then the tuned model's.
    pub completions: Vec<Completion>,
}

/// What one optimiser step measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepPoint {
    /// Its number, from 1.
    pub step: u64,
    /// Mean loss, nats a token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens a second; 0 in runs of the first release, as below.
    pub tokens_per_second: f64,
    /// Peak resident memory of the engine so far, bytes.
    pub memory: u64,
    /// Seconds until the last step, as it was judged then.
    pub seconds_left: f64,
    /// Processor cores that the engine kept busy; 0 in runs of earlier releases.
    #[serde(default)]
    pub cores: f64,
}

/// What neighbouring steps measured; all three points bear the number of the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JoinedSteps {
    /// How many there are.
    pub steps: u64,
    /// The mean of each value.
    pub mean: StepPoint,
    /// The lowest of each.
    pub low: StepPoint,
    /// The highest of each.
    pub high: StepPoint,
}

impl From<StepPoint> for JoinedSteps {
    fn from(point: StepPoint) -> Self {
        Self { steps: 1, mean: point, low: point, high: point }
    }
}

impl JoinedSteps {
    /// Both, of which `later` comes after this one.
    pub fn join(&self, later: &Self) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a run has fewer steps than 2^52")]
        let share = later.steps as f64 / (self.steps + later.steps) as f64;
        let mean = |a: f64, b: f64| a + (b - a) * share;
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = |a: u64, b: u64| mean(a as f64, b as f64).round() as u64;
        let step = later.mean.step;
        Self {
            steps: self.steps + later.steps,
            mean: self.mean.with(&later.mean, step, mean, whole),
            low: self.low.with(&later.low, step, f64::min, u64::min),
            high: self.high.with(&later.high, step, f64::max, u64::max),
        }
    }
}

impl StepPoint {
    fn with(
        &self,
        other: &Self,
        step: u64,
        number: impl Fn(f64, f64) -> f64,
        whole: impl Fn(u64, u64) -> u64,
    ) -> Self {
        Self {
            step,
            loss: number(self.loss, other.loss),
            gradient_norm: number(self.gradient_norm, other.gradient_norm),
            learning_rate: number(self.learning_rate, other.learning_rate),
            tokens: whole(self.tokens, other.tokens),
            tokens_per_second: number(self.tokens_per_second, other.tokens_per_second),
            memory: whole(self.memory, other.memory),
            seconds_left: number(self.seconds_left, other.seconds_left),
            cores: number(self.cores, other.cores),
        }
    }
}

/// What one look at the validation side measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValidationPoint {
    /// Steps done.
    pub step: u64,
    /// Mean loss, nats a token.
    pub loss: f64,
    /// Whether it lay far enough below every one before to be a gain.
    pub gain: bool,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// What two people agreed to.
    pub statement: Box<Statement>,
    /// The folder.
    pub folder: String,
    /// Each file's path in it and its SHA-256.
    pub files: BTreeMap<String, Digest>,
}
