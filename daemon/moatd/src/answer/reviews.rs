//! What waits for a person, and what people decide. A decision is about a text, whichever documents hold it: a rescan
//! leaves it, another text is another record.

use moat_catalog::{Catalog, Line, Review as Kept, Waits};
use moat_contracts::{Decision, Verdict};
use moat_protocol::control::{Decided, Judgement, REVIEW_COUNT, Reply, Review, ReviewQueue, Waiting};

use super::records;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::people::Person;

/// Records that are told at most, and decisions.
const MOST: usize = 1000;
const DECIDED: usize = 50;

/// Which records wait.
pub(crate) fn line(daemon: &Daemon) -> Line {
    let review = &daemon.settings.review;
    Line { margin: review.margin, redacted: review.redacted, sample: review.sample }
}

/// A review as it is told.
pub(crate) fn told(review: &Kept) -> Review {
    Review { decision: review.decision, who: review.who.clone(), at: review.at }
}

/// Why a record waits, in a word.
pub(crate) const fn word(why: Waits) -> &'static str {
    match why {
        Waits::Borderline => "borderline",
        Waits::Redacted => "redacted",
        Waits::Sample => "sample",
    }
}

/// How many records wait.
pub(crate) fn count(daemon: &Daemon, catalog: &Catalog) -> Result<u64, Failure> {
    Ok(catalog.waiting_count(&line(daemon), REVIEW_COUNT)?)
}

/// The records that wait, from one on.
pub(crate) fn queue(daemon: &Daemon, after: Option<&str>, most: usize) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let line = line(daemon);
    let after = match after {
        None => None,
        Some(id) => {
            let id = records::find(&catalog, id)?;
            // One that somebody decided about meanwhile waits no more: the queue begins anew.
            catalog.waits(&line, id)?.map(|why| (why, id))
        }
    };
    let mut waiting = Vec::new();
    for next in catalog.waiting(&line, after, most.clamp(1, MOST))? {
        let row = catalog.row(next.row)?;
        waiting.push(Waiting {
            record: row.id.0,
            source: row.source,
            path: row.path,
            kind: row.kind.word().to_owned(),
            verdict: row.verdict.word().to_owned(),
            why: word(next.why).to_owned(),
            reasons: row.reasons,
        });
    }
    let decided = catalog.reviews(DECIDED)?.into_iter().map(|(record, review, records)| Decided {
        record: record.0,
        review: Some(told(&review)),
        records,
    });
    let count = count(daemon, &catalog)?;
    Ok(Reply::Reviews(ReviewQueue { waiting, count, decided: decided.collect() }))
}

/// Decides about a record.
pub(crate) fn decide(
    daemon: &Daemon,
    person: &Person,
    id: &str,
    judgement: Judgement,
) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let id = records::find(&catalog, id)?;
    let batch = catalog.write()?;
    let row = records::one_of(&batch, id)?;
    let decision = match judgement {
        Judgement::Drop => Some(Decision::Drop),
        Judgement::Keep => Some(Decision::Keep),
        Judgement::Undo => None,
    };
    let review = decision.map(|decision| Kept { decision, who: person.who.name.clone(), at: now() });
    match (&review, &row) {
        (None, _) => {
            if !batch.remove_review(id)? {
                return Err(Failure::request(
                    "nobody decided about this record, so there is nothing to take back",
                ));
            }
        }
        (Some(_), None) => {
            return Err(Failure::request(
                "no document holds this record any more, so no dataset will take it",
            ));
        }
        (Some(review), Some(row)) => {
            if review.decision == Decision::Keep && row.verdict == Verdict::Dropped && !row.may_be_kept() {
                return Err(Failure::request(
                    "secrets or personal data dropped this record, which no person overrules: change the document, or \
                     what [curation.detect] says",
                ));
            }
            if review.decision == Decision::Keep && row.twin.is_some() {
                return Err(Failure::request(
                    "another record stands for this one, which says the same: decide about that one",
                ));
            }
            batch.put_review(id, review)?;
        }
    }
    let records = batch.rows_with_id(id)?.len() as u64;
    batch.commit()?;
    Ok(Reply::Reviewed(Decided { record: id.0, review: review.as_ref().map(told), records }))
}
