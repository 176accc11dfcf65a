use rusqlite::Connection;

use crate::CatalogError;

/// "Moat" in the file's header (PRAGMA application_id), since the first release.
pub(crate) const APPLICATION: i64 = 0x4D6F_6174;

/// Each entry upgrades a file from the version before it; the position is the version.
pub(crate) const MIGRATIONS: &[&str] = &["
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    -- Sealed; found by its tag, and by the tag of the folder that it lies in.
    path BLOB NOT NULL,
    tag BLOB NOT NULL,
    folder BLOB NOT NULL,
    state TEXT NOT NULL,
    skip TEXT,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    authored INTEGER,
    -- Sealed.
    readers BLOB NOT NULL,
    policy TEXT NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    stamp_size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    header BLOB NOT NULL,
    rules BLOB
) STRICT;
CREATE INDEX documents_by_tag ON documents (tag);
CREATE INDEX documents_by_folder ON documents (folder);
CREATE INDEX documents_by_source ON documents (source);
CREATE INDEX documents_by_inode ON documents (source, device, inode) WHERE state <> 'deleted';

-- Folders of sources by their tags, so that what lies below one is found without any name.
CREATE TABLE folders (tag BLOB PRIMARY KEY, above BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX folders_by_above ON folders (above);

-- Bodies are sealed, each under a key of its own, which is wrapped under a generation of the vault's root.
CREATE TABLE texts (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    key BLOB NOT NULL,
    root INTEGER NOT NULL,
    body BLOB NOT NULL,
    uses INTEGER NOT NULL
) STRICT;
CREATE INDEX texts_by_root ON texts (root);

CREATE TABLE records (
    -- Never given twice, so that a link to a removed row cannot come to mean another.
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    language TEXT,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    redactions TEXT NOT NULL,
    words INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_line INTEGER NOT NULL,
    signature BLOB NOT NULL,
    twin INTEGER,
    similarity REAL,
    UNIQUE (document, ordinal)
) STRICT;
CREATE INDEX records_by_id ON records (id);

-- Records with the same text form a group; groups joined by near-duplicates form a cluster, of which one row survives.
CREATE TABLE twin_clusters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    survivor INTEGER NOT NULL,
    size INTEGER NOT NULL
) STRICT;
CREATE TABLE twin_groups (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    cluster INTEGER NOT NULL,
    first INTEGER NOT NULL,
    -- The survivor that the group's rows name as their twin, and how similar it is.
    shown INTEGER,
    similarity REAL,
    signature BLOB NOT NULL
) STRICT;
CREATE INDEX twin_groups_by_cluster ON twin_groups (cluster, shown);
CREATE TABLE twin_bands (
    hash INTEGER NOT NULL,
    cluster INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (hash, cluster, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    recipe BLOB NOT NULL,
    rules BLOB NOT NULL,
    tokenizer BLOB NOT NULL,
    built INTEGER NOT NULL
) STRICT;
CREATE TABLE dataset_entries (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    record BLOB NOT NULL,
    split TEXT NOT NULL,
    source TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (dataset, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_entries_by_record ON dataset_entries (record);
-- Which document gave a dataset its record: kept after the document is deleted.
CREATE TABLE dataset_documents (
    dataset INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    record BLOB NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (dataset, record, document)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_documents_by_document ON dataset_documents (document);

CREATE TABLE runs (
    name TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    state TEXT NOT NULL,
    message TEXT,
    recipe TEXT NOT NULL,
    dataset BLOB,
    base BLOB,
    created INTEGER NOT NULL,
    outcome TEXT,
    edge TEXT,
    -- The key of the run's folder, wrapped under a generation of the vault's root.
    key BLOB,
    root INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE steps (
    run TEXT NOT NULL REFERENCES runs (name) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    loss REAL NOT NULL,
    gradient_norm REAL NOT NULL,
    learning_rate REAL NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;

-- Places in a document that extraction could not read.
CREATE TABLE document_faults (
    document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    line INTEGER NOT NULL,
    what TEXT NOT NULL,
    PRIMARY KEY (document, ordinal)
) STRICT, WITHOUT ROWID;
", RIGHTS, COURSE, PROOFS, USE, REVIEWS, SOURCES];

/// Accounts, API keys, and the two-person rule, which holds here as it does in the code: whoever writes to the file by
/// other ways meets it again.
const RIGHTS: &str = "
CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uid INTEGER UNIQUE,
    roles TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    credentials_by TEXT NOT NULL,
    roles_by TEXT NOT NULL,
    roles_since INTEGER NOT NULL,
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    statement BLOB REFERENCES statements (nonce),
    -- Sealed to the columns above.
    credentials BLOB NOT NULL,
    last_step INTEGER,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    name TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES accounts (id),
    scope TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL CHECK (expires > created),
    revoked INTEGER,
    mark BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER revoked_for_good BEFORE UPDATE ON api_keys
WHEN OLD.revoked IS NOT NULL OR NEW.scope <> OLD.scope OR NEW.expires <> OLD.expires OR NEW.owner <> OLD.owner
BEGIN SELECT RAISE(ABORT, 'an API key is only ever revoked'); END;

CREATE TABLE served (
    key BLOB NOT NULL REFERENCES api_keys (hash),
    day INTEGER NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (key, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE statements (
    nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16),
    kind TEXT NOT NULL CHECK (kind IN ('export', 'policy', 'role')),
    text TEXT NOT NULL,
    about TEXT NOT NULL,
    requester TEXT NOT NULL REFERENCES accounts (id),
    request BLOB NOT NULL CHECK (length(request) = 64),
    approver TEXT REFERENCES accounts (id),
    approval BLOB CHECK (length(approval) = 64),
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL CHECK (expires > created AND expires - created <= 604800),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'agreed', 'done', 'failed', 'withdrawn')),
    message TEXT,
    CHECK (approver <> requester),
    CHECK ((approver IS NULL) = (approval IS NULL)),
    CHECK (approver IS NOT NULL OR state NOT IN ('agreed', 'done', 'failed'))
) STRICT, WITHOUT ROWID;
CREATE TRIGGER statements_begin BEFORE INSERT ON statements WHEN NEW.state <> 'waiting' OR NEW.approver IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a statement begins with one signature'); END;
CREATE TRIGGER statements_say_the_same BEFORE UPDATE ON statements
WHEN NEW.nonce <> OLD.nonce OR NEW.kind <> OLD.kind OR NEW.text <> OLD.text OR NEW.about <> OLD.about
    OR NEW.requester <> OLD.requester OR NEW.request <> OLD.request OR NEW.created <> OLD.created
    OR NEW.expires <> OLD.expires OR (OLD.approver IS NOT NULL AND NEW.approver IS NOT OLD.approver)
BEGIN SELECT RAISE(ABORT, 'what a statement says never changes'); END;
CREATE TRIGGER statements_count_once BEFORE UPDATE ON statements
WHEN NOT (OLD.state = 'waiting' AND NEW.state IN ('agreed', 'withdrawn') OR OLD.state = 'agreed' AND NEW.state IN ('done', 'failed'))
BEGIN SELECT RAISE(ABORT, 'a statement counts once'); END;
CREATE TRIGGER statements_take_two BEFORE UPDATE ON statements
WHEN NEW.state = 'agreed' AND NOT EXISTS (
    SELECT 1 FROM accounts AS asks, accounts AS agrees
    WHERE asks.id = NEW.requester AND agrees.id = NEW.approver AND asks.enabled AND agrees.enabled
        AND asks.uid IS NOT 0 AND agrees.uid IS NOT 0 AND (asks.uid IS NULL OR asks.uid IS NOT agrees.uid)
        AND asks.key <> agrees.key AND agrees.created_by <> asks.id AND agrees.credentials_by <> asks.id
        AND instr(',' || agrees.roles_by || ',', ',' || asks.id || ',') = 0
        AND instr(',' || agrees.roles || ',', ',approver,') > 0 AND agrees.roles_since <= NEW.created)
BEGIN SELECT RAISE(ABORT, 'a statement takes two people who owe each other nothing'); END;
CREATE TRIGGER statements_stay BEFORE DELETE ON statements BEGIN SELECT RAISE(ABORT, 'a statement stays'); END;

CREATE TRIGGER accounts_begin BEFORE INSERT ON accounts
WHEN NEW.roles <> '' AND EXISTS (SELECT 1 FROM policies)
BEGIN SELECT RAISE(ABORT, 'a new account has no role'); END;
CREATE TRIGGER accounts_stay BEFORE DELETE ON accounts BEGIN SELECT RAISE(ABORT, 'an account stays'); END;
CREATE TRIGGER roles_take_two BEFORE UPDATE ON accounts
WHEN NEW.roles <> OLD.roles AND NOT EXISTS (
    SELECT 1 FROM statements WHERE nonce = NEW.statement AND kind = 'role' AND state = 'agreed')
BEGIN SELECT RAISE(ABORT, 'roles change by an agreed statement'); END;

-- The first row comes when the site is set up.
CREATE TABLE policies (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    text TEXT NOT NULL,
    statement BLOB UNIQUE REFERENCES statements (nonce),
    since INTEGER NOT NULL
) STRICT;
CREATE TRIGGER policies_take_two BEFORE INSERT ON policies
WHEN EXISTS (SELECT 1 FROM policies) AND NOT EXISTS (
    SELECT 1 FROM statements WHERE nonce = NEW.statement AND kind = 'policy' AND state = 'agreed')
BEGIN SELECT RAISE(ABORT, 'a policy changes by an agreed statement'); END;
CREATE TRIGGER policies_do_not_change BEFORE UPDATE ON policies BEGIN SELECT RAISE(ABORT, 'a policy stays'); END;
CREATE TRIGGER policies_stay BEFORE DELETE ON policies BEGIN SELECT RAISE(ABORT, 'a policy stays'); END;
";

/// What a run's engine tells beside losses, so that a run's page is whole after a restart. Zeros were never told.
const COURSE: &str = "
ALTER TABLE runs ADD COLUMN planned INTEGER;
ALTER TABLE steps ADD COLUMN tokens_per_second REAL NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN seconds_left REAL NOT NULL DEFAULT 0;
CREATE TABLE validations (
    run TEXT NOT NULL REFERENCES runs (name) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    loss REAL NOT NULL,
    gain INTEGER NOT NULL CHECK (gain IN (0, 1)),
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;
";

/// What a run showed of itself, and what it trains on and takes of memory. JSON, as outcomes are.
const PROOFS: &str = "
ALTER TABLE runs ADD COLUMN survey TEXT;
ALTER TABLE runs ADD COLUMN memory TEXT;
CREATE TABLE proofs (
    run TEXT NOT NULL REFERENCES runs (name) ON DELETE CASCADE,
    claim TEXT NOT NULL,
    proof TEXT NOT NULL,
    PRIMARY KEY (run, claim)
) STRICT, WITHOUT ROWID;
";

/// How busy a run's engine was (zeros were never told), its losses record by record, and sweeps.
const USE: &str = "
ALTER TABLE steps ADD COLUMN cores REAL NOT NULL DEFAULT 0;

-- What base and tuned model make of each held-back record, so that two runs can be compared on the same ones.
CREATE TABLE losses (
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    record BLOB NOT NULL,
    source TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    base_nats REAL NOT NULL,
    tuned_nats REAL NOT NULL,
    PRIMARY KEY (run, record)
) STRICT, WITHOUT ROWID;

-- A sweep and its runs are written together: there is never a part of one.
CREATE TABLE sweeps (
    name TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    sweep TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sweep_runs (
    sweep TEXT NOT NULL REFERENCES sweeps (name) ON DELETE CASCADE,
    point INTEGER NOT NULL,
    run TEXT NOT NULL UNIQUE REFERENCES runs (name) ON DELETE CASCADE,
    PRIMARY KEY (sweep, point)
) STRICT, WITHOUT ROWID;
";

/// What people decided about texts, what waits for them, and how datasets are spread. What older records are near to is
/// known of those alone that measured rules dropped.
const REVIEWS: &str = "
CREATE TABLE reviews (
    -- The text, whichever documents hold it: another text is another record.
    record BLOB PRIMARY KEY CHECK (length(record) = 32),
    decision TEXT NOT NULL CHECK (decision IN ('keep', 'drop')),
    who TEXT NOT NULL,
    at INTEGER NOT NULL,
    -- Sealed to the columns above.
    mark BLOB NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE records ADD COLUMN margin REAL;
UPDATE records SET margin = (
    SELECT max(abs(json_extract(value, '$.measured') - json_extract(value, '$.limit')) / json_extract(value, '$.limit'))
    FROM json_each(reasons)) WHERE verdict = 'dropped' AND NOT EXISTS (
    SELECT 1 FROM json_each(reasons) WHERE json_extract(value, '$.limit') IS NULL
        OR json_extract(value, '$.rule') IN ('max_secret_share', 'max_redacted_share'));
CREATE INDEX records_by_verdict ON records (verdict, id) WHERE twin IS NULL;
CREATE INDEX records_by_margin ON records (margin, id) WHERE margin IS NOT NULL AND twin IS NULL;
ALTER TABLE datasets ADD COLUMN shape TEXT;
";

/// Sources that two people added. The table of statements takes their kind as well: a rule that admits more is changed in
/// its text (sqlite.org/lang_altertable.html, section 7), since statements stay and cannot be moved to a table of another rule.
const SOURCES: &str = "
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '(''export'', ''policy'', ''role'')', '(''export'', ''policy'', ''role'', ''source'')')
    WHERE type = 'table' AND name = 'statements';
PRAGMA writable_schema = RESET;

CREATE TABLE sources (
    name TEXT PRIMARY KEY,
    statement BLOB NOT NULL UNIQUE REFERENCES statements (nonce),
    since INTEGER NOT NULL,
    -- Whether its documents are being deleted; the row goes after them.
    removing INTEGER NOT NULL CHECK (removing IN (0, 1)),
    -- Sealed to the name and the statement.
    definition BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER sources_take_two BEFORE INSERT ON sources
WHEN NEW.removing OR NOT EXISTS (
    SELECT 1 FROM statements WHERE nonce = NEW.statement AND kind = 'source' AND state = 'agreed')
BEGIN SELECT RAISE(ABORT, 'a source comes by an agreed statement'); END;
CREATE TRIGGER sources_do_not_change BEFORE UPDATE ON sources
WHEN NEW.name <> OLD.name OR NEW.statement <> OLD.statement OR NEW.since <> OLD.since
    OR NEW.definition <> OLD.definition OR NEW.removing < OLD.removing
BEGIN SELECT RAISE(ABORT, 'a source is only ever removed'); END;
CREATE TRIGGER sources_go_last BEFORE DELETE ON sources
WHEN NOT OLD.removing OR EXISTS (SELECT 1 FROM documents WHERE source = OLD.name AND state <> 'deleted')
BEGIN SELECT RAISE(ABORT, 'a source goes after its documents'); END;
";

/// Brings a file to the newest schema, in one transaction.
pub(crate) fn migrate(connection: &Connection) -> Result<(), CatalogError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let version =
        |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION && version(connection)? == known {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    // Asked again under the lock: another process may have migrated meanwhile.
    let found = version(connection)?;
    let mut pending = MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0));
    let result = if found > 0 && application != APPLICATION {
        Err(CatalogError::Unreleased)
    } else if found > known {
        Err(CatalogError::Newer { found, known })
    } else {
        pending
            .try_for_each(|migration| connection.execute_batch(migration))
            .and_then(|()| connection.pragma_update(None, "application_id", APPLICATION))
            .and_then(|()| connection.pragma_update(None, "user_version", known))
            .and_then(|()| connection.execute_batch("COMMIT"))
            .map_err(CatalogError::from)
    };
    if result.is_err() {
        connection.execute_batch("ROLLBACK")?;
    }
    result
}
