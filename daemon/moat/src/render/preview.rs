use std::fmt::Write;

use moat_contracts::{MemoryPart, MemoryPlan, Preview, Proof, Stretch, Survey};
use moat_protocol::control::RunPreview;

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, clean_lines, count, counted, fixed};
use super::{Tone, View};

/// What stands around text that is learnt, where there are no colours.
const MARKS: [char; 2] = ['\u{27e6}', '\u{27e7}'];

/// What a run would train on and take, and one example of it.
pub(super) fn preview(view: &View, found: &RunPreview) -> String {
    let Preview { survey, proofs, memory, record, example, rejected, left, .. } = &found.preview;
    let sides = &found.sides;
    let side = |name, records: u64, tokens: u64| {
        let records = counted(records, "record");
        if records == "0 records" {
            String::new()
        } else {
            format!("{records} {name}, {} tokens", count(tokens))
        }
    };
    let held = format!("{} held back", counted(sides.held_out.records, "record"));
    let sides = [
        side("to train on", survey.examples, survey.tokens),
        side("to choose by", sides.validation.records, sides.validation.tokens),
        held,
    ];
    let sides: Vec<_> = sides.into_iter().filter(|side| !side.is_empty()).collect();
    let head = [("dataset", found.dataset.0.short()), ("records", sides.join("; "))];
    let mut page = pairs(view, &head);
    page.push('\n');
    page.push_str(&facts(view, survey, memory));
    page.push('\n');
    page.push_str(&parts(view, memory));
    page.push('\n');
    page.push_str(&self::proofs(view, proofs));
    // A plan shows no text.
    if example.is_empty() {
        return page;
    }
    page.push('\n');
    let legend = if view.colors {
        "what is not learnt is faint"
    } else {
        "what is learnt stands in \u{27e6} \u{27e7}"
    };
    let title = format!("record {}, as it is trained on: {legend}", record.0.short());
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{}", view.paint(Tone::Strong, &title));
    stretches(view, example, &mut page);
    if *left > 0 {
        let _ = writeln!(page, "{}", view.paint(Tone::Faint, &format!("and {} more tokens", count(*left))));
    }
    if !rejected.is_empty() {
        let _ = writeln!(
            page,
            "\n{}",
            view.paint(Tone::Strong, "its rejected answer, which is made less likely")
        );
        stretches(view, rejected, &mut page);
    }
    page
}

/// An example with its mask.
fn stretches(view: &View, example: &[Stretch], page: &mut String) {
    for stretch in example {
        let text = clean_lines(&stretch.text);
        match (view.colors, stretch.trained) {
            (true, true) => page.push_str(&text),
            (true, false) => page.push_str(&view.paint(Tone::Faint, &text)),
            (false, true) => {
                page.push(MARKS[0]);
                page.push_str(&text);
                page.push(MARKS[1]);
            }
            (false, false) => page.push_str(&text),
        }
    }
    if !page.ends_with('\n') {
        page.push('\n');
    }
}

/// Lengths, rows and memory in a few lines.
pub(crate) fn facts(view: &View, survey: &Survey, memory: &MemoryPlan) -> String {
    let Survey {
        examples, chats, pairs: both, shortest, median, p95, longest, cut, rows, steps, tokens, ..
    } = *survey;
    let both = if both > 0 { ", each two answers to one prompt" } else { "" };
    let how = if survey.pairs > 0 { "left out" } else { "cut" };
    let mut chats = if chats > 0 { format!(", {} of them chats", count(chats)) } else { String::new() };
    if survey.rearranged > 0 {
        let _ = write!(chats, ", {} of them code with its middle last", count(survey.rearranged));
    }
    let cut = if cut > 0 { format!(", {} longer than a row and {how}", count(cut)) } else { String::new() };
    let share = fixed(survey.trained_share() * 100.0, 1);
    let limit = match memory.available {
        0 => String::new(),
        available => format!(" of {} at most", bytes(available)),
    };
    let over = if memory.fits() { "" } else { ", which does not fit" };
    let again = if memory.recompute { ", blocks computed again in the backward" } else { "" };
    let lengths = [shortest, median, p95, longest].map(count).join(" / ");
    pairs(
        view,
        &[
            ("examples", format!("{}{both}{chats}{cut}", count(examples))),
            ("lengths", format!("{lengths} tokens (shortest / median / 95% / longest)")),
            ("learnt", format!("{share}% of {} tokens", count(tokens))),
            ("packed", format!("{}, {}", counted(rows, "row"), counted(steps, "step"))),
            ("memory", format!("{} planned{limit}{over}{again}", bytes(memory.total()))),
        ],
    )
}

/// Memory by part.
fn parts(view: &View, memory: &MemoryPlan) -> String {
    let row = |part: &MemoryPart| vec![Cell::from(part.used.word()), Cell::from(bytes(part.bytes))];
    let mut rows: Vec<_> = memory.parts.iter().filter(|part| part.bytes > 0).map(row).collect();
    rows.push(vec![Cell::toned("all", Tone::Strong), Cell::from(bytes(memory.total()))]);
    table(view, &["memory", ">planned"], &rows)
}

/// What was proven, with the remedies of what does not hold below.
pub(crate) fn proofs(view: &View, proofs: &[Proof]) -> String {
    let row = |proof: &Proof| {
        let (word, tone) = if proof.held { ("holds", Tone::Good) } else { ("FAILS", Tone::Bad) };
        vec![
            Cell::from(proof.claim.sentence()),
            Cell::toned(word, tone),
            number(proof.figure).into(),
            number(proof.bound).into(),
            clean(&proof.compared).into(),
        ]
    };
    let rows: Vec<_> = proofs.iter().map(row).collect();
    let mut page = table(view, &["proof", "", ">found", ">at most", "compared"], &rows);
    for proof in proofs.iter().filter(|proof| !proof.held) {
        let _ = writeln!(page, "{}: {}", proof.claim.sentence(), clean(&proof.remedy));
    }
    page
}

/// Counts as they are, differences in two digits.
fn number(value: f64) -> String {
    if value == value.trunc() && value < 1e9 { fixed(value, 0) } else { format!("{value:.1e}") }
}
