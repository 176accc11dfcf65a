//! The one store: documents, records, near-duplicate links, datasets, runs, accounts and what they agreed to, in one SQLite
//! file.
//!
//! All SQL of the product stands here. The file runs in WAL mode with `synchronous=FULL`: what a committed
//! [`Batch`] wrote survives a power cut, what was not committed never happened. The catalog decides nothing: it keeps
//! what the stages hand it, and gives it back in a stable order. Texts, paths and readers are sealed in the file; ids,
//! hashes, counts and rules are not.

mod accounts;
mod datasets;
mod documents;
mod error;
mod faulty;
mod keys;
mod losses;
mod newest;
mod records;
mod reviews;
mod runs;
mod schema;
mod sealed;
mod search;
mod shape;
mod sources;
mod statements;
mod sweeps;
#[cfg(test)]
mod tests;
mod twins;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moat_vault::Vault;
use rusqlite::{Connection, OptionalExtension, params};

pub use accounts::AccountRow;
pub use datasets::DatasetSummary;
pub use documents::{Known, SourceCounts, Stamp, Sweep};
pub use error::CatalogError;
pub use faulty::Faulty;
pub use keys::ApiKeyRow;
pub use newest::NewestStep;
pub use records::{Row, RowId};
pub use reviews::{Line, Review, Waiting, Waits};
pub use runs::{JoinedRow, RunRow, StepRow, ValidationRow};
pub use search::RecordFilter;
pub use sources::SourceRow;
pub use statements::{PolicyRow, StatementRow};
pub use sweeps::SweepRow;
pub use twins::{Cluster, ClusterId, Group, GroupId};

/// One connection to the catalog. Open one per thread; any number may read while one writes.
pub struct Catalog {
    connection: Connection,
    vault: Arc<Vault>,
}

impl Catalog {
    /// Opens the catalog, creating or upgrading its file. Texts, paths and readers are sealed under the vault's keys:
    /// once it is sealed, whatever touches them fails.
    ///
    /// # Errors
    /// [`CatalogError`] where the file cannot be opened, is no catalog, or was written by a newer Moat.
    pub fn open(path: &Path, vault: &Arc<Vault>) -> Result<Self, CatalogError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // Sorting by opened paths must never spill them onto the disk.
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "cache_size", -8 * 1024)?;
        connection.set_prepared_statement_cache_capacity(64);
        schema::migrate(&connection)?;
        sealed::register(&connection, vault)?;
        Ok(Self { connection, vault: vault.clone() })
    }

    /// Keeps four times as many pages in memory as other connections, 32 MiB: for whoever writes all day.
    ///
    /// # Errors
    /// [`CatalogError`] where SQLite refuses.
    pub fn keep_more(&self) -> Result<(), CatalogError> {
        Ok(self.connection.pragma_update(None, "cache_size", -32 * 1024)?)
    }

    /// A number that changes whenever another connection wrote to the file; only to be compared on one connection
    /// (`data_version` in sqlite.org/pragma.html).
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn version(&self) -> Result<i64, CatalogError> {
        Ok(self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Begins writing; waits for another writer. Dropping the batch undoes it.
    ///
    /// # Errors
    /// [`CatalogError`] where the write lock cannot be had.
    pub fn write(&self) -> Result<Batch<'_>, CatalogError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Batch { catalog: self, open: true })
    }

    /// Writes the catalog as it stands at this moment into a new file; work goes on meanwhile.
    ///
    /// # Errors
    /// [`CatalogError`] where the file is there already, or the disk refuses.
    pub fn snapshot(&self, to: &Path) -> Result<(), CatalogError> {
        self.connection.execute("VACUUM INTO ?1", params![to.display().to_string()])?;
        Ok(())
    }

    /// A small value that a stage keeps under a key of its own.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn meta(&self, key: &str) -> Result<Option<String>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }
}

/// Writes that take effect together, at [`Batch::commit`], or never. Reads through it see its writes.
pub struct Batch<'a> {
    catalog: &'a Catalog,
    open: bool,
}

impl Batch<'_> {
    /// Makes everything written durable.
    ///
    /// # Errors
    /// [`CatalogError`] where the disk refuses; nothing was written then.
    pub fn commit(mut self) -> Result<(), CatalogError> {
        self.connection.execute_batch("COMMIT")?;
        self.open = false;
        Ok(())
    }

    /// Keeps a small value under a key.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_meta(&self, key: &str, value: &str) -> Result<(), CatalogError> {
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection.prepare_cached(sql)?.execute(params![key, value])?;
        Ok(())
    }
}

impl Deref for Batch<'_> {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        self.catalog
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // A failed rollback leaves the transaction to SQLite, which undoes it when the connection closes.
        if self.open && self.connection.execute_batch("ROLLBACK").is_err() {
            self.open = false;
        }
    }
}
