//! What `moatd` tells of several runs side by side.

use moat_contracts::{EdgeDifference, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::{Run, RunState};

/// Several runs side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The runs with their courses, in the order in which they were named.
    pub runs: Vec<Run>,
    /// Keys of the recipes of which not all have the same value.
    pub recipe: Vec<KeyDifference>,
    /// Each run after the first against the first.
    pub against: Vec<Against>,
}

/// A key of recipes, with the value in each run's as TOML writes it; empty where a recipe has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDifference {
    /// The key's path.
    pub key: String,
    /// The values, in the order of the runs.
    pub values: Vec<String>,
}

/// A run against another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Against {
    /// The run.
    pub run: String,
    /// Both tuned the same base.
    pub same_base: bool,
    /// Both have the same dataset, and so the same held-back side.
    pub same_dataset: bool,
    /// The difference of their edges, on the records that both were measured on.
    pub difference: Option<EdgeDifference>,
    /// Why there is none.
    pub why: Option<String>,
}

/// Where a sweep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepState {
    /// No run of it began.
    Queued,
    /// Some of its runs are done, some are not.
    Running,
    /// Nothing waits, and not all of its runs ended by themselves.
    Stopped,
    /// All of its runs ended.
    Done,
}

impl SweepState {
    /// The word that stands in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
        }
    }
}

/// A sweep with what came of its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepReport {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: SweepState,
    /// Seconds since 1970 at which it was asked for.
    pub created: i64,
    /// The base that its runs tune.
    pub base: String,
    /// The keys that vary.
    pub keys: Vec<String>,
    /// Whether its runs have a validation side, by which to choose.
    pub validated: bool,
    /// Runs in all.
    pub of: u64,
    /// Runs that are done.
    pub done: u64,
    /// Runs that failed.
    pub failed: u64,
    /// The done run with the lowest validation loss.
    pub best: Option<String>,
    /// Its runs: the done ones by their validation loss, the lowest first, then the others in their order. Empty in lists.
    pub runs: Vec<SweepRun>,
}

/// A run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepRun {
    /// Its name.
    pub run: String,
    /// Where it stands.
    pub state: RunState,
    /// Why it failed or stopped.
    pub message: Option<String>,
    /// Its value of each key that varies, as TOML writes it.
    pub values: Vec<String>,
    /// Validation loss of the weights that it ended with, or the last one so far; nats a token.
    pub validation: Option<f64>,
    /// Mean training loss over the last tenth of the steps, nats a token.
    pub loss: Option<f64>,
    /// Its edge, bits per byte.
    pub edge: Option<Interval>,
    /// Optimiser steps done.
    pub steps: u64,
    /// Optimiser steps in all, once planned.
    pub planned: Option<u64>,
    /// Peak resident memory of its engine, bytes.
    pub peak_memory: Option<u64>,
}
