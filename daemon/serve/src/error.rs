use std::path::PathBuf;

use moat_template::TemplateError;
use moat_tensor::TensorError;

/// Why a prompt cannot be answered. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Weights, adapter or forward.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The base's tokenizer or template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// How to draw tokens makes no sense.
    #[error("{key} is {value}: {remedy}")]
    Sampling {
        /// The key of [`moat_contracts::Sampling`].
        key: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        remedy: &'static str,
    },
    /// Nothing to go on from.
    #[error("the prompt is empty, and the base has no start token to begin a text with: write a few words")]
    Empty,
    /// No room for a single new token.
    #[error("the prompt has {tokens} tokens, but the model has {positions} positions: shorten it")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// The model predicts nothing that is a number.
    #[error(
        "the {model} model gives no finite probabilities: its weights are damaged, or diverged in training"
    )]
    NotFinite {
        /// `base` or `tuned`.
        model: &'static str,
    },
    /// A tuned model that speaks in other tokens.
    #[error("{0} has another vocabulary than the base: it is not tuned from it")]
    Strangers(PathBuf),
}
