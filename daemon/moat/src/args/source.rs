use clap::Subcommand;

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
