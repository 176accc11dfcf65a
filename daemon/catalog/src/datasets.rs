use std::collections::BTreeMap;

use moat_contracts::{Dataset, DatasetEntry, DatasetId, DatasetSource, DocumentId, RecordId, Split};
use rusqlite::{OptionalExtension, params};

use crate::documents::digest_at;
use crate::{Batch, Catalog, CatalogError};

/// A dataset in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSummary {
    /// Its id.
    pub id: DatasetId,
    /// Seconds since 1970 at which it was first built here.
    pub built: i64,
    /// Records trained on.
    pub train: u64,
    /// Records held back.
    pub held_out: u64,
    /// Tokens of both.
    pub tokens: u64,
}

pub(crate) fn split(word: &str) -> Result<Split, CatalogError> {
    let found = Split::ALL.into_iter().find(|split| split.word() == word);
    found.ok_or(CatalogError::Damaged { what: "split" })
}

impl Catalog {
    /// A dataset, whole.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn dataset(&self, id: DatasetId) -> Result<Option<Dataset>, CatalogError> {
        let sql = "SELECT number, recipe, rules, tokenizer FROM datasets WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let head = statement.query_row([id.0.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, digest_at(row, 1)?, digest_at(row, 2)?, digest_at(row, 3)?))
        });
        let Some((number, recipe, rules, tokenizer)) = head.optional()? else { return Ok(None) };
        let sql = "SELECT record, split, source, tokens, bytes FROM dataset_entries WHERE dataset = ?1 ORDER BY record";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([number])?;
        let mut entries = Vec::new();
        let mut sources: BTreeMap<String, DatasetSource> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let entry = DatasetEntry {
                record: RecordId(digest_at(row, 0)?),
                split: split(&row.get::<_, String>(1)?)?,
                source: row.get(2)?,
                tokens: row.get::<_, i64>(3)?.cast_unsigned(),
                bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            };
            sources.entry(entry.source.clone()).or_default().add(&entry);
            entries.push(entry);
        }
        Ok(Some(Dataset { id, recipe, rules, tokenizer, entries, sources }))
    }

    /// All datasets, newest first.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn datasets(&self) -> Result<Vec<DatasetSummary>, CatalogError> {
        let sql = "SELECT id, built, coalesce(sum(split = 'train'), 0), coalesce(sum(split = 'held_out'), 0),
                   coalesce(sum(tokens), 0) FROM datasets LEFT JOIN dataset_entries ON dataset = number
                   GROUP BY number ORDER BY number DESC";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(DatasetSummary {
                id: DatasetId(digest_at(row, 0)?),
                built: row.get(1)?,
                train: row.get::<_, i64>(2)?.cast_unsigned(),
                held_out: row.get::<_, i64>(3)?.cast_unsigned(),
                tokens: row.get::<_, i64>(4)?.cast_unsigned(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Ids of the datasets whose hexadecimal id begins with a text.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn datasets_with_prefix(&self, prefix: &str) -> Result<Vec<DatasetId>, CatalogError> {
        let sql =
            "SELECT id FROM datasets WHERE substr(lower(hex(id)), 1, length(?1)) = lower(?1) ORDER BY number";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([prefix], |row| digest_at(row, 0).map(DatasetId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Every dataset that a document gave a record to, with the record's side; deleted documents too.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn datasets_reached(&self, document: DocumentId) -> Result<Vec<(DatasetId, Split)>, CatalogError> {
        let sql = "SELECT DISTINCT datasets.id, split FROM dataset_documents
                   JOIN datasets ON datasets.number = dataset_documents.dataset
                   JOIN dataset_entries ON dataset_entries.dataset = datasets.number
                    AND dataset_entries.record = dataset_documents.record
                   WHERE document = ?1 ORDER BY datasets.number, split";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([document.0.as_bytes()])?;
        let mut reached = Vec::new();
        while let Some(row) = rows.next()? {
            reached.push((DatasetId(digest_at(row, 0)?), split(&row.get::<_, String>(1)?)?));
        }
        Ok(reached)
    }
}

impl Batch<'_> {
    /// Keeps a dataset and which documents gave it its records. A dataset that is already there stays as it is.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_dataset(&self, dataset: &Dataset, built: i64) -> Result<(), CatalogError> {
        let sql = "INSERT OR IGNORE INTO datasets (id, recipe, rules, tokenizer, built) VALUES (?1, ?2, ?3, ?4, ?5)";
        let inserted = self.connection.prepare_cached(sql)?.execute(params![
            dataset.id.0.as_bytes(),
            dataset.recipe.as_bytes(),
            dataset.rules.as_bytes(),
            dataset.tokenizer.as_bytes(),
            built
        ])?;
        if inserted == 0 {
            return Ok(());
        }
        let number = self.connection.last_insert_rowid();
        let entries = "INSERT INTO dataset_entries (dataset, record, split, source, tokens, bytes)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut entries = self.connection.prepare_cached(entries)?;
        let documents = "INSERT OR IGNORE INTO dataset_documents (dataset, record, document)
                         SELECT ?1, ?2, documents.id FROM records JOIN documents ON records.document = documents.number
                         WHERE records.id = ?2";
        let mut documents = self.connection.prepare_cached(documents)?;
        for entry in &dataset.entries {
            let record = entry.record.0.as_bytes();
            entries.execute(params![
                number,
                record,
                entry.split.word(),
                entry.source,
                entry.tokens.cast_signed(),
                entry.bytes.cast_signed()
            ])?;
            documents.execute(params![number, record])?;
        }
        self.keep_shape(number)
    }
}
