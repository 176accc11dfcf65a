//! Data: why a document is in or out, the datasets, one dataset, what differs between two.

use std::collections::BTreeMap;

use maud::{Markup, html};
use moat_contracts::{DatasetSource, Reason, SplitCounts};
use moat_protocol::control::{
    DatasetDiff, DatasetFacts, DatasetSummary, DiffEntry, Reply, Request, Why, WhyRecord,
};
use moat_rights::Act;

use super::records::decided;
use crate::Refusal;
use crate::draw::parts::{bytes, chip, count, fact, hash, numbers, short, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Rows of a difference that are shown.
const ROWS: usize = 200;

/// The page of the data: a question about a document, and the datasets.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let datasets = reply_of!(visit.ask(Request::Datasets).await?, Reply::Datasets(datasets) => datasets);
    let body = html! {
        h1 { "Data" }
        @if visit.may(Act::RecordRead) {
            section.panel aria-labelledby="texts" {
                h2 #texts { "Records" }
                p.row { a.button href="/records" { "Search their texts" } a.button.plain href="/review" { "Review what waits" } a.button.plain href="/rules" { "Try other rules" } }
            }
        }
        @if visit.may(Act::RecordWhy) {
            section.panel aria-labelledby="why" {
                h2 #why { "What became of a document" }
                (question(&visit, ""))
            }
        }
        section aria-labelledby="datasets" {
            h2 #datasets { "Datasets" }
            (list(&datasets))
        }
        @if visit.may(Act::RecordWhy) && datasets.len() > 1 { (compare(&visit, &datasets)) }
    };
    Ok(Page::of("/data", "Data", body))
}

fn question(visit: &Visit, path: &str) -> Markup {
    html! {
        form.row method="post" action="/data/why" {
            (token(visit.token()))
            label.unseen for="path" { "Path of the document" }
            input #path name="path" value=(path) required placeholder="path in its source, or on the machine" autocomplete="off" spellcheck="false";
            button { "Why" }
        }
    }
}

fn list(datasets: &[DatasetSummary]) -> Markup {
    if datasets.is_empty() {
        return html! { p.empty { "No dataset is built yet. A run builds the one that its recipe selects." } };
    }
    let heads = [
        words("Dataset"),
        words("First built"),
        numbers("Records trained on"),
        numbers("Held back"),
        numbers("Tokens"),
    ];
    table(
        "Datasets",
        &heads,
        html! {
            @for dataset in datasets {
                tr {
                    th scope="row" { a href=(path(&["datasets", &dataset.id.to_string()])) { (hash(&dataset.id)) } }
                    td { (time(dataset.built)) }
                    td.n { (short(dataset.train)) }
                    td.n { (short(dataset.held_out)) }
                    td.n { (short(dataset.tokens)) }
                }
            }
        },
    )
}

fn compare(visit: &Visit, datasets: &[DatasetSummary]) -> Markup {
    let options = |chosen: usize| {
        html! {
            @for (at, dataset) in datasets.iter().enumerate() {
                option value=(dataset.id) selected[at == chosen] { (dataset.id.to_string().chars().take(12).collect::<String>()) }
            }
        }
    };
    html! {
        section.panel aria-labelledby="compare" {
            h2 #compare { "What differs between two" }
            form.row method="post" action="/data/compare" {
                (token(visit.token()))
                label for="older" { "Older" } select #older name="a" { (options(1)) }
                label for="newer" { "Newer" } select #newer name="b" { (options(0)) }
                button.plain { "Compare" }
            }
        }
    }
}

/// Tells of a document. It is asked for by a form, so that no path of the company's stands in an address.
pub(crate) async fn why(visit: Visit) -> Result<Outcome, Refusal> {
    let Some(path) = visit.form.word("path").map(ToOwned::to_owned) else {
        return Err(Refusal::request("no path was given"));
    };
    let found = reply_of!(visit.ask(Request::Why { path: path.clone() }).await?, Reply::Why(found) => found);
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { "What became of a document" }
        (question(&visit, &path))
        @for document in &found { (told(&visit, document)) }
    };
    Ok(Page::of("/data", "What became of a document", body))
}

fn told(visit: &Visit, why: &Why) -> Markup {
    html! {
        section.panel aria-label={ (why.source) ": " (why.path) } {
            div.head {
                h2 { span.soft { (why.source) " / " } (why.path) }
                p { (match why.state.as_str() {
                    "present" => chip("good", "present"),
                    "skipped" => chip("waits", "not read"),
                    _ => chip("quiet", "deleted"),
                }) }
            }
            dl.facts {
                @if let Some(skip) = &why.skip { (fact("Not read", skip)) }
                (fact("Size", bytes(why.size)))
                @if let Some(digest) = &why.digest { (fact("SHA-256", hash(digest))) }
                @if !why.faults.is_empty() {
                    (fact("Unreadable places", html! { @for fault in &why.faults { div { "line " (count(fault.line)) ": " (fault.what) } } }))
                }
                (fact("Reached", html! {
                    @if why.reached.is_empty() { span.soft { "no dataset and no model" } }
                    @for reached in &why.reached {
                        div {
                            a href=(path(&["datasets", &reached.dataset.to_string()])) { (hash(&reached.dataset)) }
                            @if reached.split == "train" { " trained on" } @else { " held back" }
                            @for run in &reached.runs { ", " a href=(path(&["runs", run])) { (run) } }
                        }
                    }
                }))
            }
            @if why.records.is_empty() {
                @if why.state == "present" { p.soft { "No record was made of it." } }
            } @else {
                (table("Records", &[words("Record"), numbers("Line"), words("Kind"), words("Verdict"), words("Why"), words("Redacted")], html! {
                    @for record in &why.records { (record_row(record, visit.may(Act::RecordRead))) }
                }))
            }
        }
    }
}

fn record_row(record: &WhyRecord, linked: bool) -> Markup {
    html! {
        tr {
            th scope="row" { @if linked { a href=(path(&["records", &record.record.to_string()])) { (hash(&record.record)) } } @else { (hash(&record.record)) } }
            td.n { (count(record.first_line)) }
            td { (record.kind) @if let Some(language) = &record.language { ", " (language) } }
            td { (verdict(&record.verdict)) }
            td {
                @if let Some(review) = &record.review { div { (decided(review)) } }
                @for reason in &record.reasons { div { (because(reason)) } }
                @if let Some(twin) = &record.twin {
                    div.soft { "the same stands in " (twin.source) " / " (twin.path) " (" (format!("{:.0}", twin.similarity * 100.0)) "\u{202f}% alike)" }
                }
                @if record.reasons.is_empty() && record.twin.is_none() { span.soft { "passes every rule" } }
            }
            td { @for (label, number) in &record.redactions { div { (count(*number)) " × " (label) } } }
        }
    }
}

/// A record's verdict.
pub(crate) fn verdict(word: &str) -> Markup {
    chip(
        match word {
            "kept" => "good",
            "redacted" => "waits",
            _ => "quiet",
        },
        word,
    )
}

pub(crate) fn because(reason: &Reason) -> Markup {
    html! {
        code { (reason.rule) }
        @if let Some(measured) = reason.measured { " " (format!("{measured:.4}").trim_end_matches('0').trim_end_matches('.')) }
        @if let Some(limit) = reason.limit { span.soft { ", limit " (limit) } }
        @if let Some(line) = reason.line { span.soft { ", line " (count(line)) } }
    }
}

/// One dataset.
pub(crate) async fn dataset(visit: Visit) -> Result<Outcome, Refusal> {
    let id = visit.segments[0].clone();
    let reply = visit.ask(Request::DatasetFacts { id }).await?;
    let dataset = reply_of!(reply, Reply::DatasetFacts(dataset) => dataset);
    let title = format!("Dataset {}", dataset.id.0.short());
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { (title) }
        (whole(&dataset))
    };
    Ok(Page::of("/data", title, body))
}

fn whole(dataset: &DatasetFacts) -> Markup {
    let mut all = DatasetSource::default();
    for source in dataset.sources.values() {
        all.train.join(&source.train);
        all.validation.join(&source.validation);
        all.held_out.join(&source.held_out);
    }
    let records = [&all.train, &all.validation, &all.held_out].iter().map(|side| side.records).sum();
    let runs = |runs: &[String]| {
        html! {
            @if runs.is_empty() { span.soft { "none" } } @else {
                ul.list { @for run in runs { li { a href=(path(&["runs", run])) { (run) } } } }
            }
        }
    };
    let named = |names: &BTreeMap<String, DatasetSource>, none: &str| {
        let name = |name: &String| if name.is_empty() { none.to_owned() } else { name.clone() };
        names.iter().map(|(found, sides)| (html! { (name(found)) }, *sides)).collect::<Vec<_>>()
    };
    let lengths = dataset.shape.lengths.iter();
    let lengths: Vec<_> =
        lengths.map(|(from, sides)| (html! { (count(*from)) "–" (count(from * 2 - 1)) }, *sides)).collect();
    html! {
        div.columns {
            section.panel aria-labelledby="named" {
                h2 #named { "What names it" }
                dl.facts {
                    (fact("Id", html! { code.whole { (dataset.id) } }))
                    (fact("Recipe's selection", hash(&dataset.recipe)))
                    (fact("Curation rules", hash(&dataset.rules)))
                    (fact("Tokenizer", hash(&dataset.tokenizer)))
                    (fact("First built", time(dataset.built)))
                    (fact("Records", count(records)))
                }
            }
            section.panel aria-labelledby="uses" {
                h2 #uses { "What was made of it" }
                dl.facts {
                    (fact("Runs on it", runs(&dataset.runs)))
                    (fact("Runs after those", runs(&dataset.later)))
                }
            }
        }
        section aria-labelledby="sides" {
            h2 #sides { "Its sides" }
            (table("Its sides", &[words("Source"), words("Side"), numbers("Records"), numbers("Tokens"), numbers("Size")], html! {
                @for (name, source) in &dataset.sources {
                    (side(name, "trained on", &source.train))
                    @if !source.validation.is_empty() { (side(name, "chosen by", &source.validation)) }
                    (side(name, "held back", &source.held_out))
                }
                @if dataset.sources.len() > 1 {
                    (side("all", "trained on", &all.train))
                    @if !all.validation.is_empty() { (side("all", "chosen by", &all.validation)) }
                    (side("all", "held back", &all.held_out))
                }
            }))
        }
        (histogram("lengths", "Records by their tokens", "Tokens", &lengths))
        (histogram("kinds", "Records by kind", "Kind", &named(&dataset.shape.kinds, "unknown")))
        (histogram("languages", "Records by language", "Language", &named(&dataset.shape.languages, "not told")))
        (histogram("sources", "Records by source", "Source", &named(&dataset.sources, "unknown")))
    }
}

/// Bars in proportion, with the exact numbers beside.
fn histogram(id: &str, title: &'static str, what: &'static str, rows: &[(Markup, DatasetSource)]) -> Markup {
    let sum = |sides: &DatasetSource| sides.train.records + sides.validation.records + sides.held_out.records;
    let tokens = |sides: &DatasetSource| sides.train.tokens + sides.validation.tokens + sides.held_out.tokens;
    let most = rows.iter().map(|(_, sides)| sum(sides)).max().unwrap_or(0).max(1);
    let validates = rows.iter().any(|(_, sides)| !sides.validation.is_empty());
    let mut heads = vec![words(what), words("Share"), numbers("Trained on")];
    if validates {
        heads.push(numbers("Chosen by"));
    }
    heads.extend([numbers("Held back"), numbers("Tokens")]);
    html! {
        section.histogram aria-labelledby=(id) {
            h2 id=(id) { (title) }
            (table(title, &heads, html! {
                @for (name, sides) in rows {
                    tr {
                        th scope="row" { (name) }
                        td.bar { svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                            rect width=(format!("{:.1}", (sum(sides) as f64 * 100.0 / most as f64).max(0.5))) height="10" {}
                        } }
                        td.n { (count(sides.train.records)) }
                        @if validates { td.n { (count(sides.validation.records)) } }
                        td.n { (count(sides.held_out.records)) }
                        td.n { (count(tokens(sides))) }
                    }
                }
            }))
        }
    }
}

fn side(source: &str, side: &str, counts: &SplitCounts) -> Markup {
    html! {
        tr {
            th scope="row" { (source) }
            td { (side) }
            td.n { (short(counts.records)) }
            td.n { (short(counts.tokens)) }
            td.n { (bytes(counts.bytes)) }
        }
    }
}

/// Goes to the page of a difference.
pub(crate) async fn compare_two(visit: Visit) -> Result<Outcome, Refusal> {
    let (Some(a), Some(b)) = (visit.form.word("a"), visit.form.word("b")) else {
        return Err(Refusal::request("two datasets are needed"));
    };
    Ok(Outcome::Go { to: path(&["datasets", a, "to", b]), cookies: Vec::new() })
}

/// What differs between two datasets.
pub(crate) async fn diff(visit: Visit) -> Result<Outcome, Refusal> {
    let (a, b) = (visit.segments[0].clone(), visit.segments[1].clone());
    let diff = reply_of!(visit.ask(Request::DatasetDiff { a, b }).await?, Reply::DatasetDiff(diff) => diff);
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { "From " (hash(&diff.a)) " to " (hash(&diff.b)) }
        (same(&diff))
        (entries("Only in the newer one", &diff.added))
        (entries("Only in the older one", &diff.removed))
        (entries("On another side", &diff.moved))
    };
    Ok(Page::of("/data", "What differs", body))
}

fn same(diff: &DatasetDiff) -> Markup {
    let what = [
        ("selection and split", diff.same_recipe),
        ("curation rules", diff.same_rules),
        ("tokenizer", diff.same_tokenizer),
    ];
    html! {
        ul.inline { @for (name, same) in what { li { @if same { (chip("good", &format!("same {name}"))) } @else { (chip("waits", &format!("other {name}"))) } } } }
    }
}

fn entries(title: &str, entries: &[DiffEntry]) -> Markup {
    html! {
        section aria-label=(title) {
            h2 { (title) " " span.soft { (count(entries.len() as u64)) } }
            @if entries.is_empty() { p.soft { "None." } } @else {
                (table(title, &[words("Record"), words("Documents"), numbers("Tokens"), numbers("Size")], html! {
                    @for DiffEntry { entry, paths } in entries.iter().take(ROWS) {
                        tr {
                            th scope="row" { (hash(&entry.record.0)) }
                            td { @for path in paths { div { (path) } } @if paths.is_empty() { span.soft { "no longer in any document" } } }
                            td.n { (count(entry.tokens)) }
                            td.n { (bytes(entry.bytes)) }
                        }
                    }
                }))
                @if entries.len() > ROWS { p.soft { "The first " (ROWS) " are shown; " code { "moat dataset diff" } " tells all." } }
            }
        }
    }
}
