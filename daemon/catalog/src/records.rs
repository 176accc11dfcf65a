use moat_contracts::{
    Decision, DocumentId, Kind, Reason, Record, RecordId, RecordKey, Redaction, SelectionRecipe, Verdict,
};
use moat_vault::Vault;
use rusqlite::{OptionalExtension, Row as SqlRow, params, params_from_iter};

use crate::documents::digest_at;
use crate::{Batch, Catalog, CatalogError, Review, reviews, sealed};

/// The catalog's own number of a record. Not the same on another machine: never part of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub(crate) i64);

/// A record as the catalog keeps it, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The catalog's own number.
    pub row: RowId,
    /// Document and ordinal.
    pub key: RecordKey,
    /// What it holds.
    pub id: RecordId,
    /// Its document's source.
    pub source: String,
    /// Its document's path.
    pub path: String,
    /// What sort of text.
    pub kind: Kind,
    /// As [`moat_contracts::Text::language`].
    pub language: Option<String>,
    /// Decided from the record alone; see [`Row::effective`].
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What was replaced.
    pub redactions: Vec<Redaction>,
    /// Words.
    pub words: u64,
    /// Bytes of the curated text.
    pub bytes: u64,
    /// First line of its span in the document, from 1.
    pub first_line: u64,
    /// MinHash signature; may be empty.
    pub signature: Vec<u32>,
    /// The record that survives in its place, and how similar it is.
    pub twin: Option<(RowId, f64)>,
    /// How far the rules are from judging otherwise ([`Record::margin`]).
    pub margin: Option<f64>,
    /// What a person decided about its text.
    pub review: Option<Review>,
}

impl Row {
    /// The verdict with duplicates and what a person decided counted in.
    pub fn effective(&self) -> Verdict {
        match self.review.as_ref().map(|review| review.decision) {
            Some(Decision::Drop) => Verdict::Dropped,
            Some(Decision::Keep) if self.may_be_kept() && self.redactions.is_empty() => Verdict::Kept,
            Some(Decision::Keep) if self.may_be_kept() => Verdict::Redacted,
            _ if self.twin.is_some() => Verdict::Dropped,
            _ => self.verdict,
        }
    }

    /// Whether a person may keep it against the rules: quality rules alone dropped it.
    pub fn may_be_kept(&self) -> bool {
        self.verdict == Verdict::Dropped && self.margin.is_some()
    }
}

pub(crate) const SELECT: &str =
    "SELECT row, documents.id, ordinal, records.id, source, opened_path(path, documents.id), kind, language, verdict, reasons,
    redactions, words, bytes, first_line, signature, twin, similarity, margin, decision, who, at, mark
    FROM records JOIN documents ON records.document = documents.number LEFT JOIN reviews ON reviews.record = records.id";

fn damaged(what: &'static str) -> CatalogError {
    CatalogError::Damaged { what }
}

fn signature(bytes: &[u8]) -> Vec<u32> {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|number| u32::from_le_bytes(*number)).collect()
}

pub(crate) fn record(row: &SqlRow<'_>, vault: &Vault) -> Result<Row, CatalogError> {
    let id = RecordId(digest_at(row, 3)?);
    let twin = row.get::<_, Option<i64>>(15)?;
    Ok(Row {
        row: RowId(row.get(0)?),
        key: RecordKey { document: DocumentId(digest_at(row, 1)?), ordinal: row.get(2)? },
        id,
        source: row.get(4)?,
        path: row.get(5)?,
        kind: Kind::from_word(&row.get::<_, String>(6)?).ok_or_else(|| damaged("record kind"))?,
        language: row.get(7)?,
        verdict: Verdict::from_word(&row.get::<_, String>(8)?).ok_or_else(|| damaged("verdict"))?,
        reasons: serde_json::from_str(&row.get::<_, String>(9)?).map_err(|_| damaged("list of reasons"))?,
        redactions: serde_json::from_str(&row.get::<_, String>(10)?)
            .map_err(|_| damaged("list of redactions"))?,
        words: row.get::<_, i64>(11)?.cast_unsigned(),
        bytes: row.get::<_, i64>(12)?.cast_unsigned(),
        first_line: row.get::<_, i64>(13)?.cast_unsigned(),
        signature: signature(&row.get::<_, Vec<u8>>(14)?),
        twin: match twin {
            Some(twin) => Some((RowId(twin), row.get(16)?)),
            None => None,
        },
        margin: row.get(17)?,
        review: reviews::joined(row, 18, id, vault)?,
    })
}

impl Catalog {
    /// The records of a document, by ordinal.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn record_rows(&self, document: DocumentId) -> Result<Vec<Row>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached(&format!("{SELECT} WHERE documents.id = ?1 ORDER BY ordinal"))?;
        let mut rows = statement.query([document.0.as_bytes()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(record(row, &self.vault)?);
        }
        Ok(found)
    }

    /// One record by the catalog's number.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails or there is no such record.
    pub fn row(&self, row: RowId) -> Result<Row, CatalogError> {
        let mut statement = self.connection.prepare_cached(&format!("{SELECT} WHERE row = ?1"))?;
        let mut rows = statement.query([row.0])?;
        rows.next()?
            .map_or_else(|| Err(rusqlite::Error::QueryReturnedNoRows.into()), |row| record(row, &self.vault))
    }

    /// Every record that holds this text, by the catalog's number.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn rows_with_id(&self, id: RecordId) -> Result<Vec<RowId>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT row FROM records WHERE id = ?1 ORDER BY row")?;
        let rows =
            statement.query_map([id.0.as_bytes()], |row| row.get(0).map(RowId))?.collect::<Result<_, _>>()?;
        Ok(rows)
    }

    /// The MinHash signature of a record, while a document holds it; may be empty.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn signature(&self, id: RecordId) -> Result<Option<Vec<u32>>, CatalogError> {
        let sql = "SELECT signature FROM records WHERE id = ?1 ORDER BY row LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([id.0.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        Ok(found.map(|bytes| signature(&bytes)))
    }

    /// The curated text of a record, while a document or a dataset holds it.
    ///
    /// # Errors
    /// [`CatalogError`] where reading or unpacking fails.
    pub fn text(&self, id: RecordId) -> Result<Option<String>, CatalogError> {
        Ok(self.text_and_kind(id)?.map(|(body, _)| body))
    }

    /// The curated text of a record and its kind, while a document or a dataset holds it.
    ///
    /// # Errors
    /// [`CatalogError`] where reading or unpacking fails.
    pub fn text_and_kind(&self, id: RecordId) -> Result<Option<(String, Kind)>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT key, body, kind FROM texts WHERE id = ?1")?;
        let mut rows = statement.query([id.0.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let body = sealed::open_text(&self.vault, id, blob(0)?, blob(1)?)?;
        let kind = Kind::from_word(&row.get::<_, String>(2)?).ok_or_else(|| damaged("record kind"))?;
        Ok(Some((body, kind)))
    }

    /// Source and path of every document that holds a record now, by source and path.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn paths_of(&self, id: RecordId) -> Result<Vec<(String, String)>, CatalogError> {
        let sql = "SELECT source, opened_path(path, documents.id) AS opened
                   FROM records JOIN documents ON records.document = documents.number
                   WHERE records.id = ?1 ORDER BY source, opened";
        let mut statement = self.connection.prepare_cached(sql)?;
        let paths = statement.query_map([id.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(paths.collect::<Result<_, _>>()?)
    }

    /// The earliest authored time among the documents that hold a record, seconds since 1970.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn authored(&self, id: RecordId) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT min(authored) FROM records JOIN documents ON records.document = documents.number
                   WHERE records.id = ?1";
        Ok(self.connection.prepare_cached(sql)?.query_row([id.0.as_bytes()], |row| row.get(0))?)
    }

    /// Calls back for every record that may go into a dataset, by record id, each id once: own verdict kept or
    /// redacted, no twin, and no person decided otherwise; or dropped by quality rules alone, and a person kept it.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, or the callback's own.
    pub fn each_kept(
        &self,
        selection: &SelectionRecipe,
        mut each: impl FnMut(Row) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        let kinds: Vec<String> = selection.kinds.iter().map(|kind| kind.word().to_owned()).collect();
        let mut conditions =
            "documents.state = 'present' AND (twin IS NULL AND verdict <> 'dropped' AND decision IS NOT 'drop'
             OR verdict = 'dropped' AND margin IS NOT NULL AND decision IS 'keep')"
                .to_owned();
        let mut values: Vec<&String> = Vec::new();
        for (column, allowed) in [
            ("source", &selection.sources),
            ("kind", &kinds),
            ("coalesce(language, '')", &selection.languages),
        ] {
            if !allowed.is_empty() {
                let marks = vec!["?"; allowed.len()].join(", ");
                conditions.push_str(&format!(" AND {column} IN ({marks})"));
                values.extend(allowed);
            }
        }
        let sql = format!("{SELECT} WHERE {conditions} ORDER BY records.id, source, 6, ordinal");
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let row = record(row, &self.vault)?;
            if last.replace(row.id) != Some(row.id) {
                each(row)?;
            }
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// Replaces all records of a document and gives the new ones' numbers, in the order given. Texts that nothing
    /// holds any more are removed.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the document is not known.
    pub fn put_records(&self, document: DocumentId, records: &[Record]) -> Result<Vec<RowId>, CatalogError> {
        let sql = "SELECT number FROM documents WHERE id = ?1";
        let number: i64 =
            self.connection.prepare_cached(sql)?.query_row([document.0.as_bytes()], |row| row.get(0))?;
        let mut old: Vec<[u8; 32]> = Vec::new();
        {
            let mut statement =
                self.connection.prepare_cached("SELECT id FROM records WHERE document = ?1")?;
            let mut rows = statement.query([number])?;
            while let Some(row) = rows.next()? {
                old.push(row.get(0)?);
            }
        }
        self.connection.prepare_cached("DELETE FROM records WHERE document = ?1")?.execute([number])?;
        let mut numbers = Vec::with_capacity(records.len());
        for record in records {
            self.hold_text(record)?;
            numbers.push(self.put_record(number, record)?);
        }
        for id in old {
            self.release_text(&id)?;
        }
        Ok(numbers)
    }

    fn put_record(&self, document: i64, record: &Record) -> Result<RowId, CatalogError> {
        let sql = "INSERT INTO records (document, ordinal, id, kind, language, verdict, reasons, redactions, words, bytes,
                   first_line, signature, margin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        let list = |json: Result<String, serde_json::Error>, what| json.map_err(|_| damaged(what));
        let signature: Vec<u8> = record.signature.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.connection.prepare_cached(sql)?.execute(params![
            document,
            record.key.ordinal,
            record.id.0.as_bytes(),
            record.kind.word(),
            record.language,
            record.verdict.word(),
            list(serde_json::to_string(&record.reasons), "list of reasons")?,
            list(serde_json::to_string(&record.redactions), "list of redactions")?,
            record.words.cast_signed(),
            i64::try_from(record.body.len()).unwrap_or(i64::MAX),
            record.first_line.cast_signed(),
            signature,
            record.margin,
        ])?;
        Ok(RowId(self.connection.last_insert_rowid()))
    }

    fn hold_text(&self, record: &Record) -> Result<(), CatalogError> {
        let id = record.id.0.as_bytes();
        let sql = "UPDATE texts SET uses = uses + 1 WHERE id = ?1";
        if self.connection.prepare_cached(sql)?.execute([id])? == 0 {
            let (key, body) = sealed::seal_text(&self.vault, record.id, &record.body)?;
            let sql = "INSERT INTO texts (id, kind, key, root, body, uses) VALUES (?1, ?2, ?3, ?4, ?5, 1)";
            let values = params![id, record.kind.word(), key.as_bytes(), key.generation(), body];
            self.connection.prepare_cached(sql)?.execute(values)?;
        }
        Ok(())
    }

    fn release_text(&self, id: &[u8; 32]) -> Result<(), CatalogError> {
        self.connection.prepare_cached("UPDATE texts SET uses = uses - 1 WHERE id = ?1")?.execute([id])?;
        // A dataset is immutable: its texts stay while it does.
        let sql = "DELETE FROM texts WHERE id = ?1 AND uses <= 0
                   AND NOT EXISTS (SELECT 1 FROM dataset_entries WHERE record = ?1)";
        self.connection.prepare_cached(sql)?.execute([id])?;
        Ok(())
    }
}
