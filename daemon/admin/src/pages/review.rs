//! The review queue: one record after the other, with verdicts by key or button.

use maud::{Markup, html};
use moat_contracts::Decision;
use moat_protocol::control::{
    Decided, Judgement, REVIEW_COUNT, RecordShown, Reply, Request, ReviewQueue, Waiting,
};

use super::data::{because, verdict};
use super::records::{beside, decided, facts};
use crate::Refusal;
use crate::draw::parts::{count, hash};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// The first record that waits.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    at(visit, None).await
}

/// The record that waits after another, which is left for later.
pub(crate) async fn after(visit: Visit) -> Result<Outcome, Refusal> {
    let after = visit.segments[0].clone();
    at(visit, Some(after)).await
}

async fn at(visit: Visit, after: Option<String>) -> Result<Outcome, Refusal> {
    let request = Request::Reviews { after: after.clone(), most: 2 };
    let queue = reply_of!(visit.ask(request).await?, Reply::Reviews(queue) => queue);
    let record = match queue.waiting.first() {
        Some(next) => {
            let request = Request::Record { id: next.record.to_string() };
            Some(reply_of!(visit.ask(request).await?, Reply::Record(record) => record))
        }
        None => None,
    };
    let number =
        if queue.count >= REVIEW_COUNT { format!("{}+", count(REVIEW_COUNT)) } else { count(queue.count) };
    let body = html! {
        div.head {
            h1 { "Review" }
            p { (number) @if queue.count == 1 { " record waits" } @else { " records wait" } }
        }
        @match (queue.waiting.first(), &record) {
            (Some(next), Some(record)) => (one(&visit, &queue, next, record, after.as_deref())),
            _ if queue.count > 0 => p.empty { "Nothing waits after that one. " a href="/review" { "From the beginning" } },
            _ => p.empty { "Nothing waits. Which records do is said by [review] in moat.toml: those that the rules nearly judged otherwise, those in which something was replaced, and a sample." },
        }
        (last(&visit, &queue.decided))
    };
    Ok(Page::of("/review", "Review", body))
}

fn one(
    visit: &Visit,
    queue: &ReviewQueue,
    next: &Waiting,
    record: &RecordShown,
    after: Option<&str>,
) -> Markup {
    let id = next.record.to_string();
    let act = |judgement: &str, key: &str, words: &str, tone: &str| {
        html! {
            form method="post" action=(path(&["review", &id, judgement])) {
                (token(visit.token()))
                @if let Some(after) = after { input type="hidden" name="after" value=(after); }
                button class=(tone) data-key=(key) { (words) " " kbd { (key) } }
            }
        }
    };
    let dropped = next.verdict == "dropped";
    html! {
        section.review data-keys="" tabindex="-1" aria-label="The record that waits" {
            div.row.acts role="group" aria-label="What to do about it" {
                @if dropped { (act("keep", "k", "Keep all the same", "")) (act("drop", "d", "Leave dropped", "plain")) }
                @else { (act("keep", "k", "Keep", "")) (act("drop", "d", "Drop", "plain")) }
                @if queue.waiting.len() > 1 { a.button.plain href=(path(&["review", "after", &id])) data-key="l" { "Later " kbd { "l" } } }
                @if let Some(last) = queue.decided.first() {
                    form method="post" action=(path(&["review", &last.record.to_string(), "undo"])) {
                        (token(visit.token()))
                        button.plain data-key="u" { "Undo the last " kbd { "u" } }
                    }
                }
            }
            p { (verdict(&next.verdict)) " "
                @match next.why.as_str() {
                    "borderline" => { "The rules nearly judged otherwise." },
                    "redacted" => { "Something was replaced in it." },
                    _ => { "It was drawn for a look." },
                }
                @for reason in &next.reasons { " " (because(reason)) }
                " " a href=(path(&["records", &id])) { (hash(&next.record)) }
            }
            (beside(record))
            (facts(record))
        }
        p.soft { "The keys act while the record has the focus, which it takes when the page comes." }
    }
}

fn last(visit: &Visit, all: &[Decided]) -> Markup {
    html! {
        @if !all.is_empty() {
            section aria-labelledby="decided" {
                h2 #decided { "Decided last" }
                ul.list.panel { @for one in all.iter().take(10) { li.row {
                    a href=(path(&["records", &one.record.to_string()])) { (hash(&one.record)) }
                    span { @if let Some(review) = &one.review { (decided(review)) } }
                    @if one.records == 0 { span.soft { "no document holds it now" } }
                    form method="post" action=(path(&["review", &one.record.to_string(), "undo"])) {
                        (token(visit.token()))
                        button.link aria-label={ "Undo for " (one.record.short()) } { "Undo" }
                    }
                } } }
            }
        }
    }
}

/// Decides about a record; the next comes.
pub(crate) async fn decide(visit: Visit) -> Result<Outcome, Refusal> {
    let judgement = match visit.segments[1].as_str() {
        "keep" => Judgement::Keep,
        "drop" => Judgement::Drop,
        "undo" => Judgement::Undo,
        _ => return Err(Refusal::request("a record is kept, dropped, or its decision undone")),
    };
    let request = Request::Review { id: visit.segments[0].clone(), judgement };
    let done = reply_of!(visit.ask(request).await?, Reply::Reviewed(done) => done);
    let short = done.record.short();
    let note = match done.review.map(|review| review.decision) {
        Some(Decision::Keep) => format!("Record {short} is kept: the next dataset takes it."),
        Some(Decision::Drop) => format!("Record {short} is dropped: the next dataset does without it."),
        None => format!("The decision about record {short} is taken back."),
    };
    let id = done.record.to_string();
    let to = match (visit.form.word("back"), visit.form.word("after")) {
        (Some(_), _) => path(&["records", &id]),
        (None, Some(after)) => path(&["review", "after", after]),
        (None, None) => "/review".to_owned(),
    };
    Ok(visit.done(to, note))
}
