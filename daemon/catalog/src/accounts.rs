use moat_vault::{open_bytes, seal_bytes};
use rusqlite::{Row as SqlRow, params};
use zeroize::Zeroizing;

use crate::{Batch, Catalog, CatalogError};

const CREDENTIALS: &str = "account credentials";
const COLUMNS: &str =
    "id, name, uid, roles, enabled, created, created_by, credentials_by, roles_by, roles_since, key,
                       statement, credentials, last_step, failures, failed_at";

/// An account as the catalog keeps it. What it may do is the words of the rights' table. Its credentials are sealed to
/// every other field but the last three, so that a row that was changed in the file opens no more.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Never given again.
    pub id: String,
    /// By which people call it.
    pub name: String,
    /// The user of the machine that is the same person.
    pub uid: Option<u32>,
    /// Words with commas between.
    pub roles: String,
    /// Whether it may do anything.
    pub enabled: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// Who made it; empty when the site was set up.
    pub created_by: String,
    /// Who last gave it credentials.
    pub credentials_by: String,
    /// Who asked for and agreed to its roles, with a comma between; empty when the site was set up.
    pub roles_by: String,
    /// Seconds since 1970.
    pub roles_since: i64,
    /// The public half of its signing key.
    pub key: [u8; 32],
    /// The statement that gave it its roles.
    pub statement: Option<[u8; 16]>,
    /// Password hash, secret of its codes and signing key, as the caller wrote them.
    pub credentials: Zeroizing<Vec<u8>>,
    /// The step of the last code that was used.
    pub last_step: Option<i64>,
    /// Tries that failed in a row.
    pub failures: u32,
    /// When the last of them was, in seconds since 1970.
    pub failed_at: i64,
}

impl AccountRow {
    /// What the credentials are sealed to.
    fn object(&self) -> String {
        let Self { id, name, uid, roles, enabled, created, created_by, credentials_by, roles_by, .. } = self;
        let (since, statement) = (self.roles_since, self.statement);
        let fixed = (id, name, uid, roles, enabled, created, created_by, credentials_by, roles_by, since);
        format!("account/{fixed:?}/{:?}/{statement:?}", self.key)
    }
}

fn account(row: &SqlRow<'_>) -> Result<AccountRow, rusqlite::Error> {
    Ok(AccountRow {
        id: row.get(0)?,
        name: row.get(1)?,
        uid: row.get(2)?,
        roles: row.get(3)?,
        enabled: row.get(4)?,
        created: row.get(5)?,
        created_by: row.get(6)?,
        credentials_by: row.get(7)?,
        roles_by: row.get(8)?,
        roles_since: row.get(9)?,
        key: row.get(10)?,
        statement: row.get(11)?,
        credentials: Zeroizing::new(row.get(12)?),
        last_step: row.get(13)?,
        failures: row.get(14)?,
        failed_at: row.get(15)?,
    })
}

impl Catalog {
    /// All accounts, by name.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, the vault is sealed, or a row is not as Moat wrote it.
    pub fn accounts(&self) -> Result<Vec<AccountRow>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts ORDER BY name"))?;
        let rows = statement.query_map([], account)?;
        let key = self.vault.derived(CREDENTIALS)?;
        rows.map(|row| {
            let mut row = row?;
            let opened = open_bytes(&key, &row.object(), &row.credentials);
            row.credentials = Zeroizing::new(opened.map_err(|_| CatalogError::Damaged { what: "account" })?);
            Ok(row)
        })
        .collect()
    }
}

impl Batch<'_> {
    /// Keeps a new account. Once the site is set up, the schema refuses one that comes with roles.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn add_account(&self, row: &AccountRow) -> Result<(), CatalogError> {
        let sql = format!(
            "INSERT INTO accounts ({COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
        );
        let sealed = self.sealed_credentials(row)?;
        self.connection.prepare_cached(&sql)?.execute(params![
            row.id,
            row.name,
            row.uid,
            row.roles,
            row.enabled,
            row.created,
            row.created_by,
            row.credentials_by,
            row.roles_by,
            row.roles_since,
            row.key,
            row.statement,
            sealed,
            row.last_step,
            row.failures,
            row.failed_at
        ])?;
        Ok(())
    }

    /// Changes an account's standing. The schema lets roles change only by the agreed statement that the row names.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn change_account(&self, row: &AccountRow) -> Result<(), CatalogError> {
        let sql =
            "UPDATE accounts SET uid = ?2, roles = ?3, enabled = ?4, credentials_by = ?5, roles_by = ?6,
                   roles_since = ?7, key = ?8, statement = ?9, credentials = ?10 WHERE id = ?1";
        let sealed = self.sealed_credentials(row)?;
        self.connection.prepare_cached(sql)?.execute(params![
            row.id,
            row.uid,
            row.roles,
            row.enabled,
            row.credentials_by,
            row.roles_by,
            row.roles_since,
            row.key,
            row.statement,
            sealed
        ])?;
        Ok(())
    }

    /// Keeps how the last try to show an account's password and code ended.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn keep_try(&self, row: &AccountRow) -> Result<(), CatalogError> {
        let sql = "UPDATE accounts SET last_step = ?2, failures = ?3, failed_at = ?4 WHERE id = ?1";
        let tried = params![row.id, row.last_step, row.failures, row.failed_at];
        self.connection.prepare_cached(sql)?.execute(tried)?;
        Ok(())
    }

    fn sealed_credentials(&self, row: &AccountRow) -> Result<Vec<u8>, CatalogError> {
        Ok(seal_bytes(&self.vault.derived(CREDENTIALS)?, &row.object(), &row.credentials)?)
    }
}
