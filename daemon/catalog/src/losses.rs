use moat_contracts::{Digest, DocumentLoss, RecordId};
use rusqlite::params;

use crate::{Batch, Catalog, CatalogError};

impl Catalog {
    /// What was measured of each held-back record of a run, in the order of their ids; empty where no release kept it.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn losses(&self, run: &str) -> Result<Vec<DocumentLoss>, CatalogError> {
        let sql = "SELECT record, source, bytes, base_nats, tuned_nats FROM losses
                   WHERE run = (SELECT number FROM runs WHERE name = ?1) ORDER BY record";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([run], |row| {
            Ok(DocumentLoss {
                record: RecordId(Digest::from_bytes(row.get(0)?)),
                source: row.get(1)?,
                bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                base_nats: row.get(3)?,
                tuned_nats: row.get(4)?,
                // Runs are compared by the bits that their texts cost.
                answers: None,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Writes what was measured of a run's held-back records, in place of any before it.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails, or a loss is no number.
    pub fn put_losses(&self, run: &str, losses: &[DocumentLoss]) -> Result<(), CatalogError> {
        let old = "DELETE FROM losses WHERE run = (SELECT number FROM runs WHERE name = ?1)";
        self.connection.prepare_cached(old)?.execute([run])?;
        let sql = "INSERT OR REPLACE INTO losses (run, record, source, bytes, base_nats, tuned_nats)
                   SELECT number, ?2, ?3, ?4, ?5, ?6 FROM runs WHERE name = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        for loss in losses {
            let bytes = loss.bytes.cast_signed();
            let record = loss.record.0.as_bytes();
            statement.execute(params![run, record, loss.source, bytes, loss.base_nats, loss.tuned_nats])?;
        }
        Ok(())
    }
}
