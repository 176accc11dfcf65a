use moat_contracts::{DocumentId, Skip, TextFault};
use rusqlite::params;

use crate::documents::digest_at;
use crate::{Catalog, CatalogError, sealed};

/// A document that was not read, or only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulty {
    /// The catalog's own number, by which to go on.
    pub number: u64,
    /// Its path in its source.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Why it was not read; nothing for one that was read in part.
    pub skip: Option<Skip>,
    /// The places that could not be read, in its order: the first few.
    pub faults: Vec<TextFault>,
    /// Places that could not be read, in all.
    pub places: u64,
}

/// Places of one document that are given.
const PLACES: i64 = 20;

impl Catalog {
    /// Documents of a source that were not read, or only in part, in the order of first sight: at most `most` behind the
    /// one numbered `after`.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn faulty(&self, source: &str, after: u64, most: usize) -> Result<Vec<Faulty>, CatalogError> {
        let sql = "SELECT number, id, path, size, skip,
                          (SELECT count(*) FROM document_faults WHERE document = documents.number) AS places
                   FROM documents WHERE source = ?1 AND number > ?2
                       AND (state = 'skipped' OR state = 'present'
                            AND EXISTS (SELECT 1 FROM document_faults WHERE document = documents.number))
                   ORDER BY number LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![source, after.cast_signed(), most])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(0)?;
            let id = DocumentId(digest_at(row, 1)?);
            let path = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            found.push(Faulty {
                number: number.cast_unsigned(),
                path: sealed::open_path(&self.vault, id, path)?,
                size: row.get::<_, i64>(3)?.cast_unsigned(),
                skip: row.get::<_, Option<String>>(4)?.as_deref().and_then(Skip::from_word),
                faults: self.first_faults(number)?,
                places: row.get::<_, i64>(5)?.cast_unsigned(),
            });
        }
        Ok(found)
    }

    fn first_faults(&self, document: i64) -> Result<Vec<TextFault>, CatalogError> {
        let sql = "SELECT line, what FROM document_faults WHERE document = ?1 ORDER BY ordinal LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let faults = statement.query_map(params![document, PLACES], |row| {
            Ok(TextFault { line: row.get::<_, i64>(0)?.cast_unsigned(), what: row.get(1)? })
        })?;
        Ok(faults.collect::<Result<_, _>>()?)
    }
}
