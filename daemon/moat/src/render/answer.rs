use moat_contracts::Completion;
use moat_protocol::control::Sample;

use super::text::{clean, clean_lines, count};
use super::{Tone, View};

/// What each model answered, one below the other.
pub(super) fn answer(view: &View, completions: &[Completion]) -> String {
    let pages: Vec<_> = completions.iter().map(|completion| one(view, completion)).collect();
    pages.join("\n")
}

/// A held-back record's beginning, what it goes on with, and what each model would.
pub(super) fn sample(view: &View, sample: &Sample) -> String {
    let faint = |text: &str| view.paint(Tone::Faint, text);
    let lines = |text: &str| format!("{}\n", clean_lines(text).trim_end());
    let what = format!(
        "held-back record {} of {}, {} of {}",
        count(sample.number),
        count(sample.of),
        sample.record.0.short(),
        clean(&sample.source)
    );
    let more = if sample.more { "the record (first part)" } else { "the record" };
    format!(
        "{}\n{}\n{}\n{}\n{}",
        faint(&what),
        lines(&sample.beginning),
        view.paint(Tone::Strong, more),
        lines(sample.rest.trim_start_matches(['\n', '\r'])),
        answer(view, &sample.completions)
    )
}

fn one(view: &View, completion: &Completion) -> String {
    let end = if completion.stopped { "" } else { ", cut at --max-tokens" };
    let facts = format!(
        "{} tokens at {:.0} a second{end}",
        count(completion.tokens.len() as u64),
        completion.tokens_per_second
    );
    let text = clean_lines(&completion.text);
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    format!(
        "{} {}\n{text}{newline}",
        view.paint(Tone::Strong, &clean(&completion.model)),
        view.paint(Tone::Faint, &format!("({facts})")),
    )
}
