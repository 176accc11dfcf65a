use std::path::PathBuf;

use moat_contracts::RecordId;
use moat_template::TemplateError;
use moat_tensor::TensorError;

/// Why base and tuned model cannot be measured. Names records by id, never their text.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Weights, adapter or forward.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The base's tokenizer or template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A record that cannot be scored.
    #[error("record {record} cannot be scored: {source}")]
    Example {
        /// The record.
        record: RecordId,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// Models whose losses cannot be compared.
    #[error("{0} was trained with another tokenizer or vocabulary than the base: it is not tuned from it")]
    Strangers(PathBuf),
    /// A window without room for context.
    #[error("a sequence of {0} tokens is too short to score in: at least 2 are needed")]
    Window(usize),
    /// A loss that is no number.
    #[error(
        "the loss of record {record} under the {model} is not finite: {model} weights are damaged, or diverged in training"
    )]
    NotFinite {
        /// The record.
        record: RecordId,
        /// `base` or `tuned`.
        model: &'static str,
    },
    /// The text that is built in does not parse.
    #[error("passage {0} of the forgetting text is no object with `name` and `text`: this build is damaged")]
    Passage(usize),
}
