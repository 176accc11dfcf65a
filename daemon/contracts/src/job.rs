use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, DocumentLoss, Kind, MemoryPlan, Proof, Recipe, RecordId, RunKey, Split, Survey};

/// One record's text on its way to the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The record.
    pub record: RecordId,
    /// The configured name of its source.
    pub source: String,
    /// Its side.
    pub split: Split,
    /// What sort of text: a chat goes through the base's template, a preference is two answers to one prompt.
    pub kind: Kind,
    /// The curated text, as [`crate::Text::body`] holds it.
    pub body: String,
}

/// Train an adapter, or a whole model, on the examples that follow it. The engine writes checkpoints and the result
/// into `output`: each file `NAME` plain, or with a key sealed as `NAME.sealed`, for the object `RUN/checkpoint/NAME`,
/// `RUN/adapter/NAME` or `RUN/model/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainJob {
    /// The run's name, also the name of its folder; what is sealed is sealed for it.
    pub run: String,
    /// Seals what is written; none writes plain files.
    pub key: Option<RunKey>,
    /// Folder of the base in Hugging Face's layout.
    pub base: String,
    /// Folder that the engine may write: `checkpoint/`, and `adapter/` or `model/` at the end.
    pub output: String,
    /// Decides the result.
    pub recipe: Recipe,
    /// What it starts with, where the recipe names an earlier run.
    pub start: Option<Start>,
    /// Worker threads of each process; 0 takes every core.
    pub threads: usize,
    /// Bytes of memory that the engine may take, all its processes together; 0 for what the machine and its control group
    /// allow.
    #[serde(default)]
    pub memory: u64,
    /// Processes that share the micro-batches of each step, at least 1.
    #[serde(default = "alone")]
    pub processes: usize,
    /// This process's number among them, from 0: the first writes and tells.
    #[serde(default)]
    pub rank: usize,
}

fn alone() -> usize {
    1
}

/// The result of an earlier run, as the start of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The run that made it, for which its files are sealed.
    pub run: String,
    /// Opens them; none where they are plain.
    pub key: Option<RunKey>,
    /// Folder of its adapter or model.
    pub folder: String,
    /// SHA-256 of its weights, as its outcome told it: a checkpoint belongs to one start.
    pub weights: Digest,
}

/// How a training job ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainOutcome {
    /// Optimiser steps done.
    pub steps: u64,
    /// Tokens trained on, over all steps.
    pub tokens: u64,
    /// Mean loss of the first step, nats a token.
    pub first_loss: f64,
    /// Mean loss over the last tenth of the steps, nats a token.
    pub last_loss: f64,
    /// SHA-256 of the weights file that was written, before it was sealed.
    pub weights: Digest,
    /// Peak resident memory of the engine, bytes; 0 where it is not known.
    pub peak_memory: u64,
    /// What was measured on the validation side, where the recipe asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationOutcome>,
}

/// How a model tells the answers of pairs apart, by the rewards that DPO gives them (Rafailov et al., arXiv 2305.18290):
/// β times how much likelier than at the start an answer is, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairFigures {
    /// Pairs that were looked at.
    pub pairs: u64,
    /// Share of them whose chosen answer has the higher reward.
    pub accuracy: f64,
    /// Mean reward of the chosen answer less that of the rejected one.
    pub margin: f64,
}

/// How the validation loss went, and what it decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValidationOutcome {
    /// Before the first step, nats a token.
    pub first: f64,
    /// Of the weights that the run ended with, nats a token.
    pub kept: f64,
    /// The step after which these were the weights; none for the mean of several.
    pub step: Option<u64>,
    /// Training ended before its last step, because the loss did not gain any more.
    pub early: bool,
}

/// Measure base and tuned on the held-out examples that follow it, and on the forgetting text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateJob {
    /// The run that tuned, for which its files are sealed.
    pub run: String,
    /// Opens the tuned weights; none where they are plain.
    pub key: Option<RunKey>,
    /// Folder of the base.
    pub base: String,
    /// Folder of the adapter, or of the fully trained model.
    pub tuned: String,
    /// Tokens of context at most.
    pub sequence_length: usize,
    /// Worker threads; 0 takes every core.
    pub threads: usize,
}

/// Write base + adapter as one merged model folder (weights and config; the card and the sums are added by `moatd`),
/// sealed as the adapter is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportJob {
    /// The run that tuned, for which its files are sealed.
    pub run: String,
    /// Opens the adapter and seals the model; none where both are plain.
    pub key: Option<RunKey>,
    /// Folder of the base.
    pub base: String,
    /// Folder of the adapter.
    pub adapter: String,
    /// Folder to write; must not exist.
    pub output: String,
}

/// How to draw tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Nucleus: the smallest set of tokens with this much probability; 1 takes all.
    pub top_p: f64,
    /// Decides every draw.
    pub seed: u64,
    /// New tokens at most.
    pub max_tokens: usize,
}

/// Complete a prompt with the base and, where given, with the tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskJob {
    /// The run that tuned, for which its files are sealed; empty where nothing tuned is asked.
    pub run: String,
    /// Opens the tuned weights; none where they are plain.
    pub key: Option<RunKey>,
    /// Folder of the base.
    pub base: String,
    /// Folder of the adapter, or of the fully trained model.
    pub tuned: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// Put the prompt through the base's chat template as a user's message.
    pub chat: bool,
    /// How to draw tokens.
    pub sampling: Sampling,
}

/// One token with its log-probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// Token id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f64,
}

/// What one model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completion {
    /// `base` or `tuned`.
    pub model: String,
    /// The new text.
    pub text: String,
    /// The new tokens.
    pub tokens: Vec<TokenLogprob>,
    /// True where an end token was drawn, false where `max_tokens` was reached.
    pub stopped: bool,
    /// New tokens a second.
    pub tokens_per_second: f64,
}

/// What a job reports while it goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Progress {
    /// The job is preparing: loading weights, tokenising, packing.
    Preparing {
        /// What it does, in a few words.
        doing: String,
    },
    /// A training job starts or goes on after a restart.
    Training {
        /// Steps done before (from a checkpoint).
        from: u64,
        /// Steps in all.
        steps: u64,
        /// Trainable parameters.
        trainable: u64,
        /// Parameters in all.
        parameters: u64,
    },
    /// What a fresh training job trains on, and what it takes.
    Surveyed {
        /// The training side as tokens.
        survey: Survey,
        /// What it takes of memory.
        memory: MemoryPlan,
    },
    /// What was shown of a run, held or not: before its first step, and again of its weights at the end.
    Proven {
        /// The proofs, in the order of their claims.
        proofs: Vec<Proof>,
    },
    /// One optimiser step was done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Mean loss over the step's trained tokens, nats a token; over its pairs, where those are trained on.
        loss: f64,
        /// Norm of the gradient before clipping.
        gradient_norm: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Tokens of the step.
        tokens: u64,
        /// Tokens a second, over the step.
        tokens_per_second: f64,
        /// Peak resident memory of the engine so far, bytes.
        #[serde(default)]
        memory: u64,
        /// Seconds until the last step, at the pace since the engine started.
        #[serde(default)]
        seconds_left: f64,
        /// Processor cores that the engine kept busy, over the step.
        #[serde(default)]
        cores: f64,
        /// How the step's pairs were told apart before it, where it was one of preference training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pairs: Option<PairFigures>,
    },
    /// The validation sample was measured.
    Validated {
        /// Steps done.
        step: u64,
        /// Mean loss over the sample's trained tokens, nats a token; over its pairs, where those are trained on.
        loss: f64,
        /// Whether it lies far enough below every one before to be a gain.
        gain: bool,
        /// How the sample's pairs were told apart, where it is one of preference training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pairs: Option<PairFigures>,
    },
    /// A checkpoint is safely on disk.
    Checkpoint {
        /// Steps that it holds.
        step: u64,
    },
    /// An evaluation examined one more record.
    Examined {
        /// The record's losses.
        loss: DocumentLoss,
        /// Records done.
        done: u64,
        /// Records in all.
        of: u64,
    },
}
