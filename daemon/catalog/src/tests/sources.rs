use rusqlite::Connection;

use super::{known, open, vault};
use crate::{Batch, Catalog, CatalogError, SourceRow, StatementRow, schema};

const NONCE: [u8; 16] = [5; 16];

/// Two people, who owe each other nothing, as rows.
const PEOPLE: &str = "
INSERT INTO accounts SELECT 'a', 'ada', NULL, 'steward', 1, 1, '', '', '', 1, randomblob(32), NULL, x'', NULL, 0, 0;
INSERT INTO accounts SELECT 'b', 'ben', NULL, 'approver', 1, 1, '', '', '', 1, randomblob(32), NULL, x'', NULL, 0, 0;
";

fn statement(kind: &str) -> StatementRow {
    StatementRow {
        nonce: NONCE,
        kind: kind.to_owned(),
        text: "{}".to_owned(),
        about: "{}".to_owned(),
        requester: "a".to_owned(),
        request: [1; 64],
        approver: None,
        approval: None,
        created: 5,
        expires: 9,
        state: "waiting".to_owned(),
        message: None,
    }
}

fn source() -> SourceRow {
    SourceRow {
        name: "docs".to_owned(),
        statement: NONCE,
        since: 7,
        removing: false,
        definition: "{\"path\":\"/srv/docs\"}".to_owned(),
    }
}

fn refused(result: Result<(), CatalogError>, part: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(part), "{message}");
}

fn agreed(batch: &Batch<'_>, kind: &str) {
    batch.connection.execute_batch(PEOPLE).unwrap();
    batch.add_statement(&statement(kind)).unwrap();
    refused(batch.add_source(&source()), "a source comes by an agreed statement");
    batch.agree(&NONCE, "b", &[2; 64]).unwrap();
}

#[test]
fn a_source_comes_by_an_agreed_statement_and_goes_after_its_documents() {
    let (folder, catalog) = open();
    let batch = catalog.write().unwrap();
    agreed(&batch, "source");
    batch.add_source(&source()).unwrap();
    batch.put_document(&known("a.txt")).unwrap();
    batch.commit().unwrap();
    assert_eq!(catalog.sources().unwrap(), [source()]);
    let bytes = std::fs::read(folder.path().join("catalog.db-wal")).unwrap();
    assert!(!bytes.windows(9).any(|part| part == b"/srv/docs"), "what a source is lies in the open");

    let batch = catalog.write().unwrap();
    refused(batch.end_removal("docs"), "after its documents");
    batch.begin_removal("docs").unwrap();
    refused(batch.end_removal("docs"), "after its documents");
    batch.delete_document(known("a.txt").document.id).unwrap();
    batch.end_removal("docs").unwrap();
    assert_eq!(batch.sources().unwrap(), []);
    // A statement counts once, also for a source that is gone.
    batch.end_statement(&NONCE, "done", None).unwrap();
    refused(batch.add_source(&source()), "a source comes by an agreed statement");
}

#[test]
fn a_source_is_not_exchanged_and_comes_by_no_other_kind_of_statement() {
    let (_folder, catalog) = open();
    let batch = catalog.write().unwrap();
    agreed(&batch, "policy");
    refused(batch.add_source(&source()), "a source comes by an agreed statement");
    drop(batch);
    let batch = catalog.write().unwrap();
    agreed(&batch, "source");
    batch.add_source(&source()).unwrap();
    batch.commit().unwrap();
    let change = |sql: &str| catalog.connection.execute_batch(sql).map_err(CatalogError::from);
    refused(change("UPDATE sources SET name = 'other'"), "only ever removed");
    refused(change("UPDATE sources SET definition = x'00'"), "only ever removed");
    change("DROP TRIGGER sources_do_not_change; UPDATE sources SET name = 'other'").unwrap();
    assert!(matches!(catalog.sources(), Err(CatalogError::Damaged { what: "source" })));
}

#[test]
fn a_file_from_before_sources_could_be_added_takes_their_statements() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let old = Connection::open(&path).unwrap();
    let before = schema::MIGRATIONS.len() - 1;
    for migration in &schema::MIGRATIONS[..before] {
        old.execute_batch(migration).unwrap();
    }
    old.pragma_update(None, "application_id", schema::APPLICATION).unwrap();
    old.pragma_update(None, "user_version", before as i64).unwrap();
    old.execute_batch(PEOPLE).unwrap();
    let kept =
        "INSERT INTO statements (nonce, kind, text, about, requester, request, created, expires, state)
                VALUES (zeroblob(16), 'role', '', '', 'a', zeroblob(64), 1, 9, 'waiting')";
    old.execute_batch(kept).unwrap();
    assert!(old.execute_batch(&kept.replace("'role'", "'source'")).is_err());
    let catalog = Catalog::open(&path, &vault(folder.path())).unwrap();
    assert_eq!(catalog.statements().unwrap().len(), 1);
    for connection in [&old, &catalog.connection] {
        let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let other = kept.replace("zeroblob(16)", "randomblob(16)");
        connection.execute_batch(&other.replace("'role'", "'source'")).unwrap();
        assert!(connection.execute_batch(&other.replace("'role'", "'other'")).is_err());
        assert!(connection.execute_batch("DELETE FROM statements").is_err());
    }
}
