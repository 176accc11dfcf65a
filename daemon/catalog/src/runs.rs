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
    /// Processor cores that the engine kept busy, over the step.
    pub cores: f64,
}

/// What neighbouring steps measured; all three rows bear the number of the last of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinedRow {
    /// How many there are.
    pub steps: u64,
    /// The mean of each value.
    pub mean: StepRow,
    /// The lowest of each.
    pub low: StepRow,
    /// The highest of each.
    pub high: StepRow,
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

/// What is measured of a step, and whether it is counted in whole numbers.
const MEASURED: [(&str, bool); 8] = [
    ("loss", false),
    ("gradient_norm", false),
    ("learning_rate", false),
    ("tokens", true),
    ("tokens_per_second", false),
    ("memory", true),
    ("seconds_left", false),
    ("cores", false),
];

/// A step's values, which begin at a column.
fn measured(row: &SqlRow<'_>, step: u64, at: usize) -> rusqlite::Result<StepRow> {
    Ok(StepRow {
        step,
        loss: row.get(at)?,
        gradient_norm: row.get(at + 1)?,
        learning_rate: row.get(at + 2)?,
        tokens: row.get::<_, i64>(at + 3)?.cast_unsigned(),
        tokens_per_second: row.get(at + 4)?,
        memory: row.get::<_, i64>(at + 5)?.cast_unsigned(),
        seconds_left: row.get(at + 6)?,
        cores: row.get(at + 7)?,
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

    /// The number of the run that was asked for last; 0 where there is none.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn last_run(&self) -> Result<i64, CatalogError> {
        let mut statement = self.connection.prepare_cached("SELECT coalesce(max(number), 0) FROM runs")?;
        Ok(statement.query_row([], |row| row.get(0))?)
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
        self.steps_after(run, 0, u64::MAX)
    }

    /// As [`Self::steps`], of those after a step, at most so many.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn steps_after(&self, run: &str, after: u64, most: u64) -> Result<Vec<StepRow>, CatalogError> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let columns = MEASURED.map(|(name, _)| name).join(", ");
        let sql =
            format!("SELECT step, {columns} FROM steps WHERE run = ?1 AND step > ?2 ORDER BY step LIMIT ?3");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![run, number(after), number(most)], |row| {
            measured(row, row.get::<_, i64>(0)?.cast_unsigned(), 1)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a run's steps measured, in order, `width` neighbours joined to one.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn joined_steps(&self, run: &str, width: u64) -> Result<Vec<JoinedRow>, CatalogError> {
        let of = |function: &str| {
            let each = |(name, whole): (&str, bool)| match whole {
                true => format!("CAST({function}({name}) AS INTEGER)"),
                false => format!("{function}({name})"),
            };
            MEASURED.map(each).join(", ")
        };
        let sql = format!(
            "SELECT max(step), count(*), {}, {}, {} FROM steps WHERE run = ?1 GROUP BY (step - 1) / ?2 ORDER BY 1",
            of("avg"),
            of("min"),
            of("max")
        );
        let width = i64::try_from(width.max(1)).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![run, width], |row| {
            let step = row.get::<_, i64>(0)?.cast_unsigned();
            let part = |number: usize| measured(row, step, 2 + number * MEASURED.len());
            let steps = row.get::<_, i64>(1)?.cast_unsigned();
            Ok(JoinedRow { steps, mean: part(0)?, low: part(1)?, high: part(2)? })
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
                   memory, seconds_left, cores) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
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
                step.cores,
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
