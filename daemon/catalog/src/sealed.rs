//! What the catalog seals, and how it still finds it. Paths and readers are sealed under a key that the vault derives;
//! a path is found by its look-up tag, a folder's documents by the tags of its folders. A text has a key of its own,
//! kept wrapped beside it, so that a deleted text's key is gone with it.

use std::sync::Arc;

use moat_contracts::{Digest, DocumentId, RecordId};
use moat_vault::{Vault, WrappedKey, open_bytes, seal_bytes};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{Batch, CatalogError};

const PATH: &str = "catalog path";
const READERS: &str = "catalog readers";
const FOLDER: &str = "catalog folder";

/// What a look-up tag is.
pub(crate) type Tag = [u8; 16];

/// Makes `opened_path(path, id)` known to a connection: SQL must order by paths.
pub(crate) fn register(connection: &Connection, vault: &Arc<Vault>) -> Result<(), CatalogError> {
    let vault = vault.clone();
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("opened_path", 2, flags, move |context: &Context<'_>| {
        let sealed = context.get_raw(0).as_blob()?;
        let id = DocumentId(Digest::from_bytes(context.get::<[u8; 32]>(1)?));
        open_path(&vault, id, sealed).map_err(|error| rusqlite::Error::UserFunctionError(Box::new(error)))
    })?;
    Ok(())
}

/// A path's sealed form.
pub(crate) fn seal_path(vault: &Vault, id: DocumentId, path: &str) -> Result<Vec<u8>, CatalogError> {
    Ok(seal_bytes(&vault.derived(PATH)?, &id.to_string(), path.as_bytes())?)
}

/// The path in its sealed form.
pub(crate) fn open_path(vault: &Vault, id: DocumentId, sealed: &[u8]) -> Result<String, CatalogError> {
    let path = open_bytes(&vault.derived(PATH)?, &id.to_string(), sealed)?;
    String::from_utf8(path).map_err(|_| CatalogError::Damaged { what: "path" })
}

/// What a path is found by, whatever its source.
pub(crate) fn path_tag(vault: &Vault, path: &str) -> Result<Tag, CatalogError> {
    Ok(vault.lookup(PATH, path.as_bytes())?)
}

/// A list of readers in its sealed form.
pub(crate) fn seal_readers(
    vault: &Vault,
    id: DocumentId,
    readers: &[String],
) -> Result<Vec<u8>, CatalogError> {
    let json = serde_json::to_vec(readers).map_err(|_| CatalogError::Damaged { what: "list of readers" })?;
    Ok(seal_bytes(&vault.derived(READERS)?, &id.to_string(), &json)?)
}

/// The list of readers in its sealed form.
pub(crate) fn open_readers(
    vault: &Vault,
    id: DocumentId,
    sealed: &[u8],
) -> Result<Vec<String>, CatalogError> {
    let json = open_bytes(&vault.derived(READERS)?, &id.to_string(), sealed)?;
    serde_json::from_slice(&json).map_err(|_| CatalogError::Damaged { what: "list of readers" })
}

/// A text's new key, wrapped, and its compressed body under it.
pub(crate) fn seal_text(
    vault: &Vault,
    id: RecordId,
    body: &str,
) -> Result<(WrappedKey, Vec<u8>), CatalogError> {
    let object = text_object(id.0);
    let (key, wrapped) = vault.new_key(&object)?;
    let packed = zstd::bulk::compress(body.as_bytes(), 1)?;
    Ok((wrapped, seal_bytes(&key, &object, &packed)?))
}

/// The text under its wrapped key.
pub(crate) fn open_text(
    vault: &Vault,
    id: RecordId,
    wrapped: &[u8],
    sealed: &[u8],
) -> Result<String, CatalogError> {
    let object = text_object(id.0);
    let key = vault.unwrap(&object, &WrappedKey::from_bytes(wrapped)?)?;
    let bytes = zstd::stream::decode_all(open_bytes(&key, &object, sealed)?.as_slice())?;
    String::from_utf8(bytes).map_err(|_| CatalogError::Damaged { what: "text" })
}

fn text_object(id: Digest) -> String {
    format!("text/{id}")
}

/// The tag of a folder of a source: `""` for its root, else ending in `/`.
pub(crate) fn folder_tag(vault: &Vault, source: &str, folder: &str) -> Result<Tag, CatalogError> {
    Ok(vault.lookup(FOLDER, format!("{source}\0{folder}").as_bytes())?)
}

/// The folder that a path lies in.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

impl Batch<'_> {
    /// The tag of the folder that a path lies in, known with all folders above it.
    pub(crate) fn put_folder(&self, source: &str, path: &str) -> Result<Tag, CatalogError> {
        let mut folder = folder_of(path);
        let tag = folder_tag(&self.vault, source, folder)?;
        let mut own = tag;
        while !folder.is_empty() {
            let sql = "SELECT EXISTS (SELECT 1 FROM folders WHERE tag = ?1)";
            if self.connection.prepare_cached(sql)?.query_row([own], |row| row.get(0))? {
                break;
            }
            folder = folder_of(folder.trim_end_matches('/'));
            let above = folder_tag(&self.vault, source, folder)?;
            let sql = "INSERT INTO folders (tag, above) VALUES (?1, ?2)";
            self.connection.prepare_cached(sql)?.execute([own, above])?;
            own = above;
        }
        Ok(tag)
    }

    /// Wraps keys of texts and runs under the vault's newest root, `limit` of each at most. Gives how many were not
    /// under it yet: 0 once all are.
    ///
    /// # Errors
    /// [`CatalogError`] where reading or writing fails.
    pub fn rewrap(&self, limit: usize) -> Result<usize, CatalogError> {
        let newest = self.vault.generation()?;
        let texts =
            self.rewrap_in("texts", "id", newest, limit, |id: [u8; 32]| text_object(Digest::from_bytes(id)))?;
        let runs =
            self.rewrap_in("runs", "name", newest, limit, |name: String| crate::runs::run_object(&name))?;
        Ok(texts + runs)
    }

    fn rewrap_in<T: rusqlite::types::FromSql + rusqlite::types::ToSql + Clone>(
        &self,
        table: &str,
        id: &str,
        newest: u32,
        limit: usize,
        object: impl Fn(T) -> String,
    ) -> Result<usize, CatalogError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = format!("SELECT {id}, key FROM {table} WHERE key IS NOT NULL AND root < ?1 LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let found: Vec<(T, Vec<u8>)> = statement
            .query_map(params![newest, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let sql = format!("UPDATE {table} SET key = ?2, root = ?3 WHERE {id} = ?1");
        let mut update = self.connection.prepare_cached(&sql)?;
        for (id, key) in &found {
            let wrapped = WrappedKey::from_bytes(key)?;
            let key = self.vault.rewrap(&object(id.clone()), &wrapped)?.unwrap_or(wrapped);
            update.execute(params![id, key.as_bytes(), key.generation()])?;
        }
        Ok(found.len())
    }

    /// The oldest generation of the root that a key of the catalog is still wrapped under.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn oldest_root(&self) -> Result<Option<u32>, CatalogError> {
        let sql = "SELECT min(root) FROM (SELECT min(root) AS root FROM texts UNION ALL SELECT min(root) FROM runs)";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.flatten())
    }
}
