use std::collections::BTreeMap;

use moat_catalog::{Catalog, Known, Row, RunRow};
use moat_contracts::{DatasetId, DocumentState, Reason, Skip, Split};
use moat_protocol::control::{Reached, Reply, Twin, Why, WhyRecord};

use super::reviews;
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::lineage;

/// What became of the documents that a path names: a path in a source, or one on this machine.
pub(crate) fn why(daemon: &Daemon, path: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let mut documents = catalog.documents_named(path)?;
    let sources = daemon.sources();
    for source in sources.iter().map(|source| &source.settings) {
        // A path on this machine is the source's root and the path in it.
        let root = source.path.display().to_string();
        let inner = path.strip_prefix(&root).map(|rest| rest.trim_start_matches('/'));
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            let found = catalog.documents_named(inner)?;
            documents.extend(found.into_iter().filter(|known| known.document.source == source.name));
        }
    }
    if documents.is_empty() {
        return Err(Failure::request(format!(
            "no source holds or held `{path}`: give the path in its source, or on this machine; `moat scan` looks again"
        )));
    }
    let removed = |known: &Known| daemon.is_removing(&known.document.source);
    let told =
        documents.iter().map(|known| tell(&catalog, known, removed(known))).collect::<Result<_, _>>()?;
    Ok(Reply::Why(told))
}

fn tell(catalog: &Catalog, known: &Known, removed: bool) -> Result<Why, Failure> {
    let document = &known.document;
    let rows = catalog.record_rows(document.id)?;
    let reached = reached(catalog, catalog.datasets_reached(document.id)?)?;
    Ok(Why {
        source: document.source.clone(),
        path: document.path.clone(),
        removed,
        state: match known.state {
            DocumentState::Present => "present",
            DocumentState::Skipped => "skipped",
            DocumentState::Deleted => "deleted",
        }
        .to_owned(),
        skip: known.skip.map(Skip::word).map(ToOwned::to_owned),
        digest: (known.state == DocumentState::Present).then_some(document.digest),
        size: document.size,
        faults: catalog.faults(document.id)?,
        records: rows.iter().map(|row| tell_record(catalog, row)).collect::<Result<_, _>>()?,
        reached,
    })
}

/// The runs that learnt or were measured on sides of datasets.
pub(crate) fn reached(catalog: &Catalog, sides: Vec<(DatasetId, Split)>) -> Result<Vec<Reached>, Failure> {
    let runs = catalog.runs()?;
    let reached = sides.into_iter().map(|(dataset, split)| {
        let on = |run: &RunRow| run.dataset == Some(dataset);
        // What a run learnt, the runs that started from it hold too.
        let reached =
            |run: &&RunRow| on(run) || (split != Split::HeldOut && lineage::earlier(&runs, run).any(on));
        let runs = runs.iter().filter(reached).map(|run| run.name.clone());
        Reached { dataset, split: split.word().to_owned(), runs: runs.collect() }
    });
    Ok(reached.collect())
}

fn tell_record(catalog: &Catalog, row: &Row) -> Result<WhyRecord, Failure> {
    let mut redactions = BTreeMap::new();
    for redaction in &row.redactions {
        *redactions.entry(redaction.label.clone()).or_default() += 1;
    }
    let (reasons, twin) = reasons(catalog, row)?;
    Ok(WhyRecord {
        record: row.id.0,
        first_line: row.first_line,
        kind: row.kind.word().to_owned(),
        language: row.language.clone(),
        verdict: row.effective().word().to_owned(),
        reasons,
        redactions,
        twin,
        review: row.review.as_ref().map(reviews::told),
    })
}

/// Every reason for a record's verdict, and the twin that survives in its place.
pub(crate) fn reasons(catalog: &Catalog, row: &Row) -> Result<(Vec<Reason>, Option<Twin>), Failure> {
    let mut reasons = row.reasons.clone();
    let Some((survivor, similarity)) = row.twin else { return Ok((reasons, None)) };
    let survivor = catalog.row(survivor)?;
    let rule = if survivor.id == row.id { "duplicate" } else { "near_duplicate" };
    reasons.push(Reason { rule: rule.to_owned(), measured: Some(similarity), limit: None, line: None });
    Ok((reasons, Some(Twin { source: survivor.source, path: survivor.path, similarity })))
}
