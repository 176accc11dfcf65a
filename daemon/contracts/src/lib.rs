//! The types that the stages hand to each other: documents, texts, records, datasets, recipes, jobs, reports.
//!
//! Everything here is plain data with its validation. This crate does no I/O, spawns nothing and is not
//! async, so any stage can be read against it without leaving the page.

mod architecture;
mod boundary;
mod dataset;
mod digest;
mod document;
mod edge;
mod job;
mod key;
mod proof;
mod recipe;
mod record;
mod rules;
mod sweep;
mod text;

pub use architecture::{
    Activation, Architecture, ArchitectureError, Family, LinearShape, Rope, RopeScaling, Sliding, TensorShape,
};
pub use boundary::{Attempt, Held, Outcome, Protection};
pub use dataset::{Dataset, DatasetEntry, DatasetId, DatasetShape, DatasetSource, Split, SplitCounts};
pub use digest::{Digest, DigestError, Hasher};
pub use document::{Document, DocumentId, DocumentState, Skip};
pub use edge::{
    AnswerLosses, DocumentLoss, EdgeDifference, EdgeReport, ForgettingReport, Interval, PreferenceReport,
    SourceEdge,
};
pub use job::{
    AskJob, Completion, EvaluateJob, Example, ExportJob, PairFigures, Progress, Sampling, Start,
    TokenLogprob, TrainJob, TrainOutcome, ValidationOutcome,
};
pub use key::{RunKey, RunPart};
pub use proof::{Claim, MemoryPart, MemoryPlan, MemoryUse, Preview, Proof, Stretch, Survey};
pub use recipe::{
    DecayGroup, DecayShape, DpoRecipe, EvaluateRecipe, Frozen, Keep, LearntTurns, LoraRecipe, Method,
    Objective, OptimizerRecipe, OptimizerState, Precision, Recipe, RecipeFault, Recompute, Schedule,
    SelectionRecipe, SplitRecipe, TrainRecipe, ValidationRecipe,
};
pub use record::{Decision, Reason, Record, RecordId, RecordKey, Redaction, Verdict};
pub use rules::{Action, Detect, Detector, Duplicates, Profiles, Quality, Rules, RulesFault};
pub use sweep::{MOST_RUNS, Sweep, SweepFault, SweepOrder, Swept};
pub use text::{Kind, Text, TextFault};
