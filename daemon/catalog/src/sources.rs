use moat_vault::{open_bytes, seal_bytes};
use rusqlite::params;

use crate::{Batch, Catalog, CatalogError};

const DEFINITION: &str = "catalog source";

/// A source that two people added, as the catalog keeps it. The schema holds the rule as well: a source comes by an agreed
/// statement of its own, never changes, and goes after its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// By which people call it.
    pub name: String,
    /// The statement that brought it.
    pub statement: [u8; 16],
    /// Since when it is read, in seconds since 1970.
    pub since: i64,
    /// Whether its documents are being deleted.
    pub removing: bool,
    /// What it is, as JSON. Sealed in the file, to its name and statement.
    pub definition: String,
}

/// What a definition is sealed to, so that one that was exchanged in the file opens no more.
fn object(name: &str, statement: &[u8; 16]) -> String {
    format!("source/{:?}", (name, statement))
}

impl Catalog {
    /// All sources that were added, by name.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, the vault is sealed, or a row is not as Moat wrote it.
    pub fn sources(&self) -> Result<Vec<SourceRow>, CatalogError> {
        let sql = "SELECT name, statement, since, removing, definition FROM sources ORDER BY name";
        let mut found = self.connection.prepare_cached(sql)?;
        let rows = found.query_map([], |row| {
            let source = SourceRow {
                name: row.get(0)?,
                statement: row.get(1)?,
                since: row.get(2)?,
                removing: row.get(3)?,
                definition: String::new(),
            };
            Ok((source, row.get::<_, Vec<u8>>(4)?))
        })?;
        let key = self.vault.derived(DEFINITION)?;
        let damaged = || CatalogError::Damaged { what: "source" };
        rows.map(|row| {
            let (source, sealed) = row?;
            let opened = open_bytes(&key, &object(&source.name, &source.statement), &sealed);
            let definition =
                opened.ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(damaged)?;
            Ok(SourceRow { definition, ..source })
        })
        .collect()
    }
}

impl Batch<'_> {
    /// Keeps a new source. The schema refuses one whose statement is not agreed to.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn add_source(&self, row: &SourceRow) -> Result<(), CatalogError> {
        let key = self.vault.derived(DEFINITION)?;
        let sealed = seal_bytes(&key, &object(&row.name, &row.statement), row.definition.as_bytes())?;
        let sql =
            "INSERT INTO sources (name, statement, since, removing, definition) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![row.name, row.statement, row.since, row.removing, sealed];
        self.connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// Begins to remove a source: its documents are to be deleted next.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn begin_removal(&self, source: &str) -> Result<(), CatalogError> {
        let sql = "UPDATE sources SET removing = 1 WHERE name = ?1";
        self.connection.prepare_cached(sql)?.execute([source])?;
        Ok(())
    }

    /// Forgets a source whose documents are deleted. The schema refuses one that still has some.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn end_removal(&self, source: &str) -> Result<(), CatalogError> {
        self.connection.prepare_cached("DELETE FROM sources WHERE name = ?1")?.execute([source])?;
        Ok(())
    }
}
