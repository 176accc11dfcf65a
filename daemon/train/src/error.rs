use std::io;
use std::path::{Path, PathBuf};

use moat_contracts::RecordId;
use moat_template::TemplateError;
use moat_tensor::TensorError;

use crate::ExchangeError;

/// Why a job cannot go on. Names files, records, tensors and numbers, never text.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file or folder cannot be read or written.
    #[error("{} cannot be {what}: {source}{}", .path.display(), remedy(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The base's tokenizer or template cannot be used.
    #[error(transparent)]
    Text(#[from] TemplateError),
    /// The base's weights cannot be used.
    #[error("{} cannot be used: {reason}", .path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One example cannot be trained on.
    #[error("record {record} cannot be trained on: {reason}")]
    Example {
        /// The record.
        record: RecordId,
        /// Why.
        reason: String,
    },
    /// No example came.
    #[error("there is nothing to train on: the dataset's training side is empty")]
    Nothing,
    /// The recipe asks to fill in the middle, but the base does not know how.
    #[error(
        "the base has no tokens to fill in the middle with (such as <|fim_prefix|>, <|fim_suffix|>, <|fim_middle|>), so that what it learnt of it could not be asked for: set train.fim = 0, or take a base for code"
    )]
    Infill,
    /// No pair fits in its rows.
    #[error(
        "there is nothing to train on: each of the {pairs} preferences has an answer that is longer with its prompt than train.sequence_length = {limit}: raise it"
    )]
    Long {
        /// Pairs.
        pairs: usize,
        /// Tokens of a row.
        limit: usize,
    },
    /// No example to validate on came.
    #[error(
        "there is nothing to validate on: the dataset's validation side is empty, but the recipe asks for one"
    )]
    NoValidation,
    /// The recipe asks for longer rows than the base has positions.
    #[error(
        "the recipe asks for rows of {asked} tokens, but the base has {limit} positions: lower train.sequence_length"
    )]
    Length {
        /// Tokens of a row.
        asked: usize,
        /// Positions of the base.
        limit: usize,
    },
    /// The GPU cannot train this, or does not compute what the processor does.
    #[error("the GPU cannot train this run: {0}")]
    Gpu(String),
    /// The run did not prove itself before its first step.
    #[error("the run did not prove itself and was not started: {0}")]
    Proof(String),
    /// The run does not fit in memory.
    #[error(
        "the run needs {} of memory and may take {}: {changes}; `moat run preview` shows what takes how much", mib(*.needed), mib(*.available)
    )]
    Memory {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that it may take.
        available: u64,
        /// What to change.
        changes: String,
    },
    /// Loss or gradient is no number.
    #[error(
        "{what} of step {step} is not a finite number: lower optimizer.learning_rate or raise optimizer.warmup; the \
         last checkpoint is kept"
    )]
    Diverged {
        /// `the loss`, `the gradient` or `the validation loss`.
        what: &'static str,
        /// The step, from 1.
        step: u64,
    },
    /// A checkpoint that does not belong to this run, or is damaged.
    #[error("the checkpoint in {} cannot be resumed: {reason}; remove it to start the run over", .path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder to export into is there already.
    #[error("{} exists already: choose another folder, or remove it", .0.display())]
    Exists(PathBuf),
    /// The weights of the earlier run do not fit this one.
    #[error("the run cannot start from {run}: {reason}")]
    Start {
        /// The earlier run.
        run: String,
        /// What differs, and what to do.
        reason: &'static str,
    },
    /// A step has less for the processes to do than there are of them.
    #[error(
        "a step of the run has {micro_batches} micro-batches for {ranks} processes: lower training.processes in moat.toml, \
         or raise train.accumulate and lower train.micro_batch"
    )]
    Ranks {
        /// Processes.
        ranks: usize,
        /// Micro-batches of a step.
        micro_batches: usize,
    },
    /// A process does not train what the first one does.
    #[error(
        "rank {rank} does not train the same bits as rank 0, found after step {step}: resume the run from its last \
         checkpoint, and report it"
    )]
    Apart {
        /// The process.
        rank: usize,
        /// Steps done.
        step: u64,
    },
    /// The processes of the run cannot exchange what they computed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// What `tensor` found.
    #[error(transparent)]
    Tensor(TensorError),
}

impl From<TensorError> for TrainError {
    fn from(error: TensorError) -> Self {
        match error {
            // So that a full disk comes with its remedy, whoever met it.
            TensorError::Io { path, what, source } => Self::Io { path, what, source },
            other => Self::Tensor(other),
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; free some space and resume, the last checkpoint is intact"
        }
        _ => "",
    }
}

impl TrainError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what: "read", source }
    }

    pub(crate) fn written(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what: "written", source }
    }

    pub(crate) fn example(record: RecordId, reason: impl Into<String>) -> Self {
        Self::Example { record, reason: reason.into() }
    }
}
