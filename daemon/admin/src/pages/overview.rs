//! The whole factory at a glance: the line from sources to answers, what waits for a person, what is wrong.

use maud::{Markup, Render, html};
use moat_contracts::Interval;
use moat_protocol::control::{REVIEW_COUNT, Reply, Request, SourceStatus, Status, Training};
use moat_rights::Act;

use super::door;
use super::way::way;
use crate::Refusal;
use crate::draw::parts::{self, bytes, chip, count, numbers, short, table, time, words};
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

/// The overview for whoever is signed in, the door for everybody else.
pub(crate) async fn front(visit: Visit) -> Result<Outcome, Refusal> {
    if visit.here.is_none() {
        return door::show(visit).await;
    }
    if !visit.may(Act::StatusRead) {
        let body = html! {
            h1 { "Welcome" }
            p.lead { "This account has no role yet, so there is nothing that it may see." }
            p { "An admin asks for its roles, and an approver agrees." }
        };
        return Ok(Page::of("/", "Welcome", body));
    }
    let status = status(&visit).await?;
    let body = html! {
        h1 { "Overview" }
        div data-live="/live/overview" { (draw(&visit, &status)) }
    };
    Ok(Page::of("/", "Overview", body))
}

/// The overview as it goes on.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    Ok(live::part(visit, Needs::Act(Act::StatusRead), |visit| {
        Box::pin(async move { status(visit).await.ok().map(|status| draw(visit, &status)) })
    }))
}

pub(crate) async fn status(visit: &Visit) -> Result<Status, Refusal> {
    Ok(*reply_of!(visit.ask(Request::Status).await?, Reply::Status(status) => status))
}

fn draw(visit: &Visit, status: &Status) -> Markup {
    html! {
        (way(visit, status))
        (line(visit, status))
        div.columns {
            (waits(visit, status))
            (wrong(visit, status))
        }
        (sources(status))
    }
}

/// One place on the line, with the page that tells more for whoever may see it.
fn station(title: &str, page: Option<&str>, big: impl Render, under: impl Render) -> Markup {
    html! {
        li.station {
            h2 { @match page { Some(page) => a href=(page) { (title) }, None => (title) } }
            p.big { (big) }
            div.under { (under) }
        }
    }
}

/// The counts of all sources together.
#[derive(Default)]
struct Sum {
    documents: u64,
    bytes: u64,
    kept: u64,
    redacted: u64,
    dropped: u64,
    scanning: usize,
}

fn sum(status: &Status) -> Sum {
    let mut sum = Sum::default();
    for source in status.sources.values() {
        let verdict = |word: &str| source.verdicts.get(word).copied().unwrap_or(0);
        sum.documents += source.present;
        sum.bytes += source.bytes;
        sum.kept += verdict("kept");
        sum.redacted += verdict("redacted");
        sum.dropped += verdict("dropped");
        sum.scanning += usize::from(source.scanning);
    }
    sum
}

fn line(visit: &Visit, status: &Status) -> Markup {
    let sum = sum(status);
    let made = &status.made;
    let records = sum.kept + sum.redacted + sum.dropped;
    let runs: u64 = made.runs.values().sum();
    html! {
        ol.line aria-label="The line from sources to answers" {
            (station("Sources", Some("/sources"), count(status.sources.len() as u64), html! {
                p { (short(sum.documents)) " documents" }
                p { (bytes(sum.bytes)) }
                (pace("documents in the last hour", &status.hour.documents))
                @if sum.scanning > 0 { p { (chip("live", &format!("{} scanning", sum.scanning))) } }
            }))
            (station("Records", Some("/data"), short(records), html! {
                (parts::proportions("Records", &[("kept", sum.kept, "good"), ("redacted", sum.redacted, "waits"), ("dropped", sum.dropped, "quiet")]))
                p.key { span.good { (short(sum.kept)) " kept" } }
                p.key { span.waits { (short(sum.redacted)) " redacted" } }
                p.key { span.quiet { (short(sum.dropped)) " dropped" } }
            }))
            (station("Datasets", Some("/data"), count(made.datasets), html! {
                @if made.datasets > 0 { p { (short(made.tokens)) " tokens in the newest" } } @else { p { "none built yet" } }
            }))
            (station("Runs", Some("/runs"), count(runs), html! {
                @for (state, number) in &made.runs { p.key { span class=(tone(state)) { (count(*number)) " " (state) } } }
                @if runs == 0 { p { "none yet" } }
                @if let Some(run) = &status.trains { (trains(run)) }
            }))
            (station("Models", visit.may(Act::EdgeRead).then_some("/models"), count(made.models), html! {
                @if made.models > 0 { p { (count(made.better)) " with an edge" } } @else { p { "none measured yet" } }
                @if let Some(newest) = &made.newest { p { (newest.run) ": " (edge(newest.edge.as_ref())) } }
            }))
            (station("Answers", visit.may(Act::ModelAsk).then_some("/playground"), short(made.answers), html! {
                p { "since " (parts::duration(status.uptime)) }
                (pace("in the last hour", &status.hour.answers))
            }))
        }
    }
}

/// How much came in each minute of the last hour.
fn pace(what: &str, hour: &[u64]) -> Markup {
    let (all, most) = (hour.iter().sum::<u64>(), hour.iter().copied().max().unwrap_or(0));
    html! {
        @if all > 0 {
            svg.pace viewBox={ "0 0 " (hour.len()) " 10" } preserveAspectRatio="none" aria-hidden="true" {
                @for (at, number) in hour.iter().enumerate() {
                    @let high = *number as f64 / most as f64 * 10.0;
                    rect x=(at) y=(format!("{:.2}", 10.0 - high)) width="0.8" height=(format!("{high:.2}")) {}
                }
            }
            p { (short(all)) " " (what) }
        }
    }
}

/// How far the run is that trains.
fn trains(run: &Training) -> Markup {
    html! {
        p { a href=(path(&["runs", &run.run])) { (run.run) } ": step " (count(run.step))
            @if let Some(planned) = run.planned { " of " (count(planned)) } }
        @if run.tokens_per_second > 0.0 {
            p { (short(run.tokens_per_second.round() as u64)) " tokens/s"
                @if run.seconds_left > 0.0 { ", about " (parts::duration(run.seconds_left.round() as u64)) " left" } }
        }
    }
}

/// The colour of a run's state.
pub(crate) fn tone(state: &str) -> &'static str {
    match state {
        "done" => "good",
        "failed" => "bad",
        "stopped" => "waits",
        "queued" => "quiet",
        _ => "live",
    }
}

/// Bits per byte that a model saves, with the ends of the interval.
pub(crate) fn edge(edge: Option<&Interval>) -> Markup {
    match edge {
        None => html! { "too little held back" },
        Some(edge) => html! {
            span title={ "between " (format!("{:+.4}", edge.low)) " and " (format!("{:+.4}", edge.high)) " bits per byte" } {
                (format!("{:+.3}", edge.value)) " bits/byte"
            }
        },
    }
}

fn waits(visit: &Visit, status: &Status) -> Markup {
    let stopped = status.made.runs.get("stopped").copied().unwrap_or(0);
    let paused: Vec<_> =
        status.sources.iter().filter_map(|(name, source)| Some((name, source.paused?))).collect();
    html! {
        section.panel aria-labelledby="waits" {
            h2 #waits { "Waits for a person" }
            ul.list {
                @if status.waiting > 0 {
                    li { (chip("waits", &count(status.waiting))) " "
                        @if status.waiting == 1 { "request needs" } @else { "requests need" } " a second person: " a href="/approvals" { "Approvals" }
                        @if !visit.may(Act::ExportApprove) { span.soft { " – an approver" } } }
                }
                @if status.review > 0 {
                    li { (chip("waits", &if status.review >= REVIEW_COUNT { format!("{}+", count(REVIEW_COUNT)) } else { count(status.review) }))
                        @if status.review == 1 { " record may be looked at: " } @else { " records may be looked at: " }
                        @if visit.may(Act::VerdictReview) { a href="/review" { "Review" } } @else { span.soft { "by a steward" } } }
                }
                @if stopped > 0 { li { (chip("waits", &count(stopped))) " stopped " @if stopped == 1 { "run" } @else { "runs" } ": " a href="/runs" { "Runs" } } }
                @for (name, since) in &paused { li { (chip("waits", "paused")) " source " a href=(path(&["sources", name])) { (name) } span.soft { " since " (time(*since)) } } }
                @if status.sources.is_empty() { li { "No source is named yet: " @if visit.may(Act::SourceChange) { a href="/new-source" { "New source" } } @else { span.soft { "by a steward" } } } }
                @if status.waiting == 0 && status.review == 0 && stopped == 0 && paused.is_empty() && !status.sources.is_empty() { li.soft { "Nothing." } }
            }
        }
    }
}

fn wrong(visit: &Visit, status: &Status) -> Markup {
    let failed = status.made.runs.get("failed").copied().unwrap_or(0);
    let faults: Vec<_> =
        status.sources.iter().filter_map(|(name, source)| Some((name, source.fault.as_ref()?))).collect();
    let missing: Vec<_> = status.protections.iter().filter(|(_, had)| !**had).map(|(name, _)| name).collect();
    let open: Vec<_> = visit.health.canary.iter().filter(|(_, _, open)| *open > 0).collect();
    // A source is late where a second whole scan is due already.
    let late = |source: &&SourceStatus| {
        source.fault.is_none() && source.paused.is_none() && source.lag > 2 * source.rescan.max(60)
    };
    let late: Vec<_> = status.sources.iter().filter(|(_, source)| late(source)).collect();
    let unreadable = |source: &SourceStatus| source.skipped.get("unreadable").copied().unwrap_or(0);
    let closed: Vec<_> = status.sources.iter().filter(|(_, source)| unreadable(source) > 0).collect();
    let quiet = status.alarm.is_none()
        && faults.is_empty()
        && late.is_empty()
        && closed.is_empty()
        && failed == 0
        && missing.is_empty()
        && visit.health.open_ways() == 0;
    html! {
        section.panel aria-labelledby="wrong" {
            h2 #wrong { "Is wrong" }
            ul.list {
                @if let Some(alarm) = &status.alarm { li { (chip("bad", "alarm")) " " (alarm) } }
                @for (way, _, _) in open { li { (chip("bad", "way out open")) " " (way) ": " a href="/boundary" { "Boundary" } } }
                @for (name, source) in late { li { (chip("bad", "late")) " source " a href=(path(&["sources", name])) { (name) } " lags by " (parts::duration(source.lag)) } }
                @for (name, source) in closed { li { (chip("waits", "unreadable")) " " (count(unreadable(source))) " documents of " a href=(path(&["sources", name])) { (name) } } }
                @for (name, fault) in faults { li { (chip("bad", "source")) " " strong { (name) } ": " (fault) } }
                @if failed > 0 { li { (chip("bad", &count(failed))) " failed " @if failed == 1 { "run" } @else { "runs" } ": " a href="/runs" { "Runs" } } }
                @for name in missing { li { (chip("bad", "protection")) " " (name) ": this machine does not grant it" } }
                @if quiet { li.soft { "Nothing." } }
            }
        }
    }
}

fn sources(status: &Status) -> Markup {
    let heads = [
        words("Source"),
        words("State"),
        numbers("Documents"),
        numbers("Size"),
        numbers("Kept"),
        numbers("Redacted"),
        numbers("Dropped"),
        numbers("Not read"),
    ];
    html! {
        section aria-labelledby="sources" {
            h2 #sources { "Sources" }
            @if status.sources.is_empty() {
                p.empty { "No source yet. A source is a folder or a git repository that Moat may read." }
            } @else {
                (table("Sources", &heads, html! {
                    @for (name, source) in &status.sources { (row(name, source)) }
                }))
            }
        }
    }
}

fn row(name: &str, source: &SourceStatus) -> Markup {
    let verdict = |word: &str| source.verdicts.get(word).copied().unwrap_or(0);
    html! {
        tr {
            th scope="row" { a href=(path(&["sources", name])) { (name) } " " span.soft { (source.kind) } }
            td { (state(source)) }
            td.n { (short(source.present)) }
            td.n { (bytes(source.bytes)) }
            td.n { (short(verdict("kept"))) }
            td.n { (short(verdict("redacted"))) }
            td.n { (short(verdict("dropped"))) }
            td.n { (short(source.skipped.values().sum())) }
        }
    }
}

/// Where a source stands.
pub(crate) fn state(source: &SourceStatus) -> Markup {
    if source.removing {
        return chip("waits", "being removed");
    }
    if source.paused.is_some() {
        return chip("waits", "paused");
    }
    match (&source.fault, source.scanning, source.scanned) {
        (Some(_), ..) => chip("bad", "failed"),
        (_, true, _) => chip("live", "scanning"),
        (_, _, Some(at)) => html! { (chip("good", "in step")) " " span.soft { (time(at)) } },
        (_, _, None) => chip("quiet", "not scanned yet"),
    }
}
