use moat_ledger::{Entry, Filter, Phase};
use moat_protocol::control::{LedgerEntry, LedgerPage, Reply};

use crate::daemon::Daemon;
use crate::failure::Failure;

/// Entries in one answer at most.
const MOST: usize = 1000;

/// Entries, newest first.
pub(crate) fn page(
    daemon: &Daemon,
    act: Option<String>,
    before: Option<u64>,
    most: usize,
) -> Result<Reply, Failure> {
    let filter = Filter { act, ..Filter::default() };
    let page = daemon.ledger.entries(&filter, before, most.clamp(1, MOST)).map_err(Failure::internal)?;
    Ok(Reply::Ledger(LedgerPage {
        size: daemon.ledger.size(),
        entries: page.entries.into_iter().map(shown).collect(),
        next: page.next,
        key: daemon.ledger.public_key().map(|key| key.to_text()),
    }))
}

/// A proof of one entry under the newest checkpoint.
pub(crate) fn receipt(daemon: &Daemon, index: u64) -> Result<Reply, Failure> {
    crate::record::checkpoint(&daemon.ledger, &daemon.settings.ledger.witness).map_err(Failure::internal)?;
    Ok(Reply::Receipt(daemon.ledger.receipt(index).map_err(Failure::request)?))
}

fn shown(entry: Entry) -> LedgerEntry {
    LedgerEntry {
        index: entry.index,
        time: i64::try_from(entry.time).unwrap_or(i64::MAX),
        who: format!("{} ({})", entry.who.name, entry.who.role),
        uid: entry.who.uid,
        act: entry.act,
        phase: match entry.phase {
            Phase::Intent => "intent",
            Phase::Done => "done",
            Phase::Failed => "failed",
            Phase::Refused => "refused",
        }
        .to_owned(),
        on: entry.on,
        detail: entry.detail,
    }
}
