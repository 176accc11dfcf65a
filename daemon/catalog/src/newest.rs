use rusqlite::OptionalExtension;

use crate::{Catalog, CatalogError};

/// The newest step of a run, as far as it tells how fast the run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewestStep {
    /// Its number.
    pub step: u64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Seconds until the last step, as it was judged then.
    pub seconds_left: f64,
}

impl Catalog {
    /// The last step that was kept of a run, with its pace.
    ///
    /// # Errors
    /// [`CatalogError`] where reading fails.
    pub fn newest_step(&self, run: &str) -> Result<Option<NewestStep>, CatalogError> {
        let sql = "SELECT step, tokens_per_second, seconds_left FROM steps WHERE run = ?1
                   ORDER BY step DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let newest = statement.query_row([run], |row| {
            Ok(NewestStep {
                step: row.get::<_, i64>(0)?.cast_unsigned(),
                tokens_per_second: row.get(1)?,
                seconds_left: row.get(2)?,
            })
        });
        Ok(newest.optional()?)
    }
}
