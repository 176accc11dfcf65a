use moat_contracts::{DatasetId, Digest, MemoryPlan, Proof, Recipe, Survey};
use moat_vault::{DataKey, WrappedKey};
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use crate::{Batch, Catalog, CatalogError};

/// A run as the catalog keeps it. States and outcomes are the scheduler's words and JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The recipe's name and a number.
    pub name: String,
    /// Position in the order of asking, from 1.
    pub number: i64,
    /// The scheduler's word for where it stands.
    pub state: String,
    /// Why it failed or stopped.
    pub message: Option<String>,
    /// Its recipe.
    pub recipe: Recipe,
    /// Its dataset, once built.
    pub dataset: Option<DatasetId>,
    /// Hash of its base, once found.
    pub base: Option<Digest>,
    /// Seconds since 1970 at which it was asked for.
    pub created: i64,
    /// How training ended, as JSON.
    pub outcome: Option<String>,
    /// The edge report, as JSON.
    pub edge: Option<String>,
    /// Optimiser steps in all, once planned; written by [`Batch::put_planned`] alone.
    pub planned: Option<u64>,
}

/// What one optimiser step measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRow {
    /// Its number, from 1.
    pub step: u64,
    /// Mean loss, nats a token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens a second, over the step; 0 where it was not told, as below.
    pub tokens_per_second: f64,
    /// Peak resident memory of the engine so far, bytes.
    pub memory: u64,
    /// Seconds until the last step, as it was judged then.
    pub seconds_left: f64,
}

/// What one look at the validation side measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidationRow {
    /// Steps done.
    pub step: u64,
    /// Mean loss, nats a token.
    pub loss: f64,
    /// Whether it was a gain.
    pub gain: bool,
}

const COLUMNS: &str = "name, number, state, message, recipe, dataset, base, created, outcome, edge";

fn run(row: &SqlRow<'_>) -> Result<RunRow, CatalogError> {
    let recipe = serde_json::from_str(&row.get::<_, String>(4)?);
    Ok(RunRow {
        name: row.get(0)?,
        number: row.get(1)?,
        state: row.get(2)?,
        message: row.get(3)?,
        recipe: recipe.map_err(|_| CatalogError::Damaged { what: "recipe" })?,
        dataset: row.get::<_, Option<[u8; 32]>>(5)?.map(|id| DatasetId(Digest::from_bytes(id))),
        base: row.get::<_, Option<[u8; 32]>>(6)?.map(Digest::from_bytes),
        created: row.get(7)?,
        outcome: row.get(8)?,
        edge: row.get(9)?,
        planned: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
    })
}

impl Catalog {
    /// All runs, in the order of asking.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn runs(&self) -> Result<Vec<RunRow>, CatalogError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS}, planned FROM runs ORDER BY number"))?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(run(row)?);
        }
        Ok(found)
    }

    /// One run by its whole name.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn run(&self, name: &str) -> Result<Option<RunRow>, CatalogError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS}, planned FROM runs WHERE name = ?1"))?;
        let mut rows = statement.query([name])?;
        rows.next()?.map(run).transpose()
    }

    /// What a run's steps measured, in order.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn steps(&self, run: &str) -> Result<Vec<StepRow>, CatalogError> {
        let sql =
            "SELECT step, loss, gradient_norm, learning_rate, tokens, tokens_per_second, memory, seconds_left
                   FROM steps WHERE run = ?1 ORDER BY step";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([run], |row| {
            Ok(StepRow {
                step: row.get::<_, i64>(0)?.cast_unsigned(),
                loss: row.get(1)?,
                gradient_norm: row.get(2)?,
                learning_rate: row.get(3)?,
                tokens: row.get::<_, i64>(4)?.cast_unsigned(),
                tokens_per_second: row.get(5)?,
                memory: row.get::<_, i64>(6)?.cast_unsigned(),
                seconds_left: row.get(7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The last step that was kept of a run.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn last_step(&self, run: &str) -> Result<Option<u64>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT max(step) FROM steps WHERE run = ?1")?;
        let last: Option<i64> = statement.query_row([run], |row| row.get(0))?;
        Ok(last.map(i64::cast_unsigned))
    }

    /// What a run's looks at its validation side measured, in order.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn validations(&self, run: &str) -> Result<Vec<ValidationRow>, CatalogError> {
        let sql = "SELECT step, loss, gain FROM validations WHERE run = ?1 ORDER BY step";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([run], |row| {
            Ok(ValidationRow {
                step: row.get::<_, i64>(0)?.cast_unsigned(),
                loss: row.get(1)?,
                gain: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Catalog {
    /// What a run trains on and takes of memory, once it told.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn survey(&self, run: &str) -> Result<Option<(Survey, MemoryPlan)>, CatalogError> {
        let mut statement =
            self.connection.prepare_cached("SELECT survey, memory FROM runs WHERE name = ?1")?;
        let found = statement
            .query_row([run], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?)))
            .optional()?;
        let Some((Some(survey), Some(memory))) = found else { return Ok(None) };
        let damaged = |_| CatalogError::Damaged { what: "survey" };
        let survey = serde_json::from_str(&survey).map_err(damaged)?;
        Ok(Some((survey, serde_json::from_str(&memory).map_err(damaged)?)))
    }

    /// What was proven of a run, in the order of the claims.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn proofs(&self, run: &str) -> Result<Vec<Proof>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT proof FROM proofs WHERE run = ?1")?;
        let rows = statement.query_map([run], |row| row.get::<_, String>(0))?;
        let mut proofs: Vec<Proof> = Vec::new();
        for row in rows {
            proofs.push(serde_json::from_str(&row?).map_err(|_| CatalogError::Damaged { what: "proof" })?);
        }
        proofs.sort_by_key(|proof| proof.claim);
        Ok(proofs)
    }
}

/// The name under which the vault knows a run's folder.
pub(crate) fn run_object(name: &str) -> String {
    format!("run/{name}")
}

impl Catalog {
    /// The key of a run's folder; `None` for a run that is not known or whose key was erased.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails or the vault is sealed.
    pub fn run_key(&self, name: &str) -> Result<Option<DataKey>, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT key FROM runs WHERE name = ?1")?;
        let found = statement.query_row([name], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()?;
        let Some(wrapped) = found.flatten() else { return Ok(None) };
        Ok(Some(self.vault.unwrap(&run_object(name), &WrappedKey::from_bytes(&wrapped)?)?))
    }
}

impl Batch<'_> {
    /// Gives a run's folder a new key, in place of any before it.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails or the vault is sealed.
    pub fn new_run_key(&self, name: &str) -> Result<DataKey, CatalogError> {
        let (key, wrapped) = self.vault.new_key(&run_object(name))?;
        let sql = "UPDATE runs SET key = ?2, root = ?3 WHERE name = ?1";
        self.connection.prepare_cached(sql)?.execute(params![
            name,
            wrapped.as_bytes(),
            wrapped.generation()
        ])?;
        Ok(key)
    }

    /// Writes a run, new or not.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_run(&self, run: &RunRow) -> Result<(), CatalogError> {
        let sql = format!(
            "INSERT INTO runs ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (name) DO UPDATE SET state = excluded.state, message = excluded.message,
             dataset = excluded.dataset, base = excluded.base, outcome = excluded.outcome, edge = excluded.edge"
        );
        let recipe =
            serde_json::to_string(&run.recipe).map_err(|_| CatalogError::Damaged { what: "recipe" })?;
        self.connection.prepare_cached(&sql)?.execute(params![
            run.name,
            run.number,
            run.state,
            run.message,
            recipe,
            run.dataset.as_ref().map(|id| id.0.as_bytes()),
            run.base.as_ref().map(Digest::as_bytes),
            run.created,
            run.outcome,
            run.edge,
        ])?;
        Ok(())
    }

    /// Writes what steps measured; a step that is repeated after a restart replaces itself.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_steps(&self, run: &str, steps: &[StepRow]) -> Result<(), CatalogError> {
        let sql = "INSERT OR REPLACE INTO steps (run, step, loss, gradient_norm, learning_rate, tokens, tokens_per_second,
                   memory, seconds_left) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for step in steps {
            let (number, tokens) = (step.step.cast_signed(), step.tokens.cast_signed());
            statement.execute(params![
                run,
                number,
                step.loss,
                step.gradient_norm,
                step.learning_rate,
                tokens,
                step.tokens_per_second,
                step.memory.cast_signed(),
                step.seconds_left,
            ])?;
        }
        Ok(())
    }

    /// Writes what looks at the validation side measured; one that is repeated after a restart replaces itself.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_validations(&self, run: &str, validations: &[ValidationRow]) -> Result<(), CatalogError> {
        let sql = "INSERT OR REPLACE INTO validations (run, step, loss, gain) VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for ValidationRow { step, loss, gain } in validations {
            statement.execute(params![run, step.cast_signed(), loss, gain])?;
        }
        Ok(())
    }

    /// Writes what a run trains on and takes of memory.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_survey(&self, run: &str, survey: &Survey, memory: &MemoryPlan) -> Result<(), CatalogError> {
        let failed = |_| CatalogError::Damaged { what: "survey" };
        let survey = serde_json::to_string(survey).map_err(failed)?;
        let memory = serde_json::to_string(memory).map_err(failed)?;
        let sql = "UPDATE runs SET survey = ?2, memory = ?3 WHERE name = ?1";
        self.connection.prepare_cached(sql)?.execute(params![run, survey, memory])?;
        Ok(())
    }

    /// Writes what was proven of a run; a claim that is proven again after a restart replaces itself.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_proofs(&self, run: &str, proofs: &[Proof]) -> Result<(), CatalogError> {
        let sql = "INSERT OR REPLACE INTO proofs (run, claim, proof) VALUES (?1, ?2, ?3)";
        let mut statement = self.connection.prepare_cached(sql)?;
        for proof in proofs {
            let json = serde_json::to_string(proof).map_err(|_| CatalogError::Damaged { what: "proof" })?;
            statement.execute(params![run, proof.claim.word(), json])?;
        }
        Ok(())
    }

    /// Writes how many optimiser steps a run will take.
    ///
    /// # Errors
    /// [`CatalogError`] where writing fails.
    pub fn put_planned(&self, run: &str, steps: u64) -> Result<(), CatalogError> {
        let sql = "UPDATE runs SET planned = ?2 WHERE name = ?1";
        self.connection.prepare_cached(sql)?.execute(params![run, steps.cast_signed()])?;
        Ok(())
    }
}
