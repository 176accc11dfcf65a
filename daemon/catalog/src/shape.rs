//! How datasets are spread: found when one is kept, since its records may be gone later.

use moat_contracts::{DatasetEntry, DatasetId, DatasetShape, RecordId};
use rusqlite::{OptionalExtension, params};

use crate::datasets::split;
use crate::documents::digest_at;
use crate::{Batch, Catalog, CatalogError};

const DAMAGED: CatalogError = CatalogError::Damaged { what: "dataset's shape" };

impl Catalog {
    /// How a dataset is spread, and since when it is there; `None` where there is none of this id.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn dataset_shape(&self, id: DatasetId) -> Result<Option<(DatasetShape, i64)>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT number, shape, built FROM datasets WHERE id = ?1")?;
        let found = statement
            .query_row([id.0.as_bytes()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((number, shape, built)) = found else { return Ok(None) };
        let shape = match shape {
            Some(json) => serde_json::from_str(&json).map_err(|_| DAMAGED)?,
            // Built by an earlier release.
            None => self.measure(number)?,
        };
        Ok(Some((shape, built)))
    }

    fn measure(&self, dataset: i64) -> Result<DatasetShape, CatalogError> {
        let sql = "SELECT record, split, source, tokens, bytes, (SELECT kind FROM texts WHERE id = record),
                   (SELECT language FROM records WHERE records.id = record LIMIT 1)
                   FROM dataset_entries WHERE dataset = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([dataset])?;
        let mut shape = DatasetShape::default();
        while let Some(row) = rows.next()? {
            let entry = DatasetEntry {
                record: RecordId(digest_at(row, 0)?),
                split: split(&row.get::<_, String>(1)?)?,
                source: row.get(2)?,
                tokens: row.get::<_, i64>(3)?.cast_unsigned(),
                bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            };
            let power = 1 << entry.tokens.max(1).ilog2();
            shape.lengths.entry(power).or_default().add(&entry);
            let kind = row.get::<_, Option<String>>(5)?.unwrap_or_default();
            shape.kinds.entry(kind).or_default().add(&entry);
            let language = row.get::<_, Option<String>>(6)?.unwrap_or_default();
            shape.languages.entry(language).or_default().add(&entry);
        }
        Ok(shape)
    }
}

impl Batch<'_> {
    /// Measures a dataset that was just written.
    pub(crate) fn keep_shape(&self, dataset: i64) -> Result<(), CatalogError> {
        let shape = serde_json::to_string(&self.measure(dataset)?).map_err(|_| DAMAGED)?;
        let sql = "UPDATE datasets SET shape = ?2 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute(params![dataset, shape])?;
        Ok(())
    }
}
