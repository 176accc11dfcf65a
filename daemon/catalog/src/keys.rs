use moat_vault::{open_bytes, seal_bytes};
use rusqlite::{OptionalExtension, params};

use crate::{Batch, Catalog, CatalogError};

const MARK: &str = "API key";

/// An API key as the catalog keeps it: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// The id of the account that it acts for.
    pub owner: String,
    /// The acts that it is for, with commas between.
    pub scope: String,
    /// Seconds since 1970.
    pub created: i64,
    /// From when on it is void.
    pub expires: i64,
    /// Since when it is revoked.
    pub revoked: Option<i64>,
}

impl ApiKeyRow {
    /// What its mark seals, so that a row that was changed in the file counts no more.
    fn object(&self) -> String {
        let Self { hash, name, owner, scope, created, expires, .. } = self;
        format!("key/{:?}", (hash, name, owner, scope, created, expires))
    }
}

impl Catalog {
    /// All API keys, oldest first.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails, the vault is sealed, or a row is not as Moat wrote it.
    pub fn api_keys(&self) -> Result<Vec<ApiKeyRow>, CatalogError> {
        let sql = "SELECT hash, name, owner, scope, created, expires, revoked, mark FROM api_keys
                   ORDER BY created, name";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            let key = ApiKeyRow {
                hash: row.get(0)?,
                name: row.get(1)?,
                owner: row.get(2)?,
                scope: row.get(3)?,
                created: row.get(4)?,
                expires: row.get(5)?,
                revoked: row.get(6)?,
            };
            Ok((key, row.get::<_, Vec<u8>>(7)?))
        })?;
        let seal = self.vault.derived(MARK)?;
        rows.map(|row| {
            let (key, mark) = row?;
            open_bytes(&seal, &key.object(), &mark).map_err(|_| CatalogError::Damaged { what: "API key" })?;
            Ok(key)
        })
        .collect()
    }

    /// Bytes of completions that a key was served on a day, counted from 1970.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn served(&self, key: &[u8; 32], day: i64) -> Result<u64, CatalogError> {
        let sql = "SELECT bytes FROM served WHERE key = ?1 AND day = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let bytes = statement.query_row(params![key, day], |row| row.get::<_, i64>(0)).optional()?;
        Ok(bytes.unwrap_or(0).cast_unsigned())
    }
}

impl Batch<'_> {
    /// Keeps a new key.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn add_api_key(&self, key: &ApiKeyRow) -> Result<(), CatalogError> {
        let mark = seal_bytes(&self.vault.derived(MARK)?, &key.object(), b"")?;
        let sql = "INSERT INTO api_keys (hash, name, owner, scope, created, expires, mark)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.connection.prepare_cached(sql)?.execute(params![
            key.hash,
            key.name,
            key.owner,
            key.scope,
            key.created,
            key.expires,
            mark
        ])?;
        Ok(())
    }

    /// Revokes a key for good.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn revoke_api_key(&self, hash: &[u8; 32], at: i64) -> Result<(), CatalogError> {
        let sql = "UPDATE api_keys SET revoked = ?2 WHERE hash = ?1 AND revoked IS NULL";
        self.connection.prepare_cached(sql)?.execute(params![hash, at])?;
        Ok(())
    }

    /// Adds bytes of completions to what a key was served on a day, and gives the sum.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn serve(&self, key: &[u8; 32], day: i64, bytes: u64) -> Result<u64, CatalogError> {
        let sql = "INSERT INTO served (key, day, bytes) VALUES (?1, ?2, ?3)
                   ON CONFLICT (key, day) DO UPDATE SET bytes = bytes + excluded.bytes";
        self.connection.prepare_cached(sql)?.execute(params![key, day, bytes.cast_signed()])?;
        self.served(key, day)
    }
}
