use std::collections::BTreeMap;
use std::fmt::Write;

use moat_contracts::{DatasetSource, Decision, Reason};
use moat_protocol::control::{
    Change, DatasetFacts, Decided, Mark, Piece, REVIEW_COUNT, RecordShown, RecordsFound, Review, ReviewQueue,
    Tryout,
};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, clean_lines, count, counted, measure, tally};
use super::why::{the_reached, the_reason};
use super::{Tone, View};

/// What a search found. Writing to a String cannot fail, here and below.
pub(super) fn found(view: &View, found: &RecordsFound) -> String {
    let mut page = String::new();
    for one in &found.found {
        let place = format!("{} in {}", clean(&one.path), clean(&one.source));
        let _ = writeln!(
            page,
            "{} line {}, {} {}, record {}",
            view.paint(Tone::Strong, &place),
            count(one.first_line),
            clean(&one.kind),
            verdict(view, &one.verdict),
            one.record.short(),
        );
        let _ = writeln!(page, "  {}", pieces(view, &one.snippet).replace(['\n', '\t'], " "));
    }
    let number = counted(found.found.len() as u64, "record");
    let _ = write!(page, "{number} found, {} of {} looked at", count(found.looked), count(found.of));
    match found.after {
        Some(after) => {
            let _ = writeln!(page, "; --after {after} goes on");
        }
        None => page.push('\n'),
    }
    page
}

fn verdict(view: &View, word: &str) -> String {
    let tone = if word == "dropped" { Tone::Bad } else { Tone::Good };
    view.paint(tone, &clean(word))
}

fn pieces(view: &View, pieces: &[Piece]) -> String {
    let paint = |piece: &Piece| {
        let text = clean_lines(&piece.text);
        match piece.mark {
            None => text,
            Some(Mark::Hit | Mark::Replaced { .. }) => view.paint(Tone::Strong, &text),
            Some(Mark::Cut) => view.paint(Tone::Faint, &text),
        }
    };
    pieces.iter().map(paint).collect()
}

/// Who decided, and what.
pub(super) fn decided(view: &View, review: &Review) -> String {
    let what = match review.decision {
        Decision::Keep => "kept",
        Decision::Drop => "dropped",
    };
    format!("{what} by {}, {}", clean(&review.who), view.time(review.at))
}

/// One record with its text.
pub(super) fn record(view: &View, record: &RecordShown) -> String {
    let place = record.document.as_ref().map(|document| {
        let line = document.around.iter().find(|text| text.here).map_or(1, |text| text.first_line);
        format!("{} in {}, line {}", clean(&document.path), clean(&document.source), count(line))
    });
    let language = record.language.as_deref().map(|language| format!(", {}", clean(language)));
    let word = record.verdict.as_deref();
    let mut page = pairs(
        view,
        &[
            ("record", record.record.to_string()),
            ("document", place.unwrap_or_else(|| "none that is still known".to_owned())),
            ("verdict", word.map(|word| verdict(view, word)).unwrap_or_default()),
            ("person", record.review.as_ref().map(|review| decided(view, review)).unwrap_or_default()),
            ("waits", record.waits.as_deref().map(clean).unwrap_or_default()),
            (
                "text",
                format!("{}{}, {}", clean(&record.kind), language.unwrap_or_default(), bytes(record.bytes)),
            ),
            ("replaced", tally(&record.redactions)),
            ("near", if record.near_count > 1 { counted(record.near_count, "text") } else { String::new() }),
        ],
    );
    for reason in &record.reasons {
        let _ = writeln!(page, "{}", the_reason(reason));
    }
    for (source, path) in &record.elsewhere {
        let _ = writeln!(page, "also in {} in {}", clean(path), clean(source));
    }
    for reached in &record.reached {
        page.push_str(&the_reached(reached, false));
    }
    page.push('\n');
    // The document's own text says where something was replaced.
    let own = record.document.iter().flat_map(|document| &document.around).find(|text| text.here);
    page.push_str(&pieces(view, own.map_or(&record.text, |own| &own.text)));
    if !page.ends_with('\n') {
        page.push('\n');
    }
    page
}

/// What waits for a person, and what was decided last.
pub(super) fn queue(view: &View, queue: &ReviewQueue) -> String {
    if queue.count == 0 && queue.decided.is_empty() {
        return "nothing waits for a person\n".to_owned();
    }
    let row = |one: &moat_protocol::control::Waiting| {
        vec![
            Cell::toned(one.record.short(), Tone::Strong),
            clean(&one.why).into(),
            clean(&one.verdict).into(),
            rules(&one.reasons).into(),
            format!("{} in {}", clean(&one.path), clean(&one.source)).into(),
        ]
    };
    let rows: Vec<_> = queue.waiting.iter().map(row).collect();
    let more = if queue.count >= REVIEW_COUNT { " or more" } else { "" };
    let mut page = format!("{}{more} for a person\n", counted(queue.count, "record"));
    if !rows.is_empty() {
        page.push_str(&table(view, &["record", "why", "verdict", "reasons", "document"], &rows));
    }
    for one in &queue.decided {
        page.push_str(&reviewed(view, one));
    }
    page
}

fn rules(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| clean(&reason.rule)).collect::<Vec<_>>().join(", ")
}

/// What was decided about a record.
pub(super) fn reviewed(view: &View, one: &Decided) -> String {
    let what = one.review.as_ref().map_or_else(|| "no decision".to_owned(), |review| decided(view, review));
    let held = if one.records == 0 { ", in no document now" } else { "" };
    format!("{} {what}{held}\n", view.paint(Tone::Strong, &one.record.short()))
}

/// What other rules would keep and drop.
pub(super) fn tryout(view: &View, tried: &Tryout) -> String {
    let drawn = tried.judged + tried.left_out < tried.of;
    let seed = if drawn { format!(", drawn with seed {}", tried.seed) } else { String::new() };
    let words = |change: &Change| format!("{}, {}", count(change.records), counted(change.words, "word"));
    let mut page = pairs(
        view,
        &[
            ("judged", format!("{} of {}{seed}", count(tried.judged), counted(tried.of, "record"))),
            ("left out", count(tried.left_out)),
            ("stay kept", count(tried.kept)),
            ("stay dropped", count(tried.dropped)),
            ("other spans", count(tried.other_redactions)),
            ("would be dropped", words(&tried.lost)),
            ("would be kept", words(&tried.gained)),
        ],
    );
    for (title, change) in [("would be dropped", &tried.lost), ("would be kept", &tried.gained)] {
        if change.records == 0 {
            continue;
        }
        let _ = writeln!(page, "\n{}: {}", view.paint(Tone::Strong, title), tally(&change.rules));
        for one in &change.examples {
            let place = format!("{} in {}", clean(&one.path), clean(&one.source));
            let _ = writeln!(page, "  {} {place} ({})", one.record.short(), why(&one.reasons));
            let _ = writeln!(page, "    {}", view.paint(Tone::Faint, &clean(&one.beginning)));
        }
    }
    page
}

fn why(reasons: &[Reason]) -> String {
    let one = |reason: &Reason| match (reason.measured, reason.limit) {
        (Some(measured), Some(limit)) => {
            format!("{} {} of {}", clean(&reason.rule), measure(measured), measure(limit))
        }
        _ => clean(&reason.rule),
    };
    reasons.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// How a dataset is spread, and the runs on it.
pub(super) fn facts(view: &View, facts: &DatasetFacts) -> String {
    let mut page = pairs(
        view,
        &[
            ("dataset", facts.id.to_string()),
            ("built", view.time(facts.built)),
            ("runs", clean(&facts.runs.join(", "))),
            ("runs after those", clean(&facts.later.join(", "))),
        ],
    );
    let named = |names: &BTreeMap<String, DatasetSource>| {
        let name = |name: &String| if name.is_empty() { "not told".to_owned() } else { clean(name) };
        names.iter().map(|(found, sides)| (name(found), *sides)).collect::<Vec<_>>()
    };
    let lengths = facts.shape.lengths.iter();
    let lengths = lengths.map(|(from, sides)| (format!("{}-{}", count(*from), count(from * 2 - 1)), *sides));
    for (what, rows) in [
        ("tokens", lengths.collect()),
        ("kind", named(&facts.shape.kinds)),
        ("language", named(&facts.shape.languages)),
        ("source", named(&facts.sources)),
    ] {
        let row = |(name, sides): &(String, DatasetSource)| {
            vec![
                name.as_str().into(),
                count(sides.train.records).into(),
                count(sides.validation.records).into(),
                count(sides.held_out.records).into(),
                count(sides.train.tokens + sides.validation.tokens + sides.held_out.tokens).into(),
            ]
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        page.push('\n');
        page.push_str(&table(view, &[what, ">train", ">validation", ">held back", ">tokens in all"], &rows));
    }
    page
}
