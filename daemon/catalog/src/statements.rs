use moat_contracts::Digest;
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use crate::{Batch, Catalog, CatalogError};

const COLUMNS: &str =
    "nonce, kind, text, about, requester, request, approver, approval, created, expires, state, message";

/// What two people sign, as the catalog keeps it. The schema holds the rule as well: a statement begins without an
/// approver, never changes what it says, and is agreed to by another account than the one that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRow {
    /// Its name: makes it unlike any other.
    pub nonce: [u8; 16],
    /// `export`, `policy`, `role` or `source`.
    pub kind: String,
    /// Its canonical text, which is what is signed.
    pub text: String,
    /// What the act itself needs to be done, as JSON.
    pub about: String,
    /// The id of the account that asks.
    pub requester: String,
    /// Its signature.
    pub request: [u8; 64],
    /// The id of the account that agreed.
    pub approver: Option<String>,
    /// Its signature.
    pub approval: Option<[u8; 64]>,
    /// Seconds since 1970.
    pub created: i64,
    /// From when on it is void.
    pub expires: i64,
    /// `waiting`, `agreed`, `done`, `failed` or `withdrawn`.
    pub state: String,
    /// Why it failed.
    pub message: Option<String>,
}

/// The site's policy as it was agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// Hash of its text.
    pub hash: Digest,
    /// Its canonical text.
    pub text: String,
    /// The statement that brought it; none for the first.
    pub statement: Option<[u8; 16]>,
    /// Since when it is in force, in seconds since 1970.
    pub since: i64,
}

fn statement(row: &SqlRow<'_>) -> Result<StatementRow, rusqlite::Error> {
    Ok(StatementRow {
        nonce: row.get(0)?,
        kind: row.get(1)?,
        text: row.get(2)?,
        about: row.get(3)?,
        requester: row.get(4)?,
        request: row.get(5)?,
        approver: row.get(6)?,
        approval: row.get(7)?,
        created: row.get(8)?,
        expires: row.get(9)?,
        state: row.get(10)?,
        message: row.get(11)?,
    })
}

impl Catalog {
    /// All statements, oldest first.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn statements(&self) -> Result<Vec<StatementRow>, CatalogError> {
        let sql = format!("SELECT {COLUMNS} FROM statements ORDER BY created, nonce");
        let mut found = self.connection.prepare_cached(&sql)?;
        Ok(found.query_map([], statement)?.collect::<Result<_, _>>()?)
    }

    /// The policy that was agreed to last.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn policy(&self) -> Result<Option<PolicyRow>, CatalogError> {
        let sql = "SELECT hash, text, statement, since FROM policies ORDER BY number DESC LIMIT 1";
        let mut found = self.connection.prepare_cached(sql)?;
        let policy = found.query_row([], |row| {
            Ok(PolicyRow {
                hash: Digest::from_bytes(row.get(0)?),
                text: row.get(1)?,
                statement: row.get(2)?,
                since: row.get(3)?,
            })
        });
        Ok(policy.optional()?)
    }
}

impl Batch<'_> {
    /// Keeps a statement that one person signed.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn add_statement(&self, row: &StatementRow) -> Result<(), CatalogError> {
        let sql = format!(
            "INSERT INTO statements ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL, ?7, ?8, 'waiting', NULL)"
        );
        self.connection.prepare_cached(&sql)?.execute(params![
            row.nonce,
            row.kind,
            row.text,
            row.about,
            row.requester,
            row.request,
            row.created,
            row.expires
        ])?;
        Ok(())
    }

    /// Keeps the second person's signature. The schema refuses one who may not.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn agree(&self, nonce: &[u8; 16], approver: &str, approval: &[u8; 64]) -> Result<(), CatalogError> {
        let sql = "UPDATE statements SET approver = ?2, approval = ?3, state = 'agreed' WHERE nonce = ?1";
        self.connection.prepare_cached(sql)?.execute(params![nonce, approver, approval])?;
        Ok(())
    }

    /// Ends a statement: `done`, `failed` or `withdrawn`. It never counts again.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn end_statement(
        &self,
        nonce: &[u8; 16],
        state: &str,
        message: Option<&str>,
    ) -> Result<(), CatalogError> {
        let sql = "UPDATE statements SET state = ?2, message = ?3 WHERE nonce = ?1";
        self.connection.prepare_cached(sql)?.execute(params![nonce, state, message])?;
        Ok(())
    }

    /// Puts a policy in force. The schema refuses any but the first that no agreed statement brings.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn add_policy(&self, policy: &PolicyRow) -> Result<(), CatalogError> {
        let sql = "INSERT INTO policies (hash, text, statement, since) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute(params![
            policy.hash.as_bytes(),
            policy.text,
            policy.statement,
            policy.since
        ])?;
        Ok(())
    }
}
