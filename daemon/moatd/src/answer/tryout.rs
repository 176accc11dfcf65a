//! What other curation rules would keep and drop. Records are judged by what is kept of them; nothing is written.

use std::collections::{BTreeMap, BinaryHeap};

use moat_catalog::{Catalog, RecordFilter, Row, RowId};
use moat_contracts::{Digest, Reason, Rules, Verdict};
use moat_curate::{Again, Compiled};
use moat_protocol::control::{Change, Reply, Tryout, TryoutExample, Update};
use serde_json::Value;

use super::Teller;
use super::search::beginning;
use crate::daemon::Daemon;
use crate::failure::Failure;

/// Records that are judged at most.
const MOST: u64 = 1_000_000;
/// Records whose ids are in memory at once, beside those that were drawn.
const PAGE: usize = 1024;
/// Examples of each rule, and of all together; bytes of each.
const OF_RULE: u64 = 3;
const EXAMPLES: usize = 40;
const BEGINNING: usize = 240;

/// Other rules, ready to be tried.
pub(crate) struct Trial {
    rules: Rules,
    most: u64,
    seed: u64,
}

impl Trial {
    /// Puts changes over the rules in force.
    pub(crate) fn new(daemon: &Daemon, changes: &Value, most: u64, seed: u64) -> Result<Self, Failure> {
        if !changes.is_object() {
            return Err(Failure::request("the changes are no table of keys of [curation]"));
        }
        let mut whole = serde_json::to_value(&daemon.settings.curation).map_err(Failure::internal)?;
        merge(&mut whole, changes);
        // The parser's own message could repeat what was sent.
        let rules: Rules = serde_json::from_value(whole).map_err(|_| {
            Failure::request("the changes are not keys of [curation] with values that they take")
        })?;
        let faults = rules.faults();
        if !faults.is_empty() {
            let faults: Vec<_> =
                faults.iter().map(|fault| format!("curation.{}: {}", fault.key, fault.message)).collect();
            return Err(Failure::request(faults.join("; ")));
        }
        if rules.duplicates != daemon.settings.curation.duplicates {
            return Err(Failure::request(
                "rules of [curation.duplicates] cannot be tried: which records are near-duplicates is found among all of \
                 them together",
            ));
        }
        Ok(Self { rules, most: most.clamp(1, MOST), seed })
    }

    /// Judges records by the rules.
    pub(crate) fn run(self, daemon: &Daemon, teller: &mut Teller) -> Result<Reply, Failure> {
        let catalog = daemon.state.catalog()?;
        let of = catalog.count_filtered(&RecordFilter::default())?;
        let drawn = self.draw(&catalog, teller, of)?;
        let compiled = Compiled::new(&self.rules);
        let mut again = Again::by(&compiled);
        let mut tried = Tryout {
            in_force: daemon.rules_hash,
            tried: self.rules.hash(),
            judged: 0,
            of,
            left_out: 0,
            seed: self.seed,
            kept: 0,
            dropped: 0,
            other_redactions: 0,
            lost: Change::default(),
            gained: Change::default(),
        };
        let (mut lost, mut gained) = (BTreeMap::new(), BTreeMap::new());
        let all = drawn.len() as u64;
        for (number, row) in (1..).zip(drawn) {
            if daemon.is_ending() {
                return Err(Failure::internal("moatd is ending"));
            }
            let found = tried.lost.records + tried.gained.records;
            teller.tell(|| Update::Looking { records: number, of: all, found })?;
            // A record that a scan takes away meanwhile is not judged.
            let Ok(row) = catalog.row(row) else { continue };
            if row.twin.is_some() || row.review.is_some() {
                // Another record stands for it, or a person decided, whatever the rules say of it.
                tried.left_out += 1;
                continue;
            }
            let Some(body) = catalog.text(row.id)? else { continue };
            let judged = again.judge(row.kind, row.language.as_deref(), &body, &row.redactions);
            tried.judged += 1;
            match (row.verdict == Verdict::Dropped, judged.verdict == Verdict::Dropped) {
                (false, true) => add(&mut tried.lost, &mut lost, row, judged.reasons, &body),
                (true, false) => {
                    let reasons = dropping(daemon, &row);
                    add(&mut tried.gained, &mut gained, row, reasons, &body);
                }
                (true, true) => tried.dropped += 1,
                (false, false) => {
                    tried.kept += 1;
                    tried.other_redactions += u64::from(judged.redactions != row.redactions.len() as u64);
                }
            }
        }
        Ok(Reply::Tryout(Box::new(tried)))
    }

    /// The records to judge: all, or those with the lowest draws.
    fn draw(&self, catalog: &Catalog, teller: &mut Teller, of: u64) -> Result<Vec<RowId>, Failure> {
        let mut lowest: BinaryHeap<(Digest, RowId)> = BinaryHeap::new();
        let (mut at, mut looked) = (0, 0);
        loop {
            let page = catalog.next_filtered(&RecordFilter::default(), at, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            at = last.number();
            looked += page.len() as u64;
            teller.tell(|| Update::Looking { records: 0, of: looked.max(of), found: 0 })?;
            for (row, id) in page {
                let draw = Digest::of_parts(&[b"moat tryout 1\0", &self.seed.to_le_bytes(), id.0.as_bytes()]);
                lowest.push((draw, row));
                if lowest.len() as u64 > self.most {
                    lowest.pop();
                }
            }
        }
        let mut rows: Vec<RowId> = lowest.into_iter().map(|(_, row)| row).collect();
        rows.sort_unstable();
        Ok(rows)
    }
}

/// What drops a record now, without what was only replaced in it.
fn dropping(daemon: &Daemon, row: &Row) -> Vec<Reason> {
    let detect = &daemon.settings.curation.detect;
    let drops = |label: &str| {
        let label = detect.labels.iter().find(|(detector, _)| detector.label() == label);
        label.is_none_or(|(_, action)| *action == moat_contracts::Action::Drop)
    };
    row.reasons.iter().filter(|reason| drops(&reason.rule)).cloned().collect()
}

/// Counts a record in, and takes it for an example where its rule has few.
fn add(change: &mut Change, shown: &mut BTreeMap<String, u64>, row: Row, reasons: Vec<Reason>, body: &str) {
    change.records += 1;
    change.words += row.words;
    let mut is_example = false;
    for reason in &reasons {
        *change.rules.entry(reason.rule.clone()).or_default() += 1;
        let shown = shown.entry(reason.rule.clone()).or_default();
        is_example |= *shown < OF_RULE && change.examples.len() < EXAMPLES;
        *shown += u64::from(is_example);
    }
    if is_example {
        change.examples.push(TryoutExample {
            record: row.id.0,
            source: row.source,
            path: row.path,
            kind: row.kind.word().to_owned(),
            reasons,
            beginning: beginning(body, BEGINNING),
        });
    }
}

/// Puts the values of one JSON table over those of another (RFC 7396, but that null is a value like others).
fn merge(whole: &mut Value, changes: &Value) {
    match (whole, changes) {
        (Value::Object(whole), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(whole.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (whole, change) => *whole = change.clone(),
    }
}
