use std::path::PathBuf;

use moat_contracts::{ArchitectureError, Digest};
use moat_template::TemplateError;

/// Why a folder cannot be taken in, used or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
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
    /// A file does not follow its format.
    #[error("{path} is damaged or not in its format: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that every base has is not there.
    #[error("{folder} is no base: it has no {file}")]
    NoFile {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// Weights only as pickles, which can run programs.
    #[error(
        "{folder} holds its weights as a pickle ({file}), which Moat never opens, since a pickle can run programs: save it with `safe_serialization=True` where it comes from, or take the safetensors release"
    )]
    Pickle {
        /// The folder.
        folder: PathBuf,
        /// The pickle.
        file: String,
    },
    /// What `config.json` describes cannot be trained.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// Tokenizer, special tokens or template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer gives ids that the embedding has no rows for.
    #[error(
        "tokenizer and weights do not belong together: {what} reaches id {highest}, but the embedding has {vocabulary} rows"
    )]
    Vocabulary {
        /// Whose ids.
        what: &'static str,
        /// The highest id.
        highest: usize,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// A tensor that `config.json` asks for is not there.
    #[error("tensor `{name}` is missing: the weights are incomplete or of another configuration")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor that `config.json` does not know.
    #[error("tensor `{name}` of {path} has no place in config.json: the weights are of another model")]
    Unexpected {
        /// Its file.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}` has shape {found:?}, but config.json asks for {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What `config.json` says.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A tensor stored in a type that is not read.
    #[error(
        "tensor `{name}` is stored as {found}: only F32, F16 and BF16 are read; take the unquantised release"
    )]
    Type {
        /// Its name.
        name: String,
        /// The stored type.
        found: String,
    },
    /// A weight that is infinite or no number.
    #[error("tensor `{name}` holds an infinity or a NaN at element {element}: the weights are damaged")]
    NotFinite {
        /// Its name.
        name: String,
        /// Its first such element, from 0, row by row.
        element: u64,
    },
    /// A file is not what its sum says.
    #[error("{path} has SHA-256 {found}, but {sums} says {expected}: it was damaged or changed on its way")]
    Sum {
        /// The file.
        path: PathBuf,
        /// Where its sum stands.
        sums: &'static str,
        /// The sum that it should have.
        expected: Digest,
        /// The sum that it has.
        found: Digest,
    },
    /// A file that no sum vouches for.
    #[error("{path} is not listed in SHA256SUMS: it was added afterwards")]
    Unlisted {
        /// The file.
        path: PathBuf,
    },
    /// A name that cannot be a folder's.
    #[error(
        "`{0}` is no name for a base: use letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 100"
    )]
    Name(String),
    /// The name belongs to other content.
    #[error("a base named `{name}` is already there with other content ({hash}): choose another name")]
    Taken {
        /// The name.
        name: String,
        /// Hash of what bears it.
        hash: Digest,
    },
    /// No base of this name.
    #[error("no base is named `{0}`: `moat base list` shows those that are there")]
    Unknown(String),
    /// An export may not overwrite anything.
    #[error("{0} is already there: export into a folder that does not exist")]
    Exists(PathBuf),
}

impl ModelError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, what: "read", source }
    }

    pub(crate) fn written(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, what: "written", source }
    }
}
