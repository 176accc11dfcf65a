use std::collections::BTreeSet;

use moat_contracts::{DatasetId, Digest, Sweep};
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use crate::{Batch, Catalog, CatalogError};

/// A sweep as the catalog keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepRow {
    /// Its name.
    pub name: String,
    /// Position in the order of asking, from 1.
    pub number: i64,
    /// What was asked for.
    pub sweep: Sweep,
    /// Seconds since 1970 at which it was asked for.
    pub created: i64,
}

fn sweep(row: &SqlRow<'_>) -> Result<SweepRow, CatalogError> {
    let sweep = serde_json::from_str(&row.get::<_, String>(2)?);
    Ok(SweepRow {
        name: row.get(0)?,
        number: row.get(1)?,
        sweep: sweep.map_err(|_| CatalogError::Damaged { what: "sweep" })?,
        created: row.get(3)?,
    })
}

impl Catalog {
    /// All sweeps, in the order of asking.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn sweeps(&self) -> Result<Vec<SweepRow>, CatalogError> {
        let sql = "SELECT name, number, sweep, created FROM sweeps ORDER BY number";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(sweep(row)?);
        }
        Ok(found)
    }

    /// The names of a sweep's runs, in the order of its points.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn sweep_runs(&self, sweep: &str) -> Result<Vec<String>, CatalogError> {
        let sql = "SELECT run FROM sweep_runs WHERE sweep = ?1 ORDER BY point";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([sweep], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The names of all runs that belong to sweeps.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn swept(&self) -> Result<BTreeSet<String>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT run FROM sweep_runs")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The sweep that a run belongs to.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn sweep_of(&self, run: &str) -> Result<Option<String>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT sweep FROM sweep_runs WHERE run = ?1")?;
        Ok(statement.query_row([run], |row| row.get(0)).optional()?)
    }

    /// Dataset and base that the first run of a run's sweep took, if that belongs to one and any took them yet.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn sweep_began_with(&self, run: &str) -> Result<Option<(DatasetId, Option<Digest>)>, CatalogError> {
        let sql = "SELECT runs.dataset, runs.base FROM sweep_runs AS own
                   JOIN sweep_runs AS other ON other.sweep = own.sweep JOIN runs ON runs.name = other.run
                   WHERE own.run = ?1 AND runs.dataset IS NOT NULL ORDER BY runs.number LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([run], |row| {
            let dataset = DatasetId(Digest::from_bytes(row.get(0)?));
            Ok((dataset, row.get::<_, Option<[u8; 32]>>(1)?.map(Digest::from_bytes)))
        });
        Ok(found.optional()?)
    }
}

impl Batch<'_> {
    /// Writes a new sweep with its runs, which are written before it.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_sweep(&self, row: &SweepRow, runs: &[String]) -> Result<(), CatalogError> {
        let json = serde_json::to_string(&row.sweep).map_err(|_| CatalogError::Damaged { what: "sweep" })?;
        let sql = "INSERT INTO sweeps (name, number, sweep, created) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute(params![row.name, row.number, json, row.created])?;
        let sql = "INSERT INTO sweep_runs (sweep, point, run) VALUES (?1, ?2, ?3)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for (point, run) in runs.iter().enumerate() {
            statement.execute(params![row.name, i64::try_from(point).unwrap_or(i64::MAX), run])?;
        }
        Ok(())
    }
}
