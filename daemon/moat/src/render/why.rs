use std::fmt::Write;

use moat_contracts::Reason;
use moat_protocol::control::{Reached, Twin, Why, WhyRecord};

use super::text::{bytes, clean, count, counted, measure};
use super::{Tone, View};

/// What became of each document, in sentences.
pub(super) fn why(view: &View, documents: &[Why]) -> String {
    let pages: Vec<_> = documents.iter().map(|document| one(view, document)).collect();
    pages.join("\n")
}

fn one(view: &View, why: &Why) -> String {
    let name = format!("{} in {}", clean(&why.path), clean(&why.source));
    let mut page = view.paint(Tone::Strong, &name);
    let digest = why.digest.map(|digest| format!(", sha256 {}", digest.short())).unwrap_or_default();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(page, " ({}{digest})", bytes(why.size));
    let state = match why.state.as_str() {
        "present" => {
            let records = why.records.len() as u64;
            format!("It is in its source and was read: {}.", counted(records, "record"))
        }
        "skipped" => {
            let reason = why.skip.as_deref().map_or("no reason is known", skipped);
            format!("It is in its source but was not read: {reason}.")
        }
        "deleted" if why.removed => {
            "Its source was removed: it has no records, and the next dataset is without it.".to_owned()
        }
        "deleted" => "It was deleted from its source: it has no records, and the next dataset is without it."
            .to_owned(),
        other => format!("Its state is {}.", clean(other)),
    };
    let _ = writeln!(page, "{state}");
    for fault in &why.faults {
        let line = format!("  line {}: {}", count(fault.line), clean(&fault.what));
        let _ = writeln!(page, "{}", view.paint(Tone::Bad, &line));
    }
    for record in &why.records {
        page.push_str(&the_record(view, record));
    }
    if why.reached.is_empty() {
        page.push_str("No dataset holds it.\n");
    }
    for reached in &why.reached {
        page.push_str(&the_reached(reached, why.state == "deleted"));
    }
    page
}

/// The reason of a [`moat_contracts::Skip`] as the end of a sentence.
fn skipped(word: &str) -> &str {
    match word {
        "unreadable" => "moatd may not read it",
        "too_large" => "it is larger than its source's `max_bytes`",
        "binary" => "it holds no text",
        "special" => "it is not a regular file",
        "link" => "it is a link that leads out of its source, or in a circle",
        "damaged" => "its format is damaged",
        other => other,
    }
}

fn the_record(view: &View, record: &WhyRecord) -> String {
    let language = record.language.as_deref().map(|language| format!(", {}", clean(language)));
    let tone = if record.verdict == "dropped" { Tone::Bad } else { Tone::Good };
    let mut text = format!(
        "  line {}: {} ({}{}), record {}\n",
        record.first_line,
        view.paint(tone, &clean(&record.verdict)),
        clean(&record.kind),
        language.unwrap_or_default(),
        record.record.short(),
    );
    if let Some(review) = &record.review {
        let _ = writeln!(text, "    {}", super::data::decided(view, review));
    }
    if let Some(twin) = &record.twin {
        let _ = writeln!(text, "    {}", the_twin(twin));
    }
    for reason in &record.reasons {
        // A twin and the counted redactions say more than the reasons that repeat them.
        let repeated = record.redactions.contains_key(&reason.rule) && record.verdict != "dropped"
            || record.twin.is_some() && matches!(reason.rule.as_str(), "duplicate" | "near_duplicate");
        if !repeated {
            let _ = writeln!(text, "    {}", the_reason(reason));
        }
    }
    for (label, number) in &record.redactions {
        let places = counted(*number, "place");
        let _ = writeln!(text, "    {places} replaced by [{}_…]", clean(label));
    }
    text
}

fn the_twin(twin: &Twin) -> String {
    let place = format!("{} in {}", clean(&twin.path), clean(&twin.source));
    if twin.similarity >= 1.0 {
        format!("the same text survives in {place}")
    } else {
        format!("a near-duplicate survives in {place} (similarity {})", measure(twin.similarity))
    }
}

pub(super) fn the_reason(reason: &Reason) -> String {
    let mut text = format!("rule {}", clean(&reason.rule));
    match (reason.measured, reason.limit) {
        (Some(measured), Some(limit)) => {
            let bound = if reason.rule.starts_with("min_") { "at least" } else { "at most" };
            let _ = write!(text, ": measured {}, {bound} {} is wanted", measure(measured), measure(limit));
        }
        (Some(measured), None) => {
            let _ = write!(text, ": measured {}", measure(measured));
        }
        _ => {}
    }
    if let Some(line) = reason.line {
        let _ = write!(text, ", at line {}", count(line));
    }
    text
}

pub(super) fn the_reached(reached: &Reached, deleted: bool) -> String {
    let dataset = reached.dataset.0.short();
    let side = match reached.split.as_str() {
        "held_out" => "held back",
        "validation" => "chosen by",
        _ => "trained on",
    };
    let runs: Vec<_> = reached.runs.iter().map(|run| clean(run)).collect();
    let trained = side == "trained on";
    match (runs.is_empty(), deleted && trained) {
        (true, _) => format!("It is in dataset {dataset} ({side}); no run used that yet.\n"),
        (false, false) => format!("It is in dataset {dataset} ({side}), used by {}.\n", runs.join(", ")),
        (false, true) => format!(
            "It is in dataset {dataset} ({side}), used by {}: what these models learned from it stays in them.\n",
            runs.join(", ")
        ),
    }
}
