use moat_contracts::{DocumentId, RecordId};
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use crate::documents::digest_at;
use crate::{Batch, Catalog, CatalogError, RowId};

/// Names all records with the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(i64);

/// Names a cluster of near-duplicate groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(i64);

/// All records with the same text that take part in the search for duplicates.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its number.
    pub group: GroupId,
    /// What its records hold.
    pub id: RecordId,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its first record by source, path and ordinal.
    pub first: RowId,
    /// The survivor that its records name as their twin, and how similar it is.
    pub shown: Option<(RowId, f64)>,
    /// MinHash signature; may be empty.
    pub signature: Vec<u32>,
}

/// A cluster of near-duplicate groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The record that goes into datasets for all of them.
    pub survivor: RowId,
    /// Number of groups.
    pub size: u64,
}

const GROUP: &str = "SELECT number, id, cluster, first, shown, similarity, signature FROM twin_groups";

fn group(row: &SqlRow<'_>) -> rusqlite::Result<Group> {
    let shown = row.get::<_, Option<i64>>(4)?.map(RowId).zip(row.get(5)?);
    Ok(Group {
        group: GroupId(row.get(0)?),
        id: RecordId(digest_at(row, 1)?),
        cluster: ClusterId(row.get(2)?),
        first: RowId(row.get(3)?),
        shown,
        signature: unpacked(&row.get::<_, Vec<u8>>(6)?),
    })
}

fn unpacked(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn packed(signature: &[u32]) -> Vec<u8> {
    signature.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Catalog {
    /// The group of a text.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn group(&self, id: RecordId) -> Result<Option<Group>, CatalogError> {
        let mut statement = self.connection.prepare_cached(&format!("{GROUP} WHERE id = ?1"))?;
        Ok(statement.query_row([id.0.as_bytes()], group).optional()?)
    }

    /// The signature of a group.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails or there is no such group.
    pub fn group_signature(&self, group: GroupId) -> Result<Vec<u32>, CatalogError> {
        let sql = "SELECT signature FROM twin_groups WHERE number = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([group.0], |row| Ok(unpacked(&row.get::<_, Vec<u8>>(0)?)))?)
    }

    /// All groups of a cluster, by number.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn groups_in(&self, cluster: ClusterId) -> Result<Vec<Group>, CatalogError> {
        let sql = format!("{GROUP} WHERE cluster = ?1 ORDER BY number");
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_map([cluster.0], group)?.collect::<Result<_, _>>()?)
    }

    /// The groups of a cluster whose records do not yet name this survivor, by number.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn groups_not_showing(
        &self,
        cluster: ClusterId,
        survivor: RowId,
    ) -> Result<Vec<Group>, CatalogError> {
        let other = "(shown IS NULL OR shown < ?2 OR shown > ?2)";
        let sql = format!("{GROUP} WHERE cluster = ?1 AND {other} ORDER BY number");
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_map([cluster.0, survivor.0], group)?.collect::<Result<_, _>>()?)
    }

    /// The next group under a band's hash, by cluster and number, after a given place; from the beginning where none
    /// is given.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn next_in_band(
        &self,
        hash: u64,
        after: Option<(ClusterId, Option<GroupId>)>,
    ) -> Result<Option<(ClusterId, GroupId)>, CatalogError> {
        let (cluster, number) = match after {
            None => (i64::MIN, i64::MIN),
            Some((cluster, None)) => (cluster.0, i64::MAX),
            Some((cluster, Some(group))) => (cluster.0, group.0),
        };
        let sql = "SELECT cluster, number FROM twin_bands WHERE hash = ?1 AND (cluster, number) > (?2, ?3)
                   ORDER BY cluster, number LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([hash.cast_signed(), cluster, number], |row| {
            Ok((ClusterId(row.get(0)?), GroupId(row.get(1)?)))
        });
        Ok(found.optional()?)
    }

    /// A cluster, while it has groups.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn cluster(&self, cluster: ClusterId) -> Result<Option<Cluster>, CatalogError> {
        let sql = "SELECT survivor, size FROM twin_clusters WHERE number = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &SqlRow<'_>| {
            Ok(Cluster { survivor: RowId(row.get(0)?), size: row.get::<_, i64>(1)?.cast_unsigned() })
        };
        Ok(statement.query_row([cluster.0], read).optional()?)
    }

    /// Source, path and ordinal of a record, by which survivors are chosen; `None` where it is gone.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn place(&self, row: RowId) -> Result<Option<(String, String, u32)>, CatalogError> {
        let sql =
            "SELECT source, opened_path(path, documents.id), ordinal FROM records JOIN documents ON records.document = documents.number
                   WHERE row = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([row.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?)
    }

    /// The first record with a text by source, path and ordinal, of those that were not dropped for themselves.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn first_with_id(&self, id: RecordId) -> Result<Option<RowId>, CatalogError> {
        let sql = "SELECT row FROM records JOIN documents ON records.document = documents.number
                   WHERE records.id = ?1 AND verdict <> 'dropped'
                   ORDER BY source, opened_path(path, documents.id), ordinal LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([id.0.as_bytes()], |row| row.get(0).map(RowId)).optional()?)
    }

    /// Whether any record with a text was not dropped for itself.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn takes_part(&self, id: RecordId) -> Result<bool, CatalogError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM records WHERE id = ?1 AND verdict <> 'dropped')";
        Ok(self.connection.prepare_cached(sql)?.query_row([id.0.as_bytes()], |row| row.get(0))?)
    }

    /// The first record of a cluster by source, path and ordinal, from the first ones of its groups.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn first_of_cluster(&self, cluster: ClusterId) -> Result<Option<RowId>, CatalogError> {
        let sql = "SELECT row FROM twin_groups JOIN records ON records.row = twin_groups.first
                   JOIN documents ON records.document = documents.number
                   WHERE cluster = ?1 ORDER BY source, opened_path(path, documents.id), ordinal LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([cluster.0], |row| row.get(0).map(RowId)).optional()?)
    }

    /// The records of a document that were not dropped for themselves, by ordinal.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn rows_taking_part(&self, document: DocumentId) -> Result<Vec<(RowId, RecordId)>, CatalogError> {
        let sql = "SELECT row, records.id FROM records JOIN documents ON records.document = documents.number
                   WHERE documents.id = ?1 AND verdict <> 'dropped' ORDER BY ordinal";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &SqlRow<'_>| Ok((RowId(row.get(0)?), RecordId(digest_at(row, 1)?)));
        Ok(statement.query_map([document.0.as_bytes()], read)?.collect::<Result<_, _>>()?)
    }

    /// Up to 1000 records that were not dropped for themselves, by number, after a given one, with their signatures.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn next_taking_part(
        &self,
        after: Option<RowId>,
    ) -> Result<Vec<(RowId, RecordId, Vec<u32>)>, CatalogError> {
        let sql = "SELECT row, id, signature FROM records WHERE row > ?1 AND verdict <> 'dropped'
                   ORDER BY row LIMIT 1000";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &SqlRow<'_>| {
            let signature = unpacked(&row.get::<_, Vec<u8>>(2)?);
            Ok((RowId(row.get(0)?), RecordId(digest_at(row, 1)?), signature))
        };
        let after = after.map_or(i64::MIN, |row| row.0);
        Ok(statement.query_map([after], read)?.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Says which record survives in a record's place, if any.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn set_twin(&self, row: RowId, twin: Option<(RowId, f64)>) -> Result<(), CatalogError> {
        let sql = "UPDATE records SET twin = ?2, similarity = ?3 WHERE row = ?1";
        let (survivor, similarity) = twin.unzip();
        let survivor = survivor.map(|row| row.0);
        self.connection.prepare_cached(sql)?.execute(params![row.0, survivor, similarity])?;
        Ok(())
    }

    /// Makes all records of a group name a survivor as their twin, but the survivor itself.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn show_survivor(&self, group: &Group, survivor: RowId, similarity: f64) -> Result<(), CatalogError> {
        let sql = "UPDATE twin_groups SET shown = ?2, similarity = ?3 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute(params![group.group.0, survivor.0, similarity])?;
        let sql = "UPDATE records SET twin = nullif(?2, row), similarity = CASE WHEN row <> ?2 THEN ?3 END
                   WHERE id = ?1 AND verdict <> 'dropped'";
        let id = group.id.0.as_bytes();
        self.connection.prepare_cached(sql)?.execute(params![id, survivor.0, similarity])?;
        Ok(())
    }

    /// Enters a new group into a cluster, under its bands' hashes.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_group(
        &self,
        id: RecordId,
        cluster: ClusterId,
        first: RowId,
        signature: &[u32],
        bands: &[u64],
    ) -> Result<(), CatalogError> {
        let sql = "INSERT INTO twin_groups (id, cluster, first, signature) VALUES (?1, ?2, ?3, ?4)";
        let values = params![id.0.as_bytes(), cluster.0, first.0, packed(signature)];
        self.connection.prepare_cached(sql)?.execute(values)?;
        self.put_twin_bands(GroupId(self.connection.last_insert_rowid()), cluster, bands)?;
        self.grow_cluster(cluster, 1)
    }

    /// Takes a group out of its cluster and of the bands, which must be those that it was entered under. A cluster
    /// without groups vanishes.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn delete_group(&self, group: &Group, bands: &[u64]) -> Result<(), CatalogError> {
        self.delete_twin_bands(group.group, group.cluster, bands)?;
        let sql = "DELETE FROM twin_groups WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute([group.group.0])?;
        self.grow_cluster(group.cluster, -1)
    }

    /// Moves a group and its bands to another cluster.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn move_group(&self, group: &Group, to: ClusterId, bands: &[u64]) -> Result<(), CatalogError> {
        self.delete_twin_bands(group.group, group.cluster, bands)?;
        let sql = "UPDATE twin_groups SET cluster = ?2 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute([group.group.0, to.0])?;
        self.put_twin_bands(group.group, to, bands)?;
        self.grow_cluster(group.cluster, -1)?;
        self.grow_cluster(to, 1)
    }

    /// Notes a group's first record.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn set_first(&self, group: GroupId, first: RowId) -> Result<(), CatalogError> {
        let sql = "UPDATE twin_groups SET first = ?2 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute([group.0, first.0])?;
        Ok(())
    }

    /// Begins a cluster that has no groups yet.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn new_cluster(&self, survivor: RowId) -> Result<ClusterId, CatalogError> {
        let sql = "INSERT INTO twin_clusters (survivor, size) VALUES (?1, 0)";
        self.connection.prepare_cached(sql)?.execute([survivor.0])?;
        Ok(ClusterId(self.connection.last_insert_rowid()))
    }

    /// Notes a cluster's survivor.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn set_survivor(&self, cluster: ClusterId, survivor: RowId) -> Result<(), CatalogError> {
        let sql = "UPDATE twin_clusters SET survivor = ?2 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute([cluster.0, survivor.0])?;
        Ok(())
    }

    /// Forgets all groups, clusters and twins.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn forget_twins(&self) -> Result<(), CatalogError> {
        self.connection.execute_batch(
            "DELETE FROM twin_bands; DELETE FROM twin_groups; DELETE FROM twin_clusters;
             UPDATE records SET twin = NULL, similarity = NULL WHERE twin IS NOT NULL",
        )?;
        Ok(())
    }

    fn grow_cluster(&self, cluster: ClusterId, by: i64) -> Result<(), CatalogError> {
        let sql = "UPDATE twin_clusters SET size = size + ?2 WHERE number = ?1";
        self.connection.prepare_cached(sql)?.execute([cluster.0, by])?;
        if by < 0 {
            let sql = "DELETE FROM twin_clusters WHERE number = ?1 AND size <= 0";
            self.connection.prepare_cached(sql)?.execute([cluster.0])?;
        }
        Ok(())
    }

    fn put_twin_bands(&self, group: GroupId, cluster: ClusterId, bands: &[u64]) -> Result<(), CatalogError> {
        let sql = "INSERT OR IGNORE INTO twin_bands (hash, cluster, number) VALUES (?1, ?2, ?3)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for band in bands {
            statement.execute([band.cast_signed(), cluster.0, group.0])?;
        }
        Ok(())
    }

    fn delete_twin_bands(
        &self,
        group: GroupId,
        cluster: ClusterId,
        bands: &[u64],
    ) -> Result<(), CatalogError> {
        let sql = "DELETE FROM twin_bands WHERE hash = ?1 AND cluster = ?2 AND number = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        for band in bands {
            statement.execute([band.cast_signed(), cluster.0, group.0])?;
        }
        Ok(())
    }
}
