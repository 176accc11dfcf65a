/// Why the catalog could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite failed: disk, lock, damage.
    #[error("the catalog cannot be read or written: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file was written by a newer Moat.
    #[error("the catalog has schema {found}, this moat knows {known}: install the newer release again")]
    Newer {
        /// Schema version of the file.
        found: i64,
        /// Newest schema version that this build knows.
        known: i64,
    },
    /// The file is from before the first release, when nothing was sealed.
    #[error(
        "the catalog was written by an unreleased moat that sealed nothing: move the state folder away, start again, and scan"
    )]
    Unreleased,
    /// A stored value is not what this build wrote.
    #[error(
        "the catalog holds a damaged {what}: restore it from a backup, or delete the state folder and scan again"
    )]
    Damaged {
        /// What is damaged.
        what: &'static str,
    },
    /// The vault is sealed, or a key does not open what was sealed.
    #[error(transparent)]
    Vault(#[from] moat_vault::VaultError),
    /// Text could not be compressed or decompressed.
    #[error("a stored text cannot be packed or unpacked: {0}")]
    Text(#[from] std::io::Error),
    /// A callback asked to stop.
    #[error("{0}")]
    Interrupted(String),
}
