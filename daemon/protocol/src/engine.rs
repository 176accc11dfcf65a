//! `moatd` with `moat-engine`: one job a connection, one connection an engine's life.
//!
//! After both [`crate::Hello`]s, `moatd` sends a job, then (for [`ToEngine::Train`], [`ToEngine::Preview`] and [`ToEngine::Evaluate`])
//! every [`ToEngine::Example`] and [`ToEngine::End`]. The engine sends one [`FromEngine::Confined`], any number of
//! [`FromEngine::Progress`] and [`FromEngine::Canary`] and exactly one of the others, then exits. [`ToEngine::Stop`] may come at any time after the job.
//!
//! Where several engines train one run, each gets the same but for [`TrainJob::rank`], and is connected with others: the first
//! with each, the others with the first. It gets these connections over its own (unix(7), `SCM_RIGHTS`), with one byte between
//! the job and what follows.

use moat_contracts::{
    AskJob, Attempt, Completion, DocumentLoss, EvaluateJob, Example, ExportJob, Held, Preview, Progress,
    TrainJob, TrainOutcome,
};
use serde::{Deserialize, Serialize};

/// What `moatd` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "an engine gets one job, so a message's size on the stack costs nothing"
)]
pub enum ToEngine {
    /// Train on the examples that follow; goes on from the checkpoint in the job's folder, if there is one.
    Train(TrainJob),
    /// Tell what training on the examples that follow would see and take. Nothing is written.
    Preview(TrainJob),
    /// Measure base and tuned on the examples that follow.
    Evaluate(EvaluateJob),
    /// Write a merged model.
    Export(ExportJob),
    /// Complete a prompt.
    Ask(AskJob),
    /// One example.
    Example(Example),
    /// The examples are complete.
    End,
    /// Write a checkpoint and end with [`FromEngine::Stopped`].
    Stop,
}

/// What the engine says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum FromEngine {
    /// The job goes on.
    Progress(Progress),
    /// What the engine gave up; comes once, when its boundary is closed around the job.
    Confined(Vec<Held>),
    /// The engine's canary tried every way out; may come at any time before the last word.
    Canary(Vec<Attempt>),
    /// A training job is done; its weights are on disk.
    Trained(TrainOutcome),
    /// What a training job would see and take, with an example of its data.
    Previewed(Box<Preview>),
    /// An evaluation is done.
    Evaluated {
        /// Every held-out example, in the order it came.
        held_out: Vec<DocumentLoss>,
        /// The passages of the forgetting text.
        forgetting: Vec<DocumentLoss>,
    },
    /// A merged model is on disk.
    Exported,
    /// New text of an answer, as soon as its letters are whole. Customers' data, as the prompt is.
    Piece {
        /// `base` or `tuned`.
        model: String,
        /// The text.
        text: String,
    },
    /// The base's answer, then the tuned model's.
    Answered(Vec<Completion>),
    /// The job cannot go on, since another engine that it was shared with ended: what that one said last, or its death, is
    /// the reason.
    Left {
        /// The other's number.
        rank: usize,
    },
    /// Stopped on request, after a checkpoint.
    Stopped,
    /// The job cannot go on.
    Failed {
        /// What happened, where, and what to do; no customers' text.
        reason: String,
    },
}
