use rusqlite::params;

use crate::{Batch, Catalog, CatalogError, RowId};

impl Catalog {
    /// Records that share a band with these hashes, each once, by the catalog's number; at most `limit`.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn rows_in_bands(&self, bands: &[u64], limit: usize) -> Result<Vec<RowId>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT row FROM bands WHERE hash = ?1 ORDER BY row")?;
        let mut found = std::collections::BTreeSet::new();
        for band in bands {
            let rows = statement.query_map([band.cast_signed()], |row| row.get(0).map(RowId))?;
            for row in rows {
                found.insert(row?);
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// The near-duplicates of a record and their similarity, by the catalog's number.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn edges(&self, row: RowId) -> Result<Vec<(RowId, f64)>, CatalogError> {
        let sql = "SELECT b, similarity FROM edges WHERE a = ?1 UNION SELECT a, similarity FROM edges WHERE b = ?1 ORDER BY 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([row.0], |row| Ok((RowId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Enters a record under its band hashes.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_bands(&self, row: RowId, bands: &[u64]) -> Result<(), CatalogError> {
        let sql = "INSERT OR IGNORE INTO bands (hash, row) VALUES (?1, ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for band in bands {
            statement.execute(params![band.cast_signed(), row.0])?;
        }
        Ok(())
    }

    /// Notes that two records are near-duplicates.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_edge(&self, a: RowId, b: RowId, similarity: f64) -> Result<(), CatalogError> {
        let sql = "INSERT OR REPLACE INTO edges (a, b, similarity) VALUES (?1, ?2, ?3)";
        self.connection.prepare_cached(sql)?.execute(params![a.0.min(b.0), a.0.max(b.0), similarity])?;
        Ok(())
    }

    /// Says which record survives in a record's place, if any.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn set_twin(&self, row: RowId, twin: Option<(RowId, f64)>) -> Result<(), CatalogError> {
        let sql = "UPDATE records SET twin = ?2, similarity = ?3 WHERE row = ?1";
        let (survivor, similarity) = twin.unzip();
        self.connection.prepare_cached(sql)?.execute(params![
            row.0,
            survivor.map(|row| row.0),
            similarity
        ])?;
        Ok(())
    }
}
