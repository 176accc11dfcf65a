use std::collections::BTreeMap;

use moat_contracts::{Digest, Document, DocumentId, DocumentState, Skip, TextFault};
use moat_vault::Vault;
use rusqlite::{Row as SqlRow, params};

use crate::{Batch, Catalog, CatalogError, sealed};

/// What a source remembers of a file, to tell unchanged ones without opening them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last change of the inode, nanoseconds since 1970.
    pub changed_ns: i64,
    /// Digest of the first 4 KiB, or of a git blob's id.
    pub header: Digest,
}

/// A document as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The document at its last read version.
    pub document: Document,
    /// Where it stands.
    pub state: DocumentState,
    /// Why it was not read, for [`DocumentState::Skipped`].
    pub skip: Option<Skip>,
    /// What the source remembers of it.
    pub stamp: Stamp,
    /// Hash of the curation rules that its records were made under.
    pub rules: Option<Digest>,
}

/// Totals of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Documents present.
    pub present: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Documents present of which some place could not be read.
    pub partial: u64,
    /// Documents deleted since first seen.
    pub deleted: u64,
    /// Documents skipped, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Records by effective verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Dropped records by first reason; `duplicate`, `near_duplicate` and `review` counted in.
    pub dropped: BTreeMap<String, u64>,
    /// Redactions by label.
    pub redactions: BTreeMap<String, u64>,
}

const COLUMNS: &str = "id, source, path, state, skip, digest, size, authored, readers, policy, device, inode, \
                       stamp_size, modified_ns, changed_ns, header, rules";

/// SQLite integers are signed; device and inode numbers are stored bit by bit.
const fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(crate) fn digest_at(row: &SqlRow<'_>, column: usize) -> Result<Digest, rusqlite::Error> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}

const fn state_word(state: DocumentState) -> &'static str {
    match state {
        DocumentState::Present => "present",
        DocumentState::Skipped => "skipped",
        DocumentState::Deleted => "deleted",
    }
}

fn known(row: &SqlRow<'_>, vault: &Vault) -> Result<Known, CatalogError> {
    let id = DocumentId(digest_at(row, 0)?);
    let state = match row.get::<_, String>(3)?.as_str() {
        "present" => DocumentState::Present,
        "skipped" => DocumentState::Skipped,
        "deleted" => DocumentState::Deleted,
        _ => return Err(CatalogError::Damaged { what: "document state" }),
    };
    let skip = row.get::<_, Option<String>>(4)?;
    Ok(Known {
        document: Document {
            id,
            source: row.get(1)?,
            path: sealed::open_path(vault, id, row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
            digest: digest_at(row, 5)?,
            size: row.get::<_, i64>(6)?.cast_unsigned(),
            authored: row.get(7)?,
            readers: sealed::open_readers(
                vault,
                id,
                row.get_ref(8)?.as_blob().map_err(rusqlite::Error::from)?,
            )?,
            policy: row.get(9)?,
        },
        state,
        skip: skip.as_deref().and_then(Skip::from_word),
        stamp: Stamp {
            device: row.get::<_, i64>(10)?.cast_unsigned(),
            inode: row.get::<_, i64>(11)?.cast_unsigned(),
            size: row.get::<_, i64>(12)?.cast_unsigned(),
            modified_ns: row.get(13)?,
            changed_ns: row.get(14)?,
            header: digest_at(row, 15)?,
        },
        rules: row.get::<_, Option<[u8; 32]>>(16)?.map(Digest::from_bytes),
    })
}

impl Catalog {
    fn known_where(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<Known>, CatalogError> {
        let sql = format!("SELECT {COLUMNS} FROM documents WHERE {condition} ORDER BY number");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(known(row, &self.vault)?);
        }
        Ok(found)
    }

    /// A document by its id.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn document(&self, id: DocumentId) -> Result<Option<Known>, CatalogError> {
        Ok(self.known_where("id = ?1", [id.0.as_bytes()])?.pop())
    }

    /// The document that is at a path of a source now; deleted ones are not.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn document_at(&self, source: &str, path: &str) -> Result<Option<Known>, CatalogError> {
        Ok(self.documents_at(source, path)?.pop())
    }

    /// All documents that are at a path of a source now: more than one only while renames are being taken in.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn documents_at(&self, source: &str, path: &str) -> Result<Vec<Known>, CatalogError> {
        let tag = sealed::path_tag(&self.vault, path)?;
        self.known_where("tag = ?1 AND +source = ?2 AND state <> 'deleted'", params![tag, source])
    }

    /// Documents of a source whose file has an inode; deleted ones are not among them.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn documents_at_inode(
        &self,
        source: &str,
        device: u64,
        inode: u64,
    ) -> Result<Vec<Known>, CatalogError> {
        let condition = "source = ?1 AND device = ?2 AND inode = ?3 AND state <> 'deleted'";
        self.known_where(condition, params![source, signed(device), signed(inode)])
    }

    /// Every document that ever had a path, in any source, deleted ones too.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn documents_named(&self, path: &str) -> Result<Vec<Known>, CatalogError> {
        self.known_where("tag = ?1", [sealed::path_tag(&self.vault, path)?])
    }

    /// Documents of a source below a folder that are not deleted; `prefix` ends in `/`, or is empty for all.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn documents_under(&self, source: &str, prefix: &str) -> Result<Vec<Known>, CatalogError> {
        let folder = sealed::folder_tag(&self.vault, source, prefix)?;
        self.known_where(
            "folder IN (WITH RECURSIVE below (tag) AS (VALUES (?1) UNION ALL
                        SELECT folders.tag FROM folders JOIN below ON folders.above = below.tag)
                        SELECT tag FROM below) AND state <> 'deleted'",
            [folder],
        )
    }

    /// Calls back for every document of a source that is not deleted, in the order of first sight.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, or the callback's own.
    pub fn each_document(
        &self,
        source: &str,
        mut each: impl FnMut(Known) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM documents WHERE source = ?1 AND state <> 'deleted' ORDER BY number"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            each(known(row, &self.vault)?)?;
        }
        Ok(())
    }

    /// The places of a document that extraction could not read, in the document's order.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn faults(&self, id: DocumentId) -> Result<Vec<TextFault>, CatalogError> {
        let sql = "SELECT line, what FROM document_faults
                   WHERE document = (SELECT number FROM documents WHERE id = ?1) ORDER BY ordinal";
        let mut statement = self.connection.prepare_cached(sql)?;
        let fault = |row: &SqlRow<'_>| {
            Ok(TextFault { line: row.get::<_, i64>(0)?.cast_unsigned(), what: row.get(1)? })
        };
        let faults = statement.query_map([id.0.as_bytes()], fault)?.collect::<Result<_, _>>()?;
        Ok(faults)
    }

    /// Begins noting which of a source's documents a scan meets.
    ///
    /// # Errors
    /// [`CatalogError`] where the temporary table cannot be made.
    pub fn sweep(&self, source: &str) -> Result<Sweep<'_>, CatalogError> {
        self.connection.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS met (document BLOB PRIMARY KEY) WITHOUT ROWID; DELETE FROM temp.met;",
        )?;
        Ok(Sweep { catalog: self, source: source.to_owned() })
    }

    /// Names of all sources that ever gave a document.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn source_names(&self) -> Result<Vec<String>, CatalogError> {
        let mut statement =
            self.connection.prepare("SELECT DISTINCT source FROM documents ORDER BY source")?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// Totals of one source.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn source_counts(&self, source: &str) -> Result<SourceCounts, CatalogError> {
        let mut counts = SourceCounts::default();
        let sql =
            "SELECT state, skip, count(*), sum(size) FROM documents WHERE source = ?1 GROUP BY state, skip";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(2)?.cast_unsigned();
            match row.get::<_, String>(0)?.as_str() {
                "present" => (counts.present, counts.bytes) = (number, row.get::<_, i64>(3)?.cast_unsigned()),
                "deleted" => counts.deleted += number,
                _ => *counts.skipped.entry(row.get(1)?).or_default() += number,
            }
        }
        let sql = "SELECT count(*) FROM documents WHERE source = ?1 AND state = 'present'
                   AND EXISTS (SELECT 1 FROM document_faults WHERE document = documents.number)";
        let mut statement = self.connection.prepare_cached(sql)?;
        counts.partial = statement.query_row([source], |row| row.get::<_, i64>(0))?.cast_unsigned();
        let sql = "SELECT CASE WHEN decision = 'drop' THEN 'dropped'
                               WHEN decision = 'keep' AND verdict = 'dropped' AND margin IS NOT NULL
                                   THEN iif(redactions = '[]', 'kept', 'redacted')
                               WHEN twin IS NULL THEN verdict ELSE 'dropped' END AS effective,
                          CASE WHEN decision = 'drop' THEN 'review'
                               WHEN decision = 'keep' AND verdict = 'dropped' AND margin IS NOT NULL THEN NULL
                               WHEN verdict = 'dropped' THEN coalesce(json_extract(reasons, '$[0].rule'), 'unknown')
                               WHEN twin IS NOT NULL AND similarity >= 1 THEN 'duplicate'
                               WHEN twin IS NOT NULL THEN 'near_duplicate' END AS why, count(*)
                   FROM records JOIN documents ON records.document = documents.number
                   LEFT JOIN reviews ON reviews.record = records.id
                   WHERE source = ?1 GROUP BY effective, why";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(2)?.cast_unsigned();
            *counts.verdicts.entry(row.get(0)?).or_default() += number;
            if let Some(why) = row.get::<_, Option<String>>(1)? {
                *counts.dropped.entry(why).or_default() += number;
            }
        }
        let sql = "SELECT json_extract(span.value, '$.label') AS label, count(*)
                   FROM records JOIN documents ON records.document = documents.number, json_each(redactions) AS span
                   WHERE source = ?1 AND redactions <> '[]' GROUP BY label";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([source])?;
        while let Some(row) = rows.next()? {
            counts.redactions.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
        }
        Ok(counts)
    }
}

/// Notes which documents a scan met, on disk rather than in memory. One at a time on a connection.
pub struct Sweep<'a> {
    catalog: &'a Catalog,
    source: String,
}

impl Sweep<'_> {
    /// The scan met this document.
    ///
    /// # Errors
    /// [`CatalogError`] where writing the temporary table fails.
    pub fn met(&mut self, id: DocumentId) -> Result<(), CatalogError> {
        let sql = "INSERT OR IGNORE INTO temp.met (document) VALUES (?1)";
        self.catalog.connection.prepare_cached(sql)?.execute([id.0.as_bytes()])?;
        Ok(())
    }

    /// Whether the scan met this document already.
    ///
    /// # Errors
    /// [`CatalogError`] where reading the temporary table fails.
    pub fn has_met(&self, id: DocumentId) -> Result<bool, CatalogError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM temp.met WHERE document = ?1)";
        let mut statement = self.catalog.connection.prepare_cached(sql)?;
        Ok(statement.query_row([id.0.as_bytes()], |row| row.get(0))?)
    }

    /// Calls back for every document of the source that is not deleted and that the scan did not meet, in the
    /// order of first sight.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, or the callback's own.
    pub fn unmet(&self, mut each: impl FnMut(Known) -> Result<(), CatalogError>) -> Result<(), CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM documents WHERE source = ?1 AND state <> 'deleted'
             AND NOT EXISTS (SELECT 1 FROM temp.met WHERE met.document = documents.id) ORDER BY number"
        );
        let mut statement = self.catalog.connection.prepare(&sql)?;
        let mut rows = statement.query([&self.source])?;
        while let Some(row) = rows.next()? {
            each(known(row, &self.catalog.vault)?)?;
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// Writes what is known of a document, new or not. Its records stay as they are.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_document(&self, known: &Known) -> Result<(), CatalogError> {
        let sql = format!(
            "INSERT INTO documents ({COLUMNS}, tag, folder)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
             ON CONFLICT (id) DO UPDATE SET source = excluded.source, path = excluded.path, tag = excluded.tag,
             folder = excluded.folder, state = excluded.state,
             skip = excluded.skip, digest = excluded.digest, size = excluded.size, authored = excluded.authored,
             readers = excluded.readers, policy = excluded.policy, device = excluded.device, inode = excluded.inode,
             stamp_size = excluded.stamp_size, modified_ns = excluded.modified_ns, changed_ns = excluded.changed_ns,
             header = excluded.header, rules = excluded.rules"
        );
        let (document, stamp) = (&known.document, &known.stamp);
        let vault = &self.vault;
        self.connection.prepare_cached(&sql)?.execute(params![
            document.id.0.as_bytes(),
            document.source,
            sealed::seal_path(vault, document.id, &document.path)?,
            state_word(known.state),
            known.skip.map(Skip::word),
            document.digest.as_bytes(),
            signed(document.size),
            document.authored,
            sealed::seal_readers(vault, document.id, &document.readers)?,
            document.policy,
            signed(stamp.device),
            signed(stamp.inode),
            signed(stamp.size),
            stamp.modified_ns,
            stamp.changed_ns,
            stamp.header.as_bytes(),
            known.rules.as_ref().map(Digest::as_bytes),
            sealed::path_tag(vault, &document.path)?,
            self.put_folder(&document.source, &document.path)?,
        ])?;
        Ok(())
    }

    /// Writes which places of a document could not be read, in place of those written before.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_faults(&self, id: DocumentId, faults: &[TextFault]) -> Result<(), CatalogError> {
        let sql = "DELETE FROM document_faults WHERE document = (SELECT number FROM documents WHERE id = ?1)";
        self.connection.prepare_cached(sql)?.execute([id.0.as_bytes()])?;
        let sql = "INSERT INTO document_faults (document, ordinal, line, what)
                   SELECT number, ?2, ?3, ?4 FROM documents WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        for (ordinal, fault) in (0_i64..).zip(faults) {
            statement.execute(params![id.0.as_bytes(), ordinal, signed(fault.line), fault.what])?;
        }
        Ok(())
    }

    /// Marks a document deleted and removes its records; what it reached stays known.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn delete_document(&self, id: DocumentId) -> Result<(), CatalogError> {
        self.put_records(id, &[])?;
        self.put_faults(id, &[])?;
        let sql = "UPDATE documents SET state = 'deleted', skip = NULL, rules = NULL WHERE id = ?1";
        self.connection.prepare_cached(sql)?.execute([id.0.as_bytes()])?;
        Ok(())
    }
}
