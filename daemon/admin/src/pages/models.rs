//! Models: runs whose edge was measured, their edge source by source, their lineage, and the request for an export.

use std::collections::BTreeMap;

use maud::{Markup, html};
use moat_contracts::{EdgeReport, Interval, SourceEdge};
use moat_protocol::control::{Reply, Request, Run};
use moat_rights::Act;

use super::approvals::proof;
use super::overview::edge;
use crate::Refusal;
use crate::draw::curve::figure;
use crate::draw::parts::{bytes, chip, count, fact, hash, numbers, short, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// All models.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    let models: Vec<_> = runs.iter().rev().filter(|run| run.edge.is_some()).collect();
    let body = html! {
        div.head { h1 { "Models" } a href="/bases" { "Bases" } }
        @if models.is_empty() {
            p.empty { "No model yet. A run whose edge was measured is one." }
        } @else {
            (table("Models", &[words("Model"), words("Base"), words("Dataset"), words("Made"), numbers("Edge"), words("Verdict")], html! {
                @for run in &models { (row(run)) }
            }))
            (across(&models))
        }
    };
    Ok(Page::of("/models", "Models", body))
}

/// The same data learnt by different bases: for each, its newest model.
fn across(models: &[&Run]) -> Markup {
    let mut same: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in models {
        let runs = same.entry(run.recipe.data_hash().to_string()).or_default();
        // The newest come first.
        if !runs.iter().any(|known| known.recipe.base == run.recipe.base) {
            runs.push(run);
        }
    }
    same.retain(|_, runs| runs.len() > 1);
    html! {
        @if !same.is_empty() {
            section aria-labelledby="across" {
                h2 #across { "Edge across bases" }
                p.soft { "Models whose recipes select and split the same, on different bases. Bits per byte compare across tokenizers; "
                    "where a model was measured on other held-back records than the first one, it says so." }
                @for runs in same.values() { (one_data(runs)) }
            }
        }
    }
}

fn one_data(runs: &[&Run]) -> Markup {
    let reports: Vec<_> = runs.iter().filter_map(|run| Some((*run, run.edge.as_ref()?))).collect();
    let ends = reports
        .iter()
        .filter_map(|(_, report)| report.all.edge)
        .flat_map(|edge| [edge.low.abs(), edge.high.abs()]);
    let reach = ends.fold(1e-9, f64::max) * 1.1;
    let first = reports.first().map(|(_, report)| (report.all.records, report.all.bytes));
    let heads = [
        words("Base"),
        words("Model"),
        numbers("Held back"),
        numbers("Base"),
        numbers("Tuned"),
        numbers("Saved"),
        words("Interval"),
    ];
    table(
        "The same data on different bases",
        &heads,
        html! {
            @for (run, report) in &reports {
                tr {
                    th scope="row" { (run.recipe.base) }
                    td { a href=(path(&["models", &run.name])) { (run.name) } }
                    td.n { (short(report.all.records))
                        @if Some((report.all.records, report.all.bytes)) != first { br; (chip("waits", "other records")) } }
                    td.n { (figure(report.all.base)) }
                    td.n { (figure(report.all.tuned)) }
                    @match report.all.edge {
                        Some(edge) => { td.n { (format!("{:+.4}", edge.value)) } td { (interval(edge, reach)) } },
                        None => td colspan="2" { span.soft { "too little for an interval" } },
                    }
                }
            }
        },
    )
}

fn row(run: &Run) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(path(&["models", &run.name])) { (run.name) } }
            td { (run.recipe.base) }
            td { @if let Some(id) = &run.dataset { a href=(path(&["datasets", &id.to_string()])) { (hash(id)) } } }
            td { (time(run.created)) }
            @if let Some(report) = &run.edge {
                td.n { (edge(report.all.edge.as_ref())) }
                td { (verdict(report)) }
            }
        }
    }
}

fn verdict(report: &EdgeReport) -> Markup {
    match (report.has_edge, report.all.edge) {
        (true, _) => chip("good", "better than its base"),
        (false, Some(_)) => chip("waits", "no edge"),
        (false, None) => chip("quiet", "too little held back to know"),
    }
}

/// One model.
pub(crate) async fn model(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    let run = reply_of!(visit.ask(Request::Run { name }).await?, Reply::Run(run) => run);
    let Some(report) = &run.edge else {
        return Err(Refusal::request(&format!(
            "run {} has no model yet: its edge is not measured",
            run.name
        )));
    };
    let body = html! {
        p.trail { a href="/models" { "Models" } }
        div.head {
            h1 { (run.name) " " (verdict(report)) }
            div.row {
                a href=(format!("{}/card", path(&["models", &run.name]))) { "Model card" }
                @if visit.may(Act::ModelAsk) { a.button href=(path(&["playground", &run.name])) { "Take it to the playground" } }
            }
        }
        (edges(report))
        @if visit.may(Act::RecordRead) && visit.may(Act::ModelAsk) {
            section.panel aria-labelledby="samples" {
                h2 #samples { "Samples side by side" }
                p { "A held-back record's beginning, what it really goes on with, and what base and tuned model make of it. That you read it is on record in the ledger." }
                (sample_form(&visit, &run.name, 1, "Show a sample"))
            }
        }
        (lineage(&run))
        @if visit.may(Act::ExportRequest) { (export(&visit, &run)) }
    };
    Ok(Page::of("/models", format!("Model {}", run.name), body))
}

fn sample_form(visit: &Visit, run: &str, number: u64, words: &str) -> Markup {
    html! {
        form method="post" action={ (path(&["models", run])) "/sample" } {
            (token(visit.token()))
            input type="hidden" name="number" value=(number);
            button.plain { (words) }
        }
    }
}

/// Shows how base and tuned model go on from a held-back record's beginning.
pub(crate) async fn sample(visit: Visit) -> Result<Outcome, Refusal> {
    let number = visit.form.word("number").map(str::parse).transpose();
    let number = number.map_err(|_| Refusal::request("the number of a record is a number"))?;
    let request = Request::RunSample { name: visit.segments[0].clone(), number, tokens: None };
    let sample = reply_of!(visit.ask(request).await?, Reply::Sample(sample) => sample);
    let at = path(&["models", &sample.run]);
    let made = |model: &str| sample.completions.iter().find(|answer| answer.model == model);
    let panel = |title: &str, text: &str, under: Markup| {
        html! {
            section.panel aria-label=(title) {
                h2 { (title) }
                p.answer { @if !sample.chat { span.soft { (sample.beginning) } } (text) }
                p.soft { (under) }
            }
        }
    };
    let answer = |title: &str, model: &str| {
        html! {
            @if let Some(answer) = made(model) {
                (panel(title, &answer.text, html! { (count(answer.tokens.len() as u64)) " tokens, the likeliest each time"
                    @if answer.stopped { ", ended by itself" } }))
            }
        }
    };
    let body = html! {
        p.trail { a href="/models" { "Models" } " / " a href=(at) { (sample.run) } }
        h1 { "Held-back record " (count(sample.number)) " of " (count(sample.of)) }
        p.soft { "Record " (hash(&sample.record.0)) " of source " (sample.source) ". None of these models was trained on it." }
        @if sample.chat { section.panel aria-label="What was asked" { h2 { "What was asked" } p.answer { (sample.beginning) } } }
        div.columns {
            (panel("The record", &sample.rest, html! { @if sample.more { "its first part" } @else { "to its end" } }))
            (answer("Base", "base"))
            (answer("Tuned", "tuned"))
        }
        div.row {
            @if sample.number > 1 { (sample_form(&visit, &sample.run, sample.number - 1, "The one before")) }
            @if sample.number < sample.of { (sample_form(&visit, &sample.run, sample.number + 1, "The next one")) }
            form method="post" action="/playground/take" {
                (token(visit.token()))
                input type="hidden" name="run" value=(sample.run);
                input type="hidden" name="prompt" value=(sample.beginning);
                @if sample.chat { input type="hidden" name="chat" value="yes"; }
                button.plain { "Take it to the playground" }
            }
        }
    };
    Ok(Page::of("/models", format!("A sample of {}", sample.run), body))
}

/// The model card, as an export holds it.
pub(crate) async fn card(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    let card =
        reply_of!(visit.ask(Request::RunCard { name: name.clone() }).await?, Reply::Card(card) => card);
    let at = path(&["models", &name]);
    let body = html! {
        p.trail { a href="/models" { "Models" } " / " a href=(at) { (name) } }
        div.head { h1 { "Model card of " (name) } a href={ (at) "/card.md" } { "Save it as a file" } }
        p.soft { "The very text that an export of this model holds as README.md: counts and hashes, nothing of the data." }
        pre { code { (card) } }
    };
    Ok(Page::of("/models", format!("Model card of {name}"), body))
}

/// The model card as a file.
pub(crate) async fn card_file(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    let card =
        reply_of!(visit.ask(Request::RunCard { name: name.clone() }).await?, Reply::Card(card) => card);
    let safe = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
    let name: String = name.chars().filter(safe).collect();
    Ok(Outcome::File(format!("{name}.md"), "text/markdown; charset=utf-8", card))
}

/// The edge, all in all and by source, with its intervals.
pub(crate) fn edges(report: &EdgeReport) -> Markup {
    let with_interval = |edge: &SourceEdge| edge.edge;
    let all = report
        .sources
        .values()
        .chain([&report.all])
        .filter_map(with_interval)
        .chain([report.forgetting.lost]);
    let reach = all.flat_map(|edge| [edge.low.abs(), edge.high.abs()]).fold(1e-9, f64::max) * 1.1;
    let heads = [
        words("On"),
        numbers("Records"),
        numbers("Size"),
        numbers("Base"),
        numbers("Tuned"),
        numbers("Saved"),
        words("Interval"),
    ];
    html! {
        p.soft { "Bits per byte on what was held back, with intervals of " (format!("{:.0}", report.confidence * 100.0))
            "\u{202f}% from " (count(u64::from(report.resamples))) " resamples. Fewer bits are better." }
        @if let Some(preference) = &report.preference {
            p { "Against its base it raises the chosen answer above the rejected one in "
                strong { (format!("{:.1}", preference.accuracy * 100.0)) "\u{202f}%" }
                " of " (count(preference.pairs)) " held-back preferences"
                @if let Some(range) = preference.interval {
                    (format!(" (interval {:.1} to {:.1}\u{202f}%)", range.low * 100.0, range.high * 100.0))
                }
                "; a half is chance. The bits are those of the chosen answers." }
        }
        (table("Edge by source", &heads, html! {
            (edge_row("All sources", &report.all, reach))
            @if report.sources.len() > 1 { @for (name, source) in &report.sources { (edge_row(name, source, reach)) } }
            tr {
                @let lost = &report.forgetting;
                th scope="row" { "Other text " span.soft { (lost.text) } }
                td.n { "–" }
                td.n { (bytes(lost.bytes)) }
                td.n { (figure(lost.base)) }
                td.n { (figure(lost.tuned)) }
                td.n { span title="what tuning forgot" { (format!("{:+.4}", -lost.lost.value)) } }
                td { (interval(Interval { value: -lost.lost.value, low: -lost.lost.high, high: -lost.lost.low }, reach)) }
            }
        }))
    }
}

fn edge_row(name: &str, source: &SourceEdge, reach: f64) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            td.n { (short(source.records)) }
            td.n { (bytes(source.bytes)) }
            td.n { (figure(source.base)) }
            td.n { (figure(source.tuned)) }
            @match source.edge {
                Some(edge) => { td.n { (format!("{:+.4}", edge.value)) } td { (interval(edge, reach)) } },
                None => td colspan="2" { span.soft { "too little for an interval" } },
            }
        }
    }
}

/// An interval around its figure, on a scale with 0 in its middle.
fn interval(edge: Interval, reach: f64) -> Markup {
    let x = |value: f64| format!("{:.1}", 50.0 + value / reach * 50.0);
    let told = format!("between {:+.4} and {:+.4} bits per byte", edge.low, edge.high);
    html! {
        svg.interval .sure[edge.low > 0.0] .worse[edge.high < 0.0] viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=(told) {
            line.zero x1="50" x2="50" y1="0" y2="10" {}
            line.range x1=(x(edge.low)) x2=(x(edge.high)) y1="5" y2="5" {}
            path.value d={ "M" (x(edge.value)) " 5h0" } {}
        }
    }
}

fn lineage(run: &Run) -> Markup {
    html! {
        section.panel aria-labelledby="lineage" {
            h2 #lineage { "Lineage" }
            dl.facts {
                (fact("Run", html! { a href=(path(&["runs", &run.name])) { (run.name) } ", asked for " (time(run.created)) }))
                (fact("Recipe", html! { (run.recipe.name) " " (hash(&run.recipe_hash)) }))
                (fact("Base", html! { (run.recipe.base) @if let Some(base) = &run.base { " " (hash(base)) } }))
                @if let Some(id) = &run.dataset { (fact("Dataset", html! { a href=(path(&["datasets", &id.to_string()])) { (hash(id)) } })) }
                @if let Some(outcome) = &run.outcome { (fact("Weights", hash(&outcome.weights))) }
            }
        }
    }
}

fn export(visit: &Visit, run: &Run) -> Markup {
    html! {
        section.panel aria-labelledby="export" {
            h2 #export { "Ask for an export" }
            p { "Adapter, merged model, card, lineage and sums go into a new folder once somebody else agrees. What is asked for is \
                 completed now, and lies here sealed until then." }
            form.stack method="post" action={ (path(&["models", &run.name])) "/export" } {
                (token(visit.token()))
                label for="folder" { "Folder" }
                input #folder name="folder" required autocomplete="off" spellcheck="false" placeholder="a new folder in one of boundary.exports";
                label for="recipient" { "Recipient's age key " span.soft { "(optional)" } }
                input #recipient name="recipient" autocomplete="off" spellcheck="false" placeholder="age1…; empty: the files are plain";
                (super::approvals::proof_fields("export"))
                button { "Ask for it" }
            }
        }
    }
}

/// Asks for an export.
pub(crate) async fn ask_export(visit: Visit) -> Result<Outcome, Refusal> {
    let run = visit.segments[0].clone();
    let Some(folder) = visit.form.word("folder").map(ToOwned::to_owned) else {
        return Err(Refusal::request("no folder was given"));
    };
    let recipient = visit.form.word("recipient").map(ToOwned::to_owned);
    let request = Request::Export { run, folder, recipient, proof: proof(&visit) };
    let statement = reply_of!(visit.ask(request).await?, Reply::Statement(statement) => statement);
    Ok(visit.done(
        path(&["approvals", &statement.id]),
        "It is asked for, and waits for somebody else.".to_owned(),
    ))
}
