//! Several runs side by side.

use maud::{Markup, html};
use moat_contracts::{EdgeDifference, Interval, TrainOutcome};
use moat_protocol::control::{Against, Comparison, Reply, Request, Run, StepPoint};

use super::overview::{edge, tone};
use super::runs::{dots, joined, mebibytes};
use crate::Refusal;
use crate::draw::curve::{Dot, Line, figure, overlay};
use crate::draw::parts::{bytes, chip, count, hash, titled};
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// What stands between the names of runs in an address: no name has one.
const BETWEEN: char = '~';

/// Goes to the page of the runs that were chosen.
pub(crate) async fn go(visit: Visit) -> Result<Outcome, Refusal> {
    let names: Vec<&str> = visit.form.all("run").collect();
    if names.len() < 2 {
        return Err(Refusal::request("choose at least two runs to compare"));
    }
    let to = path(&["runs", "compare", &names.join(&BETWEEN.to_string())]);
    Ok(Outcome::Go { to, cookies: Vec::new() })
}

/// Runs side by side.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let names = visit.segments[0].split(BETWEEN).map(ToOwned::to_owned).collect();
    let reply = visit.ask(Request::RunCompare { names }).await?;
    let found = *reply_of!(reply, Reply::Comparison(found) => found);
    let body = html! {
        p.trail { a href="/runs" { "Runs" } }
        h1 { "Runs side by side" }
        (verdicts(&found))
        (curves(&found))
        (facts(&found))
        (recipes(&found))
    };
    Ok(Page::of("/runs", "Runs side by side", body))
}

/// How sure it is that the edges differ.
fn verdicts(found: &Comparison) -> Markup {
    let first = found.runs.first().map_or("", |run| run.name.as_str());
    html! {
        section.panel aria-labelledby="against" {
            h2 #against { "Against " (first) }
            ul.list { @for against in &found.against { li { (verdict(against)) } } }
            @if found.against.len() > 1 {
                p.soft { "Each interval is a little wider than that of one comparison would be, so that all of them hold together." }
            }
        }
    }
}

fn verdict(against: &Against) -> Markup {
    let Some(difference) = &against.difference else {
        return html! {
            strong { (against.run) } " " (chip("quiet", "not compared")) " "
            span.soft { (against.why.as_deref().unwrap_or_default()) "." }
        };
    };
    let (tone, word) = match (difference.is_sure(), difference.edge.value > 0.0) {
        (true, true) => ("good", "better"),
        (true, false) => ("bad", "worse"),
        (false, _) => ("quiet", "may be chance"),
    };
    let EdgeDifference { records, confidence, edge, saved } = difference;
    html! {
        strong { (against.run) } " " (chip(tone, word)) " "
        (interval(edge)) " of edge"
        @if !against.same_base { ", and on another base; its tuned model saves " (interval(saved)) }
        span.soft { ", " (format!("{:.1}", confidence * 100.0)) "\u{202f}% interval, on " (count(*records)) " held-back records"
            @if !against.same_dataset { " that both have" } "." }
    }
}

fn interval(interval: &Interval) -> Markup {
    html! {
        span title=(interval.value) { (format!("{:+.4}", interval.value)) } " bits/byte (" (format!("{:+.4}", interval.low)) " to "
        (format!("{:+.4}", interval.high)) ")"
    }
}

fn curves(found: &Comparison) -> Markup {
    let lines = |of: &dyn Fn(&Run) -> Vec<Dot>| -> Vec<Line<'_>> {
        found.runs.iter().map(|run| Line { name: &run.name, points: of(run) }).collect()
    };
    let draw = |title: &str, unit: &str, value: fn(&StepPoint) -> f64| {
        overlay(title, unit, &lines(&|run| dots(&joined(&run.course), value)))
    };
    let looks = |run: &Run| run.course.validations.iter().map(|look| Dot::at(look.step, look.loss)).collect();
    html! {
        ul.legend aria-label="Colours of the lines" {
            @for (number, run) in found.runs.iter().enumerate() {
                li class={ "line-" (number) } { a href=(path(&["runs", &run.name])) { (run.name) } }
            }
        }
        div.curves {
            (draw("Loss", "nats a token", |point| point.loss))
            (overlay("Validation loss", "nats a token", &lines(&looks)))
            (draw("Gradient norm", "before clipping", |point| point.gradient_norm))
            (draw("Learning rate", "", |point| point.learning_rate))
            (draw("Speed", "tokens a second", |point| point.tokens_per_second))
            (draw("Memory", "MiB at most so far", mebibytes))
        }
    }
}

fn facts(found: &Comparison) -> Markup {
    let none = || html! { span.soft { "–" } };
    let outcome = |run: &Run, of: &dyn Fn(&TrainOutcome) -> Option<Markup>| {
        run.outcome.as_ref().and_then(of).unwrap_or_else(none)
    };
    let number = |value: f64| html! { span title=(value) { (figure(value)) } };
    let row = |title: &str, of: &dyn Fn(&Run) -> Markup| {
        html! { tr { th scope="row" { (title) } @for run in &found.runs { td.n { (of(run)) } } } }
    };
    titled(
        "What came of them",
        &heads("What came of them", found),
        html! {
            (row("State", &|run| chip(tone(run.state.word()), run.state.word())))
            (row("Base", &|run| html! { (run.recipe.base) }))
            (row("Dataset", &|run| match &run.dataset {
                Some(id) => html! { a href=(path(&["datasets", &id.to_string()])) { (hash(id)) } },
                None => none(),
            }))
            (row("Steps", &|run| html! { (count(run.steps)) }))
            (row("Tokens", &|run| outcome(run, &|outcome| Some(html! { (count(outcome.tokens)) }))))
            (row("Loss at the end", &|run| outcome(run, &|outcome| Some(number(outcome.last_loss)))))
            (row("Validation loss", &|run| outcome(run, &|outcome| Some(number(outcome.validation?.kept)))))
            (row("Peak memory", &|run| outcome(run, &|outcome| (outcome.peak_memory > 0).then(|| bytes(outcome.peak_memory)))))
            (row("Tuned, bits per byte", &|run| run.edge.as_ref().map_or_else(none, |report| number(report.all.tuned))))
            (row("Edge", &|run| run.edge.as_ref().map_or_else(none, |report| edge(report.all.edge.as_ref()))))
            (row("Forgotten", &|run| run.edge.as_ref().map_or_else(none, |report| number(report.forgetting.lost.value))))
        },
    )
}

fn heads<'a>(title: &'a str, found: &'a Comparison) -> Vec<(&'a str, bool)> {
    std::iter::once((title, false)).chain(found.runs.iter().map(|run| (run.name.as_str(), true))).collect()
}

/// What differs in the recipes, key by key.
fn recipes(found: &Comparison) -> Markup {
    html! {
        section aria-labelledby="recipes" {
            h2 #recipes { "What differs in their recipes" }
            @if found.recipe.is_empty() { p.empty { "Nothing: their recipes say the same." } } @else {
                (titled("What differs in their recipes", &heads("Key", found), html! {
                    @for difference in &found.recipe {
                        tr {
                            th scope="row" { code { (difference.key) } }
                            @for value in &difference.values { td.n { @if value.is_empty() { span.soft { "–" } } @else { (value) } } }
                        }
                    }
                }))
            }
        }
    }
}
