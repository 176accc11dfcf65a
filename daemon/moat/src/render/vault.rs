use std::fmt::Write;

use moat_protocol::control::{LedgerPage, Seal, Secret};

use super::table::{Cell, pairs, table};
use super::text::{clean, count, counted};
use super::{Tone, View};

/// How the vault stands, in one line.
pub(super) fn line(view: &View, seal: &Seal) -> String {
    match (seal.made, seal.sealed) {
        (false, _) => view.paint(Tone::Bad, "no vault yet: `moat vault init` makes one"),
        (true, true) if seal.shares_given > 0 => {
            let given = counted(seal.shares_given, "share");
            view.paint(
                Tone::Bad,
                &format!("sealed, {given} given: `moat vault unseal --share` gives the next"),
            )
        }
        (true, true) => view.paint(Tone::Bad, "sealed: `moat vault unseal` opens it"),
        (true, false) => {
            let root = seal.generation.map(|root| format!(", root {root}")).unwrap_or_default();
            let moving = if seal.rotating { ", moving to a new root" } else { "" };
            let swap = if seal.guarded == Some(false) { ", keys may be swapped out" } else { "" };
            format!("{}{root}{moving}{swap}", view.paint(Tone::Good, "open"))
        }
    }
}

/// How the vault stands, with the ways to open it.
pub(super) fn seal(view: &View, seal: &Seal) -> String {
    let mut page = pairs(view, &[("vault", line(view, seal))]);
    if !seal.slots.is_empty() {
        let rows: Vec<_> = seal
            .slots
            .iter()
            .map(|slot| vec![Cell::from(slot.id.to_string()), clean(&slot.kind).into()])
            .collect();
        page.push('\n');
        page.push_str(&table(view, &[">slot", "opened by"], &rows));
    }
    page
}

/// Shares, once.
pub(super) fn shares(view: &View, shares: &[Secret]) -> String {
    if shares.is_empty() {
        return "done\n".to_owned();
    }
    let mut page = String::new();
    for (number, share) in shares.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "{} {}\n",
            view.paint(Tone::Strong, &format!("share {}", number + 1)),
            clean(&share.0)
        );
    }
    page.push_str(
        "They are shown this once. Give each to another person, on paper; nobody can print them again.\n",
    );
    page
}

/// Entries of the ledger.
pub(super) fn ledger(view: &View, page: &LedgerPage) -> String {
    let rows: Vec<_> = page
        .entries
        .iter()
        .map(|entry| {
            let facts = entry.on.iter().chain(&entry.detail);
            let facts: Vec<_> =
                facts.map(|(key, value)| format!("{}={}", clean(key), clean(value))).collect();
            let tone = match entry.phase.as_str() {
                "failed" | "refused" => Tone::Bad,
                _ => Tone::Plain,
            };
            vec![
                Cell::from(count(entry.index)),
                view.time(entry.time / 1000).into(),
                clean(&entry.who).into(),
                clean(&entry.act).into(),
                Cell::toned(clean(&entry.phase), tone),
                facts.join(" ").into(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no entries\n".to_owned();
    }
    let mut text = table(view, &[">entry", "time", "who", "act", "phase", "on"], &rows);
    let _ = writeln!(text, "\n{} in all", entries(page.size));
    if let Some(key) = &page.key {
        let _ = writeln!(text, "signed with {}", clean(key));
    }
    text
}

/// A number of entries.
pub(super) fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{} entries", count(number)) }
}
