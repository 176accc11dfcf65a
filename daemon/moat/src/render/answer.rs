use moat_contracts::Completion;

use super::text::{clean, clean_lines, count};
use super::{Tone, View};

/// What each model answered, one below the other.
pub(super) fn answer(view: &View, completions: &[Completion]) -> String {
    let pages: Vec<_> = completions.iter().map(|completion| one(view, completion)).collect();
    pages.join("\n")
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
