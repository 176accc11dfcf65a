//! Sweeps: all of them, and one with its runs over parallel axes and in a table.

use maud::{Markup, html};
use moat_protocol::control::{Reply, Request, RunState, SweepReport, SweepRun, SweepState, Update};
use moat_rights::Act;

use super::overview::{edge, tone};
use crate::Refusal;
use crate::draw::curve::figure;
use crate::draw::parallel::{Thread, chosen, measured, parallel};
use crate::draw::parts::{bytes, chip, count, fact, numbers, table, time, titled, words};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

/// All sweeps.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let sweeps = reply_of!(visit.ask(Request::Sweeps).await?, Reply::Sweeps(sweeps) => sweeps);
    let heads = [
        words("Sweep"),
        words("State"),
        words("Varies"),
        numbers("Done"),
        numbers("Failed"),
        words("Lowest validation loss"),
        words("Asked for"),
    ];
    let body = html! {
        p.trail { a href="/runs" { "Runs" } }
        div.head {
            h1 { "Sweeps" }
            @if visit.may(Act::RunStart) { a.button href="/runs/new" { "New sweep" } }
        }
        @if sweeps.is_empty() {
            p.empty { "No sweep yet. A recipe with a table " code { "[sweep]" } " gives several values to some of its keys, and is run at \
                       each point of their grid." }
        } @else {
            (table("Sweeps", &heads, html! {
                @for sweep in sweeps.iter().rev() {
                    tr {
                        th scope="row" { a href=(path(&["sweeps", &sweep.name])) { (sweep.name) } }
                        td { (state(sweep.state)) }
                        td { (sweep.keys.join(", ")) }
                        td.n { (count(sweep.done)) " of " (count(sweep.of)) }
                        td.n { (count(sweep.failed)) }
                        td { @match &sweep.best { Some(run) => a href=(path(&["runs", run])) { (run) }, None => span.soft { "–" } } }
                        td { (time(sweep.created)) }
                    }
                }
            }))
        }
    };
    Ok(Page::of("/runs", "Sweeps", body))
}

fn state(state: SweepState) -> Markup {
    chip(
        match state {
            SweepState::Queued => "quiet",
            SweepState::Running => "live",
            SweepState::Stopped => "waits",
            SweepState::Done => "good",
        },
        state.word(),
    )
}

async fn found(visit: &Visit) -> Result<SweepReport, Refusal> {
    let name = visit.segments[0].clone();
    Ok(*reply_of!(visit.ask(Request::Sweep { name }).await?, Reply::Sweep(sweep) => sweep))
}

/// One sweep.
pub(crate) async fn one(visit: Visit) -> Result<Outcome, Refusal> {
    let sweep = found(&visit).await?;
    let active = matches!(sweep.state, SweepState::Queued | SweepState::Running);
    let at = path(&["sweeps", &sweep.name]);
    let ended = |run: &SweepRun| matches!(run.state, RunState::Stopped | RunState::Failed);
    let body = html! {
        p.trail { a href="/runs" { "Runs" } " / " a href="/sweeps" { "Sweeps" } }
        div.head {
            h1 { (sweep.name) }
            @if active && visit.may(Act::RunStop) {
                form method="post" action={ (at) "/stop" } { (token(visit.token())) button.plain { "Stop" } }
            }
            @if sweep.runs.iter().any(ended) && visit.may(Act::RunStart) {
                form method="post" action={ (at) "/resume" } { (token(visit.token())) button.plain { "Resume stopped and failed runs" } }
            }
        }
        @if active { div data-live={ "/live" (at) } { (results(&sweep)) } } @else { (results(&sweep)) }
        section.panel aria-labelledby="asked" {
            h2 #asked { "What was asked for" }
            dl.facts {
                (fact("Base", &sweep.base))
                (fact("Varies", sweep.keys.join(", ")))
                (fact("Asked for", time(sweep.created)))
            }
        }
    };
    Ok(Page::of("/runs", format!("Sweep {}", sweep.name), body))
}

/// What came of a sweep so far.
fn results(sweep: &SweepReport) -> Markup {
    html! {
        div.progress {
            (state(sweep.state))
            span { strong { (count(sweep.done)) } " of " (count(sweep.of)) " runs done" }
            @if sweep.failed > 0 { (chip("bad", &format!("{} failed", count(sweep.failed)))) }
        }
        progress.steps max=(sweep.of) value=(sweep.done + sweep.failed) aria-label="Runs ended" { (sweep.done + sweep.failed) }
        (choice(sweep))
        (axes(sweep))
        (runs(sweep))
    }
}

fn choice(sweep: &SweepReport) -> Markup {
    html! {
        @if !sweep.validated {
            p.note.bad { "These runs have no validation side, so there is nothing to choose by: set " code { "split.validation" }
                " above 0. The edge is what is measured; choosing by it would flatter it." }
        } @else if let Some(best) = &sweep.best {
            p { "Lowest validation loss so far: " a href=(path(&["runs", best])) { strong { (best) } }
                ". The edge beside it was not chosen by, so it is what it says." }
        } @else {
            p.soft { "No run is done yet. They will be sorted by their validation loss; the edge is shown beside it." }
        }
    }
}

/// The runs as threads over what varies and what came of it.
fn axes(sweep: &SweepReport) -> Markup {
    let mut drawn = Vec::new();
    let mut places = Vec::new();
    let mut add = |(axis, of): (_, Vec<Option<f64>>)| {
        drawn.push(axis);
        places.push(of);
    };
    for (at, key) in sweep.keys.iter().enumerate() {
        let values: Vec<&str> =
            sweep.runs.iter().map(|run| run.values.get(at).map_or("", String::as_str)).collect();
        add(chosen(key, &values));
    }
    let done = |value: fn(&SweepRun) -> Option<f64>| {
        let of = |run: &SweepRun| (run.state == RunState::Done).then(|| value(run)).flatten();
        sweep.runs.iter().map(of).collect::<Vec<_>>()
    };
    if sweep.validated {
        add(measured("validation loss", &done(|run| run.validation), true));
    }
    add(measured("loss", &done(|run| run.loss), true));
    add(measured("edge", &done(|run| run.edge.map(|edge| edge.value)), false));
    let thread = |(at, run): (usize, &SweepRun)| {
        let values: Vec<String> =
            sweep.keys.iter().zip(&run.values).map(|(key, value)| format!("{key} = {value}")).collect();
        let loss =
            run.validation.map(|loss| format!(", validation loss {}", figure(loss))).unwrap_or_default();
        Thread {
            told: format!("{}: {}{loss}", run.run, values.join(", ")),
            places: places.iter().map(|of| of[at]).collect(),
            best: sweep.best.as_deref() == Some(&run.run),
        }
    };
    let threads: Vec<Thread> = sweep.runs.iter().enumerate().map(thread).collect();
    parallel("Runs over parallel axes", &drawn, &threads)
}

fn runs(sweep: &SweepReport) -> Markup {
    let mut heads = vec![("Run", false), ("State", false)];
    heads.extend(sweep.keys.iter().map(|key| (key.as_str(), true)));
    let results = ["Validation loss", "Loss", "Edge", "Steps", "Peak memory"];
    heads.extend(results.map(|title| (title, true)));
    let number = |value: Option<f64>| match value {
        Some(value) => html! { span title=(value) { (figure(value)) } },
        None => html! { span.soft { "–" } },
    };
    titled(
        "Runs by their validation loss",
        &heads,
        html! {
            @for run in &sweep.runs {
                tr {
                    th scope="row" {
                        a href=(path(&["runs", &run.run])) { (run.run) }
                        @if sweep.best.as_deref() == Some(&run.run) { " " span.state.good { "lowest" } }
                    }
                    td { (chip(tone(run.state.word()), run.state.word())) @if let Some(message) = &run.message { br; span.soft { (message) } } }
                    @for value in &run.values { td.n { (value) } }
                    td.n { (number(run.validation)) @if run.validation.is_some() && run.state != RunState::Done { span.soft { " so far" } } }
                    td.n { (number(run.loss)) }
                    td.n { @if run.edge.is_some() { (edge(run.edge.as_ref())) } @else { span.soft { "–" } } }
                    td.n { (count(run.steps)) @if let Some(planned) = run.planned.filter(|planned| *planned != run.steps) { " of " (count(planned)) } }
                    td.n { @match run.peak_memory { Some(memory) => (bytes(memory)), None => span.soft { "–" } } }
                }
            }
        },
    )
}

/// One sweep as it goes on.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    let sweep = found(&visit).await?;
    let request = Request::SweepWatch { name: sweep.name.clone() };
    let hear = |known: &mut SweepReport, update: Update| {
        if let Update::Sweep(sweep) = update {
            *known = *sweep;
        }
    };
    Ok(live::watch(visit, Needs::Act(Act::StatusRead), request, sweep, hear, results))
}

/// Stops a sweep.
pub(crate) async fn stop(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    let note = match visit.begin(Request::SweepStop { name: name.clone() }).await? {
        Some(_) => "The sweep has stopped; it can be resumed.",
        None => "The runs that waited have stopped; the one in hand stops at its next checkpoint.",
    };
    Ok(visit.done(path(&["sweeps", &name]), note.to_owned()))
}

/// Puts a sweep's stopped and failed runs into the queue again.
pub(crate) async fn resume(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    visit.ask(Request::SweepResume { name: name.clone() }).await?;
    Ok(visit.done(path(&["sweeps", &name]), "The runs are in the queue again.".to_owned()))
}
