use std::collections::BTreeSet;

use moat_catalog::Catalog;
use moat_contracts::{Dataset, RecordId, Split};

use crate::{DatasetError, groups};

/// Records of the held-back side that tell nothing about weights which were trained on `seen` before: those that are
/// among them, and near-duplicates of those among them that a document still holds.
///
/// # Errors
/// [`DatasetError::Catalog`].
pub fn seen(
    catalog: &Catalog,
    dataset: &Dataset,
    seen: &BTreeSet<RecordId>,
) -> Result<BTreeSet<RecordId>, DatasetError> {
    let held_out = dataset.entries.iter().filter(|entry| entry.split == Split::HeldOut);
    let held_out: Vec<RecordId> = held_out.map(|entry| entry.record).collect();
    let mut signatures = Vec::with_capacity(held_out.len() + seen.len());
    for record in held_out.iter().chain(seen) {
        // Without a signature it is near to nothing but itself.
        signatures.push(catalog.signature(*record)?.unwrap_or_default());
    }
    let groups = groups::groups(&signatures);
    let touched: BTreeSet<usize> = groups[held_out.len()..].iter().copied().collect();
    let near = held_out.iter().zip(&groups).filter(|(_, group)| touched.contains(group));
    let near = near.map(|(record, _)| *record);
    Ok(near.chain(held_out.iter().copied().filter(|record| seen.contains(record))).collect())
}
