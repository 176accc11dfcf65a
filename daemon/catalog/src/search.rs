//! Records by what is known of them without opening their texts, page by page.

use moat_contracts::{DatasetId, DocumentId, Kind, RecordId, Split, Verdict};
use rusqlite::{OptionalExtension, ToSql, params, params_from_iter};

use crate::datasets::split;
use crate::documents::digest_at;
use crate::records::{SELECT, record};
use crate::{Catalog, CatalogError, Group, Row, RowId};

/// Which records. What is absent allows any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Of this source.
    pub source: Option<String>,
    /// With this verdict, duplicates and what people decided counted in.
    pub verdict: Option<Verdict>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this rule or label among the reasons; `duplicate`, `near_duplicate` and `review` as well.
    pub rule: Option<String>,
    /// In this language.
    pub language: Option<String>,
}

/// [`Row::effective`] in SQL.
const EFFECTIVE: &str = "CASE WHEN decision = 'drop' THEN 'dropped'
          WHEN decision = 'keep' AND verdict = 'dropped' AND margin IS NOT NULL
              THEN iif(redactions = '[]', 'kept', 'redacted')
          WHEN twin IS NOT NULL THEN 'dropped' ELSE verdict END";

const RULE: &str = "(EXISTS (SELECT 1 FROM json_each(reasons) WHERE json_extract(value, '$.rule') = ?)
    OR CASE WHEN decision IS NOT NULL THEN 'review' WHEN similarity >= 1 THEN 'duplicate'
            WHEN twin IS NOT NULL THEN 'near_duplicate' END IS ?)";

impl RecordFilter {
    /// Conditions with their values, in order.
    fn conditions(&self) -> (String, Vec<Box<dyn ToSql>>) {
        let mut text = "documents.state = 'present'".to_owned();
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        let mut equal = |column: &str, value: &str| {
            text.push_str(&format!(" AND {column} = ?"));
            values.push(Box::new(value.to_owned()));
        };
        if let Some(source) = &self.source {
            equal("source", source);
        }
        if let Some(kind) = self.kind {
            equal("kind", kind.word());
        }
        if let Some(language) = &self.language {
            equal("coalesce(language, '')", language);
        }
        if let Some(verdict) = self.verdict {
            equal(EFFECTIVE, verdict.word());
        }
        if let Some(rule) = &self.rule {
            text.push_str(&format!(" AND {RULE}"));
            values.extend([Box::new(rule.clone()) as Box<dyn ToSql>, Box::new(rule.clone())]);
        }
        (text, values)
    }
}

const FROM: &str = "FROM records JOIN documents ON records.document = documents.number
    LEFT JOIN reviews ON reviews.record = records.id";

impl Catalog {
    /// Up to `limit` records that a filter lets through, by number, after a given one, with their texts' ids.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn next_filtered(
        &self,
        filter: &RecordFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(RowId, RecordId)>, CatalogError> {
        let (conditions, mut values) = filter.conditions();
        let sql =
            format!("SELECT row, records.id {FROM} WHERE {conditions} AND row > ? ORDER BY row LIMIT ?");
        values.push(Box::new(after.cast_signed()));
        values.push(Box::new(i64::try_from(limit).unwrap_or(i64::MAX)));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| {
            Ok((RowId(row.get(0)?), RecordId(digest_at(row, 1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many records a filter lets through.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn count_filtered(&self, filter: &RecordFilter) -> Result<u64, CatalogError> {
        let (conditions, values) = filter.conditions();
        let sql = format!("SELECT count(*) {FROM} WHERE {conditions}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_row(params_from_iter(values), |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// The records of a document from one ordinal to another, both counted in.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn rows_between(&self, document: DocumentId, from: u32, to: u32) -> Result<Vec<Row>, CatalogError> {
        let sql = format!("{SELECT} WHERE documents.id = ?1 AND ordinal BETWEEN ?2 AND ?3 ORDER BY ordinal");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![document.0.as_bytes(), from, to])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(record(row, &self.vault)?);
        }
        Ok(found)
    }

    /// How many records a document has.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn records_of(&self, document: DocumentId) -> Result<u64, CatalogError> {
        let sql = "SELECT count(*) FROM records JOIN documents ON records.document = documents.number
                   WHERE documents.id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([document.0.as_bytes()], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Every dataset that holds a record, with the record's side, oldest first.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn datasets_with(&self, id: RecordId) -> Result<Vec<(DatasetId, Split)>, CatalogError> {
        let sql = "SELECT datasets.id, split FROM dataset_entries
                   JOIN datasets ON datasets.number = dataset_entries.dataset
                   WHERE record = ?1 ORDER BY datasets.number";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([id.0.as_bytes()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((DatasetId(digest_at(row, 0)?), split(&row.get::<_, String>(1)?)?));
        }
        Ok(found)
    }

    /// Up to `limit` groups of the cluster of a text, the survivor's first, and how many there are.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn near(&self, id: RecordId, limit: usize) -> Result<(Vec<Group>, u64), CatalogError> {
        let Some(own) = self.group(id)? else { return Ok((Vec::new(), 0)) };
        let Some(cluster) = self.cluster(own.cluster)? else { return Ok((Vec::new(), 0)) };
        let sql = "SELECT id FROM twin_groups WHERE cluster = (SELECT cluster FROM twin_groups WHERE id = ?1)
                   ORDER BY first <> ?2, id <> ?1, coalesce(similarity, 0) DESC, number LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let ids = statement
            .query_map(params![id.0.as_bytes(), cluster.survivor.0, limit], |row| digest_at(row, 0))?
            .collect::<Result<Vec<_>, _>>()?;
        let groups = ids.into_iter().map(|id| self.group(RecordId(id)));
        let groups = groups.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok((groups, cluster.size))
    }

    /// Kind and bytes of a text that a document or a dataset holds.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn text_kind(&self, id: RecordId) -> Result<Option<Kind>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT kind FROM texts WHERE id = ?1")?;
        let word = statement.query_row([id.0.as_bytes()], |row| row.get::<_, String>(0)).optional()?;
        Ok(word.and_then(|word| Kind::from_word(&word)))
    }
}

impl RowId {
    /// The number, to go on after it.
    pub const fn number(self) -> u64 {
        self.0.cast_unsigned()
    }
}
