//! What became of each source's documents, counted once for every change: every page shows it, and a million documents take
//! seconds to count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moat_catalog::{Catalog, SourceCounts};

use crate::failure::Failure;
use crate::state::State;

/// Counts by source.
pub(crate) type BySource = Arc<BTreeMap<String, SourceCounts>>;

/// What takes longer to count is shown as it last was while it is counted again.
const PATIENCE: Duration = Duration::from_millis(50);

/// The counts, and a connection of their own, by which they know whether anything changed.
#[derive(Default)]
pub(crate) struct Counts {
    counter: Mutex<Option<Catalog>>,
    last: Mutex<Option<Last>>,
}

struct Last {
    /// The catalog's version on the counter's connection.
    version: i64,
    took: Duration,
    all: BySource,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    /// What the catalog holds now.
    pub(crate) fn exact(&self, state: &State, sources: &[String]) -> Result<BySource, Failure> {
        let mut counter = lock(&self.counter);
        let catalog = match &mut *counter {
            Some(catalog) => catalog,
            none => none.insert(state.catalog()?),
        };
        self.count(catalog, sources)
    }

    /// What the catalog holds now, or held a moment ago where counting takes long.
    pub(crate) fn recent(self: &Arc<Self>, state: &State, sources: &[String]) -> Result<BySource, Failure> {
        let known =
            |last: &&Last| last.took > PATIENCE && sources.iter().all(|name| last.all.contains_key(name));
        let Some((version, all)) =
            lock(&self.last).as_ref().filter(known).map(|last| (last.version, last.all.clone()))
        else {
            return self.exact(state, sources);
        };
        // Where the counter is taken, somebody counts already.
        let Ok(counter) = self.counter.try_lock() else { return Ok(all) };
        let Some(catalog) = counter.as_ref() else { return Ok(all) };
        if catalog.version()? != version {
            let (counts, sources) = (self.clone(), sources.to_vec());
            std::thread::spawn(move || counts.again(&sources));
        }
        Ok(all)
    }

    fn again(&self, sources: &[String]) {
        let counter = lock(&self.counter);
        // What fails here is forgotten, so that whoever asks next counts, and hears why.
        if let Some(catalog) = counter.as_ref()
            && self.count(catalog, sources).is_err()
        {
            *lock(&self.last) = None;
        }
    }

    fn count(&self, catalog: &Catalog, sources: &[String]) -> Result<BySource, Failure> {
        let version = catalog.version()?;
        let counted =
            |last: &&Last| last.version == version && sources.iter().all(|name| last.all.contains_key(name));
        if let Some(last) = lock(&self.last).as_ref().filter(counted) {
            return Ok(last.all.clone());
        }
        let began = Instant::now();
        let count = |name: &String| Ok((name.clone(), catalog.source_counts(name)?));
        let all: BySource = Arc::new(sources.iter().map(count).collect::<Result<_, Failure>>()?);
        *lock(&self.last) = Some(Last { version, took: began.elapsed(), all: all.clone() });
        Ok(all)
    }

    /// Forgets everything, and lets go of the catalog.
    pub(crate) fn forget(&self) {
        *lock(&self.counter) = None;
        *lock(&self.last) = None;
    }
}
