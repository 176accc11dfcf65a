use moat_catalog::{Batch, Catalog, Known};
use moat_contracts::{DocumentState, Record, TextFault};
use moat_curate::Compiled;
use moat_curate::duplicates::{Change as Clusters, CurateError};
use moat_extract::Limits;
use moat_ledger::{Act, Ledger, Phase, Who};
use moat_sources::Change;
use rayon::prelude::*;
use tracing::debug;

use crate::failure::Failure;
use crate::record;

/// Changes that are committed together: enough to share one fsync, few enough to bound memory.
const BATCH_CHANGES: usize = 512;
const BATCH_BYTES: usize = 16 << 20;

/// Takes a source's changes to records: extracts and curates side by side, commits document and records together.
///
/// What is not committed when the daemon is killed is emitted again by the next scan, for the catalog does not know it.
pub(crate) struct Pipeline<'a> {
    catalog: Catalog,
    rules: &'a Compiled,
    ledger: &'a Ledger,
    source: &'a str,
    pending: Vec<Change>,
    pending_bytes: usize,
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
}

/// A change with the work that needs no catalog already done.
enum Prepared {
    Curated(Known, Vec<Record>, Vec<TextFault>),
    Restamped(Known),
    Skipped(Known, Vec<TextFault>),
    Gone(moat_contracts::DocumentId),
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(catalog: Catalog, rules: &'a Compiled, ledger: &'a Ledger, source: &'a str) -> Self {
        Self { catalog, rules, ledger, source, pending: Vec::new(), pending_bytes: 0, documents: 0, bytes: 0 }
    }

    /// Takes one change in; commits where enough wait.
    pub(crate) fn push(&mut self, change: Change) -> Result<(), Failure> {
        if let Change::Arrived { bytes, .. } = &change {
            self.pending_bytes += bytes.len();
        }
        self.pending.push(change);
        if self.pending.len() >= BATCH_CHANGES || self.pending_bytes >= BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Commits what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.pending);
        self.documents += changes.len() as u64;
        self.bytes += std::mem::take(&mut self.pending_bytes) as u64;
        let rules = self.rules;
        let prepared: Vec<_> = changes.into_par_iter().map(|change| prepare(rules, change)).collect();
        let gone = prepared.iter().filter(|change| matches!(change, Prepared::Gone(_))).count();
        let act = Act::new(Who::daemon(), "source.take-in", Phase::Intent)
            .on("source", self.source)
            .detail("changes", prepared.len())
            .detail("gone", gone);
        record::recorded(self.ledger, &act, || {
            let batch = self.catalog.write()?;
            let mut clusters = Clusters::begin(&batch, rules).map_err(Failure::internal)?;
            for change in &prepared {
                apply(&batch, &mut clusters, change).map_err(Failure::internal)?;
            }
            clusters.settle().map_err(Failure::internal)?;
            batch.commit()?;
            Ok(())
        })
    }
}

fn prepare(rules: &Compiled, change: Change) -> Prepared {
    match change {
        Change::Arrived { mut known, bytes } => {
            known.rules = Some(rules.hash());
            match moat_extract::extract(&known.document.path, &bytes, &Limits::default()) {
                Ok(extracted) => {
                    let records = moat_curate::curate(rules, known.document.id, &extracted.texts);
                    Prepared::Curated(known, records, extracted.faults)
                }
                Err(error) => {
                    debug!("document {}: {error}", known.document.id);
                    (known.state, known.skip) = (DocumentState::Skipped, Some(error.skip()));
                    Prepared::Skipped(known, error.fault().into_iter().collect())
                }
            }
        }
        Change::Restamped { known } => Prepared::Restamped(known),
        Change::Skipped { known } => Prepared::Skipped(known, Vec::new()),
        Change::Gone { id, .. } => Prepared::Gone(id),
    }
}

fn apply(batch: &Batch<'_>, clusters: &mut Clusters<'_>, change: &Prepared) -> Result<(), CurateError> {
    match change {
        Prepared::Curated(known, records, faults) => {
            batch.put_document(known)?;
            batch.put_faults(known.document.id, faults)?;
            clusters.store(known.document.id, records)?;
        }
        Prepared::Restamped(known) => {
            batch.put_document(known)?;
            // Which record of a cluster survives depends on its path.
            clusters.renamed(known.document.id)?;
        }
        Prepared::Skipped(known, faults) => {
            batch.put_document(known)?;
            batch.put_faults(known.document.id, faults)?;
            clusters.remove(known.document.id)?;
        }
        Prepared::Gone(id) => {
            clusters.remove(*id)?;
            batch.delete_document(*id)?;
        }
    }
    Ok(())
}
