use std::fmt::Write;

use moat_contracts::{Dataset, DatasetSource, Split, SplitCounts};
use moat_protocol::control::{DatasetDiff, DatasetSummary, DiffEntry};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, count, counted};
use super::{Tone, View};

/// Entries of a difference that are shown; --json has all.
const SHOWN: usize = 20;

/// One dataset with the totals of its sources.
pub(super) fn dataset(view: &View, dataset: &Dataset) -> String {
    let mut page = pairs(
        view,
        &[
            ("dataset", dataset.id.to_string()),
            ("recipe", dataset.recipe.short()),
            ("rules", dataset.rules.short()),
            ("tokenizer", dataset.tokenizer.short()),
            ("records", count(dataset.entries.len() as u64)),
        ],
    );
    let mut rows = Vec::new();
    let mut line = |name: &str, tone: Tone, side: &str, counts: &SplitCounts| {
        rows.push(vec![
            Cell::toned(name, tone),
            side.into(),
            count(counts.records).into(),
            count(counts.tokens).into(),
            bytes(counts.bytes).into(),
        ]);
    };
    let mut sides = |name: &str, source: &DatasetSource| {
        line(name, Tone::Strong, "train", &source.train);
        if !source.validation.is_empty() {
            line("", Tone::Plain, "validation", &source.validation);
        }
        line("", Tone::Plain, "held back", &source.held_out);
    };
    let mut total = DatasetSource::default();
    for (name, source) in &dataset.sources {
        sides(&clean(name), source);
        total.train.join(&source.train);
        total.validation.join(&source.validation);
        total.held_out.join(&source.held_out);
    }
    if dataset.sources.len() > 1 {
        sides("all", &total);
    }
    page.push('\n');
    page.push_str(&table(view, &["source", "side", ">records", ">tokens", ">size"], &rows));
    page
}

/// All datasets.
pub(super) fn datasets(view: &View, datasets: &[DatasetSummary]) -> String {
    if datasets.is_empty() {
        return "no datasets: `moat dataset build RECIPE` makes one\n".to_owned();
    }
    let row = |dataset: &DatasetSummary| {
        vec![
            Cell::toned(dataset.id.0.short(), Tone::Strong),
            view.time(dataset.built).into(),
            count(dataset.train).into(),
            count(dataset.held_out).into(),
            count(dataset.tokens).into(),
        ]
    };
    let rows: Vec<_> = datasets.iter().map(row).collect();
    table(view, &["dataset", "built", ">train", ">held back", ">tokens"], &rows)
}

/// What differs between two datasets.
pub(super) fn diff(view: &View, diff: &DatasetDiff) -> String {
    let names = format!("{} to {}", diff.a.0.short(), diff.b.0.short());
    let mut page = view.paint(Tone::Strong, &names);
    page.push('\n');
    let changed: Vec<_> = [
        (diff.same_recipe, "data selection, split or seed"),
        (diff.same_rules, "curation rules"),
        (diff.same_tokenizer, "tokenizer"),
    ]
    .into_iter()
    .filter_map(|(same, name)| (!same).then_some(name))
    .collect();
    // Writing to a String cannot fail, here and below.
    if !changed.is_empty() {
        let _ = writeln!(page, "made differently: {}", changed.join("; "));
    }
    if diff.a == diff.b {
        page.push_str("they are the same\n");
        return page;
    }
    let parts = [("+", "added", &diff.added), ("-", "removed", &diff.removed), ("~", "moved", &diff.moved)];
    for (sign, word, entries) in parts {
        let records = counted(entries.len() as u64, "record");
        let _ = writeln!(page, "{records} {word}");
        for entry in entries.iter().take(SHOWN) {
            page.push_str(&difference(view, sign, entry));
        }
        if entries.len() > SHOWN {
            let _ = writeln!(page, "  … and {} more; --json has all", count((entries.len() - SHOWN) as u64));
        }
    }
    page
}

fn difference(view: &View, sign: &str, difference: &DiffEntry) -> String {
    let entry = &difference.entry;
    let tone = match sign {
        "+" => Tone::Good,
        "-" => Tone::Bad,
        _ => Tone::Plain,
    };
    let side = match entry.split {
        Split::Train => "train",
        Split::Validation => "validation",
        Split::HeldOut => "held back",
    };
    let paths: Vec<_> = difference.paths.iter().map(|path| clean(path)).collect();
    let paths =
        if paths.is_empty() { "no document that is still known".to_owned() } else { paths.join(", ") };
    format!(
        "  {} {}  {side}, {}, {}: {paths}\n",
        view.paint(tone, sign),
        entry.record.0.short(),
        counted(entry.tokens, "token"),
        clean(&entry.source),
    )
}
