use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Proof;

/// What to do with sources.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Source {
    /// List the sources, or what a folder of one holds.
    List {
        /// The source; else all sources with how they stand.
        source: Option<String>,
        /// The folder, from the source's root; else the root.
        #[arg(default_value = "", hide_default_value = true)]
        folder: String,
        /// Only names behind this one.
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Look whether all of a source can be read; nothing is taken in.
    Test {
        /// The source.
        source: String,
    },
    /// List the documents that were not read, or only in part, and why.
    Faults {
        /// The source.
        source: String,
        /// Only documents behind the one of this number.
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
    },
    /// List the folders of this machine from which a source can be chosen.
    Folders {
        /// The folder whose folders are wanted; else those at which one begins.
        folder: Option<PathBuf>,
        /// Only names behind this one.
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Tell what a new source would read; nothing is taken in, and nothing asked for.
    Try(NewSource),
    /// Ask for a new source in one of boundary.sources; it is read once somebody else agrees.
    Add {
        #[command(flatten)]
        source: NewSource,
        #[command(flatten)]
        proof: Proof,
    },
    /// Remove a source that was added: its documents are deleted with their records, and the next dataset is without them.
    Remove {
        /// The source, its name whole.
        source: String,
    },
    /// Take nothing in from a source until it is resumed.
    Pause {
        /// The source.
        source: String,
    },
    /// Take in from a paused source again.
    Resume {
        /// The source.
        source: String,
    },
}

/// A source that is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct NewSource {
    /// Its name: recipes, tables and lineage call it so.
    pub(crate) name: String,
    /// The folder or repository.
    pub(crate) path: PathBuf,
    /// What it is.
    #[arg(long, value_enum, default_value_t = Kind::Folder)]
    pub(crate) kind: Kind,
    /// The branch of a git source; else the one that HEAD names.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) branch: String,
    /// The policy that its documents carry [default: internal].
    #[arg(long)]
    pub(crate) policy: Option<String>,
    /// Bytes of a document at most; larger ones are counted and skipped [default: 16777216].
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Seconds for which a changed file is waited for [default: 2].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) settle: Option<u64>,
    /// Seconds between two whole scans [default: 300].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) rescan: Option<u64>,
    /// Read names that begin with a dot as well.
    #[arg(long)]
    pub(crate) hidden: bool,
}

/// What sort of source.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// A folder of files.
    Folder,
    /// The tracked text of a local git repository.
    Git,
}
