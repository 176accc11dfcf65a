//! Sources: where each stands, what was found in it, what became of that.

use std::collections::BTreeMap;

use maud::{Markup, html};
use moat_protocol::control::{Request, SourceStatus, Status};
use moat_rights::Act;

use super::overview::{self, state};
use crate::Refusal;
use crate::draw::parts::{
    bytes, chip, count, duration, fact, numbers, proportions, short, table, time, words,
};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit};

/// The page.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let status = overview::status(&visit).await?;
    let body = html! {
        div.head {
            h1 { "Sources" }
            div.row {
                @if visit.may(Act::SourceScan) && !status.sources.is_empty() {
                    form method="post" action="/sources/scan" { (token(visit.token())) button.plain { "Look again now" } }
                }
                @if visit.may(Act::SourceChange) { a.button href="/new-source" { "New source" } }
            }
        }
        div data-live="/live/sources" { (draw(&visit, &status)) }
    };
    Ok(Page::of("/sources", "Sources", body))
}

/// The page as it goes on.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    Ok(live::part(visit, Needs::Act(Act::StatusRead), |visit| {
        Box::pin(async move { overview::status(visit).await.ok().map(|status| draw(visit, &status)) })
    }))
}

/// Has the sources looked at again.
pub(crate) async fn scan(visit: Visit) -> Result<Outcome, Refusal> {
    let note = match visit.begin(Request::Scan).await? {
        Some(_) => "Everything was looked at: what changed is taken in.",
        None => "The sources are being looked at: this page shows how it goes.",
    };
    Ok(visit.done("/sources".to_owned(), note.to_owned()))
}

fn draw(visit: &Visit, status: &Status) -> Markup {
    if status.sources.is_empty() {
        return html! {
            p.empty { "No source yet. A source is a folder or a git repository of this machine: "
                @if visit.may(Act::SourceChange) { a href="/new-source" { "ask for one" } ", and an approver agrees." }
                @else { "a steward asks for one, and an approver agrees." } }
        };
    }
    html! { @for (name, source) in &status.sources { (panel(name, source)) } }
}

/// One source, and what became of what is in it.
pub(crate) fn panel(name: &str, source: &SourceStatus) -> Markup {
    let verdict = |word: &str| source.verdicts.get(word).copied().unwrap_or(0);
    let (kept, redacted, dropped) = (verdict("kept"), verdict("redacted"), verdict("dropped"));
    html! {
        section.panel aria-label={ "Source " (name) } {
            div.head {
                h2 { a href=(path(&["sources", name])) { (name) } " " span.soft { (source.kind) } }
                p { (state(source)) }
            }
            @if let Some(fault) = &source.fault { p.note.bad { (fault) } }
            div.columns {
                dl.facts {
                    (fact("Where", html! { code { (source.location) } }))
                    (fact("Named by", html! {
                        @match &source.added {
                            Some(added) => {
                                (added.asked_by) " and " (added.agreed_by) ", " a href=(path(&["approvals", &added.statement])) { (time(added.since)) }
                            },
                            None => code { "moat.toml" },
                        }
                    }))
                    (fact("Documents", html! { (short(source.present)) ", " (bytes(source.bytes)) }))
                    (fact("Last scan", html! {
                        @match source.scanned {
                            Some(at) => {
                                (time(at)) ", " (count(source.read)) " opened"
                                @if let Some(took) = source.took { " in " (format!("{took:.1}\u{202f}s")) }
                            },
                            None => "none yet",
                        }
                    }))
                    (fact("Lag", lag(source)))
                    (fact("Next scan", html! {
                        @match source.due {
                            Some(at) => { (time(at)) ", every " (duration(source.rescan)) },
                            None if source.paused.is_some() => "none while it is paused",
                            None => "at once",
                        }
                    }))
                    (fact("Partly read", html! { (count(source.partial)) " documents" }))
                    (fact("Deleted since", html! { (count(source.deleted)) " documents" }))
                }
                div {
                    (proportions("Records", &[("kept", kept, "good"), ("redacted", redacted, "waits"), ("dropped", dropped, "quiet")]))
                    p.key { span.good { (short(kept)) " kept" } " " span.waits { (short(redacted)) " redacted" } " "
                        span.quiet { (short(dropped)) " dropped" } }
                    @if source.present > 0 && kept + redacted == 0 && !source.scanning {
                        p { (chip("waits", "Nothing of it can be trained on")) }
                    }
                }
            }
            (reasons("Not read, and why", "Reason", &source.skipped))
            (reasons("Dropped, and why", "Rule", &source.dropped))
            (reasons("Redacted", "What", &source.redactions))
        }
    }
}

/// By how much what is taken in lags behind.
fn lag(source: &SourceStatus) -> Markup {
    html! {
        @if source.lag > 0 {
            (chip("waits", &duration(source.lag)))
            @if source.fault.is_some() { " since the last whole scan" } @else { " since the first change that is not taken in" }
        } @else if source.scanned.is_some() { "none known of" } @else { "not known yet" }
        @if source.unsettled > 0 { ", " (count(source.unsettled)) " files are being written" }
    }
}

/// Counts by reason, the largest first, shown on demand.
fn reasons(title: &str, head: &'static str, counts: &BTreeMap<String, u64>) -> Markup {
    let mut counts: Vec<_> = counts.iter().filter(|(_, number)| **number > 0).collect();
    counts.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let all: u64 = counts.iter().map(|(_, number)| **number).sum();
    html! {
        @if !counts.is_empty() {
            details {
                summary { (title) " " span.soft { (count(all)) } }
                (table(title, &[words(head), numbers("Count")], html! {
                    @for (reason, number) in counts { tr { th scope="row" { (reason) } td.n { (count(*number)) } } }
                }))
            }
        }
    }
}
