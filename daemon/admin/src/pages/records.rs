//! Records: a search over their texts, and one record beside its document.

use maud::{Markup, html};
use moat_contracts::{Decision, Kind};
use moat_protocol::control::{
    Mark, Near, Piece, RecordFilter, RecordFound, RecordShown, RecordsFound, Reply, Request, Review,
    ShownDocument,
};
use moat_rights::Act;

use super::data::{because, verdict};
use crate::Refusal;
use crate::draw::parts::{bytes, count, fact, hash, time};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Records of one page of a search.
const MOST: usize = 30;
/// Milliseconds of one search; the next goes on where it ended.
const PATIENCE: u64 = 4000;

/// The page without a search.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { "Records" }
        (form(&visit, "", &RecordFilter::default()))
        p.empty { "Every word must stand in a record's text, whatever its case and accents; put a phrase into quotation marks. Texts are opened one by one, and none is kept." }
    };
    Ok(Page::of("/data", "Records", body))
}

/// Searches. The words come by a form, so that none stands in an address.
pub(crate) async fn search(visit: Visit) -> Result<Outcome, Refusal> {
    let words = visit.form.get("words").unwrap_or_default().trim().to_owned();
    let field = |name: &str| visit.form.word(name).map(ToOwned::to_owned);
    let filter = RecordFilter {
        source: field("source"),
        verdict: field("verdict"),
        kind: field("kind"),
        rule: field("rule"),
        language: field("language"),
    };
    if words.is_empty() && filter == RecordFilter::default() {
        return Err(Refusal::request("there is nothing to look for: give a word, or choose which records"));
    }
    let number = |name| {
        visit.form.word(name).map(|text| {
            text.parse::<u64>().map_err(|_| Refusal::request("where the search is to go on is no number"))
        })
    };
    let (after, before) = (number("after").transpose()?, number("looked").transpose()?.unwrap_or(0));
    let request = Request::RecordSearch {
        words: words.clone(),
        filter: filter.clone(),
        most: MOST,
        after,
        patience: Some(PATIENCE),
    };
    let found = reply_of!(visit.ask(request).await?, Reply::Records(found) => found);
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { "Records" }
        (form(&visit, &words, &filter))
        (results(&visit, &words, &filter, &found, before))
    };
    Ok(Page::of("/data", "Records", body))
}

fn form(visit: &Visit, words: &str, filter: &RecordFilter) -> Markup {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    html! {
        search { form.stack.wide method="post" action="/records" {
            (token(visit.token()))
            div.row {
                label.unseen for="words" { "Words in the text" }
                input #words type="search" name="words" value=(words) placeholder="words, or \"a phrase\"" maxlength="500" autocomplete="off" spellcheck="false";
                button { "Search" }
            }
            div.fields {
                div { label for="source" { "Source" } input #source name="source" value=(text(&filter.source)) placeholder="any" autocomplete="off"; }
                div { label for="verdict" { "Verdict" } (choice("verdict", &["kept", "redacted", "dropped"], filter.verdict.as_deref())) }
                div { label for="kind" { "Kind" } (choice("kind", &Kind::ALL.map(Kind::word), filter.kind.as_deref())) }
                div { label for="rule" { "Rule or label" } input #rule name="rule" value=(text(&filter.rule)) placeholder="any, such as min_words" autocomplete="off"; }
                div { label for="language" { "Language" } input #language name="language" value=(text(&filter.language)) placeholder="any, such as eng" autocomplete="off"; }
            }
        } }
    }
}

fn choice(name: &str, words: &[&str], chosen: Option<&str>) -> Markup {
    html! {
        select id=(name) name=(name) {
            option value="" { "any" }
            @for word in words { option value=(word) selected[chosen == Some(*word)] { (word) } }
        }
    }
}

fn results(visit: &Visit, words: &str, filter: &RecordFilter, found: &RecordsFound, before: u64) -> Markup {
    let looked = before + found.looked;
    html! {
        section aria-labelledby="found" {
            h2 #found { (count(found.found.len() as u64)) @if found.found.len() == 1 { " record" } @else { " records" }
                span.soft.state { " · " (count(looked)) " of " (count(found.of)) " looked at" } }
            @if found.found.is_empty() {
                p.empty { @if found.after.is_some() { "Nothing so far." } @else if before > 0 { "Nothing further." } @else { "No record holds this." } }
            } @else {
                ul.hits { @for one in &found.found { (hit(one)) } }
            }
            @if let Some(after) = found.after {
                form method="post" action="/records" {
                    (token(visit.token()))
                    input type="hidden" name="words" value=(words);
                    @for (name, value) in [("source", &filter.source), ("verdict", &filter.verdict), ("kind", &filter.kind), ("rule", &filter.rule), ("language", &filter.language)] {
                        @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
                    }
                    input type="hidden" name="after" value=(after);
                    input type="hidden" name="looked" value=(looked);
                    button.plain { "Look further" }
                }
            }
        }
    }
}

fn hit(one: &RecordFound) -> Markup {
    html! {
        li.panel {
            div.head {
                h3 { a href=(path(&["records", &one.record.to_string()])) { span.soft { (one.source) " / " } (one.path) }
                    span.soft.state { " line " (count(one.first_line)) } }
                p { (verdict(&one.verdict)) " " span.soft { (one.kind) @if let Some(language) = &one.language { ", " (language) } } }
            }
            p.answer { (pieces(&one.snippet)) }
        }
    }
}

/// A text with what stands out in it.
pub(crate) fn pieces(pieces: &[Piece]) -> Markup {
    html! {
        @for piece in pieces {
            @match &piece.mark {
                None => (piece.text),
                Some(Mark::Hit) => mark { (piece.text) },
                Some(Mark::Cut) => span.soft { (piece.text) },
                Some(Mark::Replaced { length, line, .. }) => span.replaced title={ (count(*length)) " bytes stood here, line " (count(*line)) } { (piece.text) },
            }
        }
    }
}

/// One record.
pub(crate) async fn one(visit: Visit) -> Result<Outcome, Refusal> {
    let id = visit.segments[0].clone();
    let record = reply_of!(visit.ask(Request::Record { id }).await?, Reply::Record(record) => record);
    let title = format!("Record {}", record.record.short());
    let body = html! {
        p.trail { a href="/data" { "Data" } " / " a href="/records" { "Records" } }
        div.head {
            h1 { (title) }
            p { @match &record.verdict { Some(word) => (verdict(word)), None => span.soft { "no longer in any document" } } }
        }
        (facts(&record))
        @if visit.may(Act::VerdictReview) { (decide(&visit, &record)) }
        (beside(&record))
        (near(&record))
    };
    Ok(Page::of("/data", title, body))
}

/// Who decided, and what.
pub(crate) fn decided(review: &Review) -> Markup {
    html! {
        @match review.decision { Decision::Keep => "kept by ", Decision::Drop => "dropped by " }
        strong { (review.who) } ", " (time(review.at))
    }
}

/// Why it is kept or dropped, and what it reached.
pub(crate) fn facts(record: &RecordShown) -> Markup {
    html! {
        div.columns {
            section.panel aria-labelledby="judged" {
                h2 #judged { "Verdict" }
                dl.facts {
                    @if let Some(review) = &record.review { (fact("A person", html! { (decided(review)) })) }
                    (fact("Rules", html! {
                        @for reason in &record.reasons { div { (because(reason)) } }
                        @if record.reasons.is_empty() { span.soft { "every rule is passed" } }
                    }))
                    @if let Some(twin) = &record.twin {
                        (fact("Survivor", html! { (twin.source) " / " (twin.path) span.soft { " (" (format!("{:.0}", twin.similarity * 100.0)) "\u{202f}% alike)" } }))
                    }
                    (fact("Replaced", html! {
                        @for (label, number) in &record.redactions { div { (count(*number)) " × " (label) } }
                        @if record.redactions.is_empty() { span.soft { "nothing" } }
                    }))
                    (fact("Text", html! { (record.kind) @if let Some(language) = &record.language { ", " (language) } ", " (count(record.words)) " words, " (bytes(record.bytes)) }))
                }
            }
            section.panel aria-labelledby="reached" {
                h2 #reached { "Reached" }
                dl.facts {
                    (fact("Datasets", html! {
                        @if record.reached.is_empty() { span.soft { "no dataset and no model" } }
                        @for reached in &record.reached {
                            div {
                                a href=(path(&["datasets", &reached.dataset.to_string()])) { (hash(&reached.dataset)) }
                                @match reached.split.as_str() { "train" => " trained on", "validation" => " chosen by", _ => " held back" }
                                @for run in &reached.runs { ", " a href=(path(&["runs", run])) { (run) } }
                            }
                        }
                    }))
                    (fact("Also in", html! {
                        @if record.elsewhere.is_empty() { span.soft { "no other document" } }
                        @for (source, path) in &record.elsewhere { div { span.soft { (source) " / " } (path) } }
                    }))
                    (fact("Id", html! { code.whole { (record.record) } }))
                }
            }
        }
    }
}

fn decide(visit: &Visit, record: &RecordShown) -> Markup {
    let id = record.record.to_string();
    let form = |judgement: &str, words: &str| {
        html! {
            form method="post" action=(path(&["review", &id, judgement])) {
                (token(visit.token()))
                input type="hidden" name="back" value="record";
                button.plain { (words) }
            }
        }
    };
    let dropped = record.verdict.as_deref() == Some("dropped");
    html! {
        @if record.verdict.is_some() {
            div.row.acts role="group" aria-label="What a person decides" {
                @if record.review.is_some() { (form("undo", "Take the decision back")) }
                @else if !dropped { (form("keep", "Keep")) (form("drop", "Drop")) }
                @else if record.may_be_kept { (form("keep", "Keep it all the same")) (form("drop", "Drop")) }
                @else if record.twin.is_none() { p.soft { "Secrets or personal data dropped it: no person overrules that." } }
            }
        }
    }
}

/// The text as it is trained on, beside the document's own with what was replaced.
pub(crate) fn beside(record: &RecordShown) -> Markup {
    html! {
        div.columns.beside {
            section.panel aria-labelledby="text" {
                h2 #text { "As it is trained on" }
                div.text tabindex="0" role="group" aria-label="The record's text" { (pieces(&record.text)) }
            }
            @if let Some(document) = &record.document { (in_document(document)) }
        }
    }
}

fn in_document(document: &ShownDocument) -> Markup {
    html! {
        section.panel aria-labelledby="document" {
            h2 #document { "In its document" }
            p { span.soft { (document.source) " / " } (document.path) span.soft { ", " (bytes(document.size)) ", " (count(document.texts)) @if document.texts == 1 { " text" } @else { " texts" } } }
            div.text tabindex="0" role="group" aria-label="The document's texts, with labels in place of what was replaced" {
                @for text in &document.around {
                    div.part .here[text.here] {
                        p.soft { "line " (count(text.first_line)) " · "
                            @if text.here { "this record" } @else { a href=(path(&["records", &text.record.to_string()])) { (text.verdict) } } }
                        div { (pieces(&text.text)) }
                    }
                }
            }
        }
    }
}

fn near(record: &RecordShown) -> Markup {
    let row = |one: &Near| {
        html! {
            li {
                @if one.record == record.record { strong { "this record" } } @else { a href=(path(&["records", &one.record.to_string()])) { (hash(&one.record)) } }
                " " @if let Some((source, path)) = &one.place { span.soft { (source) " / " } (path) }
                @if one.survives { span.soft { " – goes into datasets for all of them" } }
                @else if let Some(similarity) = one.similarity { span.soft { " – " (format!("{:.0}", similarity * 100.0)) "\u{202f}% alike" } }
            }
        }
    };
    html! {
        @if record.near_count > 1 {
            section aria-labelledby="near" {
                h2 #near { (count(record.near_count)) " texts say nearly the same" }
                ul.list.panel { @for one in &record.near { (row(one)) }
                    @if (record.near.len() as u64) < record.near_count { li.soft { "The first " (record.near.len()) " are shown." } } }
            }
        }
    }
}
