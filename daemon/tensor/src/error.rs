use std::path::PathBuf;

use moat_contracts::ArchitectureError;

/// Why weights, an adapter, a batch or a state cannot be used. Names files, tensors and numbers, never text.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// A file or folder cannot be read or written.
    #[error("{path} cannot be {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there but does not follow its format.
    #[error("{path} is damaged or not in its format: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes handed over do not follow their format.
    #[error("the saved state cannot be restored: {0}")]
    State(String),
    /// `config.json` describes something that Moat does not train.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// An adapter is asked for on a linear that the base does not have.
    #[error("the base has no linear `{name}` that could carry an adapter: it has {known}")]
    Target {
        /// The last part of its name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A tensor that the configuration asks for is not there.
    #[error("tensor `{name}` is missing: the weights are incomplete or of another configuration")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor that the configuration does not know.
    #[error("tensor `{name}` has no place in this configuration: the weights are of another model")]
    Unexpected {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("tensor `{name}` has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What the configuration says.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A stored type that is not read.
    #[error("tensor `{name}` is stored as {found}: only F32, F16 and BF16 are read")]
    Type {
        /// Its name.
        name: String,
        /// The stored type.
        found: String,
    },
    /// A weight that cannot be rounded.
    #[error(
        "tensor `{name}` holds what is not a finite number and cannot be rounded: the base's weights are damaged"
    )]
    NotFinite {
        /// Its name.
        name: String,
    },
    /// Products in 8 bits are asked for with weights that are not held so.
    #[error("products in int8 need weights that are frozen as int8: these are frozen as {frozen}")]
    Precision {
        /// How they are held.
        frozen: &'static str,
    },
    /// Weights are to be trained that are held rounded.
    #[error(
        "the weights are frozen as {frozen} and cannot be trained: train an adapter on them, or load them as f32"
    )]
    Frozen {
        /// How they are held.
        frozen: &'static str,
    },
    /// A batch that does not fit together.
    #[error("the batch is malformed: {0}")]
    Batch(String),
    /// A token beyond the vocabulary.
    #[error(
        "token {token} is beyond the vocabulary of {vocabulary}: tokenizer and weights do not belong together"
    )]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// More tokens in one segment than the base has positions for.
    #[error("a sequence of {length} tokens is longer than the base's {limit} positions: cut it")]
    Position {
        /// Its tokens.
        length: usize,
        /// `max_position` of the base.
        limit: usize,
    },
    /// Gradients or moments made for another model.
    #[error("gradients or moments belong to another model: make them anew for this one")]
    Mismatch,
    /// A GPU, its driver or its libraries.
    #[error("the GPU cannot {doing}: {reason}")]
    Device {
        /// What was asked of it.
        doing: &'static str,
        /// Its own reason, or what to do.
        reason: String,
    },
    /// The system grants no more threads.
    #[error("a worker cannot be started: {0}")]
    Threads(String),
}
