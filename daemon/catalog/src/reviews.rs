//! What people decided about texts, and which records wait for them.

use moat_contracts::{Decision, Digest, RecordId};
use moat_vault::{Vault, open_bytes, seal_bytes};
use rusqlite::{Row as SqlRow, params};

use crate::documents::digest_at;
use crate::{Batch, Catalog, CatalogError, RowId};

const MARK: &str = "review";
const DAMAGED: CatalogError = CatalogError::Damaged { what: "review" };

/// What a person decided about a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// What.
    pub decision: Decision,
    /// Who, by the account's name.
    pub who: String,
    /// Seconds since 1970.
    pub at: i64,
}

impl Review {
    /// What its mark seals, so that a row that was changed in the file counts no more.
    fn object(&self, record: RecordId) -> String {
        format!("review/{:?}", (record, self.decision, &self.who, self.at))
    }
}

/// Which records wait for a person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Those that are this near to another judgement of the quality rules, as a share of a limit; 0 for none.
    pub margin: f64,
    /// Those in which something was replaced.
    pub redacted: bool,
    /// This share of those that were kept, drawn by their ids.
    pub sample: f64,
}

/// Why a record waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    /// The rules nearly judged otherwise.
    Borderline,
    /// Something was replaced in it.
    Redacted,
    /// It was drawn.
    Sample,
}

/// A record that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The record.
    pub id: RecordId,
    /// One that holds it.
    pub row: RowId,
    /// Why.
    pub why: Waits,
}

/// The review that five columns of a row hold, from `at` on; none where they are empty.
pub(crate) fn joined(
    row: &SqlRow<'_>,
    at: usize,
    record: RecordId,
    vault: &Vault,
) -> Result<Option<Review>, CatalogError> {
    let Some(word) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let decision = Decision::from_word(&word).ok_or(DAMAGED)?;
    let review = Review { decision, who: row.get(at + 1)?, at: row.get(at + 2)? };
    let mark = row.get_ref(at + 3)?.as_blob().map_err(rusqlite::Error::from)?;
    open_bytes(&vault.derived(MARK)?, &review.object(record), mark).map_err(|_| DAMAGED)?;
    Ok(Some(review))
}

/// The records that wait, each text once: those near to a limit first, then what was replaced, then what was drawn.
const WAITING: &str = "
    SELECT id, min(row) AS row, min(why) AS why FROM (
        SELECT id, row, 0 AS why FROM records INDEXED BY records_by_margin
            WHERE margin IS NOT NULL AND twin IS NULL AND margin <= ?1 AND ?1 > 0
        UNION ALL
        SELECT id, row, 1 FROM records INDEXED BY records_by_verdict
            WHERE twin IS NULL AND verdict = 'redacted' AND ?2
        UNION ALL
        SELECT id, row, 2 FROM records INDEXED BY records_by_verdict
            WHERE twin IS NULL AND verdict = 'kept' AND id < ?3
    ) WHERE NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.record = id)";

/// The id below which a share of all ids lies: they are hashes, so each is as likely as any other.
fn threshold(share: f64) -> Vec<u8> {
    if share >= 1.0 {
        return vec![0xFF; 33];
    }
    // 2^64 times the share is exact: only the exponent changes.
    ((share.max(0.0) * 2f64.powi(64)) as u64).to_be_bytes().to_vec()
}

impl Catalog {
    /// Records that wait for a person, by why and id, after a given one; at most `limit`.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn waiting(
        &self,
        line: &Line,
        after: Option<(Waits, RecordId)>,
        limit: usize,
    ) -> Result<Vec<Waiting>, CatalogError> {
        let sql = format!(
            "SELECT id, row, why FROM ({WAITING} GROUP BY id) WHERE (why, id) > (?4, ?5) ORDER BY why, id LIMIT ?6"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let (why, id) = match after {
            Some((why, id)) => (why as i64, id.0.as_bytes().to_vec()),
            None => (-1, Vec::new()),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows =
            statement.query(params![line.margin, line.redacted, threshold(line.sample), why, id, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let why = match row.get::<_, i64>(2)? {
                0 => Waits::Borderline,
                1 => Waits::Redacted,
                _ => Waits::Sample,
            };
            found.push(Waiting { id: RecordId(digest_at(row, 0)?), row: RowId(row.get(1)?), why });
        }
        Ok(found)
    }

    /// Why a record waits, if it does.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn waits(&self, line: &Line, id: RecordId) -> Result<Option<Waits>, CatalogError> {
        let sql = "SELECT verdict, margin FROM records WHERE id = ?1 AND twin IS NULL
                   AND NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.record = ?1) ORDER BY row";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &SqlRow<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<f64>>(1)?));
        let rows = statement.query_map([id.0.as_bytes()], read)?.collect::<Result<Vec<_>, _>>()?;
        let drawn = id.0.as_bytes().as_slice() < threshold(line.sample).as_slice();
        let why = rows.iter().filter_map(|(verdict, margin)| match verdict.as_str() {
            _ if line.margin > 0.0 && margin.is_some_and(|margin| margin <= line.margin) => {
                Some(Waits::Borderline)
            }
            "redacted" if line.redacted => Some(Waits::Redacted),
            "kept" if drawn => Some(Waits::Sample),
            _ => None,
        });
        Ok(why.min())
    }

    /// How many texts wait for a person, counted up to `most`.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn waiting_count(&self, line: &Line, most: u64) -> Result<u64, CatalogError> {
        let sql = format!("SELECT count(*) FROM ({WAITING} GROUP BY id LIMIT ?4)");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let values = params![line.margin, line.redacted, threshold(line.sample), most.cast_signed()];
        Ok(statement.query_row(values, |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// What a person decided about a text.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, the vault is sealed, or the row is not as Moat wrote it.
    pub fn review(&self, record: RecordId) -> Result<Option<Review>, CatalogError> {
        let sql = "SELECT decision, who, at, mark FROM reviews WHERE record = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([record.0.as_bytes()])?;
        rows.next()?.map_or(Ok(None), |row| joined(row, 0, record, &self.vault))
    }

    /// What people decided, newest first, with how many records hold the text now; at most `limit`.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, the vault is sealed, or a row is not as Moat wrote it.
    pub fn reviews(&self, limit: usize) -> Result<Vec<(RecordId, Review, u64)>, CatalogError> {
        let sql =
            "SELECT record, decision, who, at, mark, (SELECT count(*) FROM records WHERE records.id = record)
                   FROM reviews ORDER BY at DESC, record LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let record = RecordId(digest_at(row, 0)?);
            let review = joined(row, 1, record, &self.vault)?.ok_or(DAMAGED)?;
            found.push((record, review, row.get::<_, i64>(5)?.cast_unsigned()));
        }
        Ok(found)
    }

    /// Ids of the records that documents or datasets hold and whose hexadecimal id begins with a text; at most two.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn records_with_prefix(&self, prefix: &str) -> Result<Vec<RecordId>, CatalogError> {
        let digits = prefix.as_bytes();
        if digits.is_empty() || digits.len() > 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Ok(Vec::new());
        }
        // The lowest and the highest id that begin so: a range of the index.
        let bound = |fill: &str| {
            let whole = format!("{}{}", prefix.to_lowercase(), fill.repeat(64 - digits.len()));
            whole.parse::<Digest>().map_err(|_| CatalogError::Damaged { what: "record id" })
        };
        let (low, high) = (bound("0")?, bound("f")?);
        let sql = "SELECT id FROM texts WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement
            .query_map(params![low.as_bytes(), high.as_bytes()], |row| digest_at(row, 0).map(RecordId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Writes what a person decided about a text, in place of what was decided before.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn put_review(&self, record: RecordId, review: &Review) -> Result<(), CatalogError> {
        let mark = seal_bytes(&self.vault.derived(MARK)?, &review.object(record), b"")?;
        let sql =
            "INSERT OR REPLACE INTO reviews (record, decision, who, at, mark) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![record.0.as_bytes(), review.decision.word(), review.who, review.at, mark];
        self.connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// Forgets what was decided about a text; true where something was.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn remove_review(&self, record: RecordId) -> Result<bool, CatalogError> {
        let sql = "DELETE FROM reviews WHERE record = ?1";
        Ok(self.connection.prepare_cached(sql)?.execute([record.0.as_bytes()])? > 0)
    }
}
