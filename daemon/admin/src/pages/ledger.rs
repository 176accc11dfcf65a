//! The ledger: what was done, by whom, and a proof of each entry to take away.

use maud::{Markup, html};
use moat_protocol::control::{LedgerEntry, LedgerPage, Reply, Request};

use crate::Refusal;
use crate::draw::parts::{chip, count, numbers, table, time_of_milliseconds, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Entries on a page.
const MOST: usize = 100;

/// The beginnings of acts that are worth looking at alone.
const KINDS: &[(&str, &str)] = &[
    ("", "Everything"),
    ("vault.", "Vault"),
    ("session.", "Sign-in"),
    ("export.", "Exports"),
    ("statement.", "Approvals"),
    ("run.", "Runs"),
    ("model.", "Answers"),
    ("source.", "Sources"),
    ("account.", "Accounts"),
    ("role.", "Roles"),
    ("key.", "API keys"),
    ("canary.", "Canary"),
    ("backup.", "Backups"),
];

/// The newest entries.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    page(visit, String::new(), None).await
}

/// Entries of one kind, from a place on. Neither is secret, so both stand in the address.
pub(crate) async fn part(visit: Visit) -> Result<Outcome, Refusal> {
    let kind = visit.segments[0].clone();
    let kind = if kind == "all" { String::new() } else { kind };
    let before = visit.segments.get(1).map(|text| text.parse());
    let before = before.transpose().map_err(|_| Refusal::request("a place in the ledger is a number"))?;
    page(visit, kind, before).await
}

async fn page(visit: Visit, kind: String, before: Option<u64>) -> Result<Outcome, Refusal> {
    let act = Some(kind.clone()).filter(|kind| !kind.is_empty());
    let request = Request::Ledger { act, before, most: MOST };
    let page = reply_of!(visit.ask(request).await?, Reply::Ledger(page) => page);
    let word = |kind: &str| if kind.is_empty() { "all".to_owned() } else { kind.to_owned() };
    let body = html! {
        div.head { h1 { "Ledger" } p.soft { (count(page.size)) " entries" } }
        nav.kinds aria-label="Kinds of acts" {
            ul.inline {
                @for (begin, title) in KINDS {
                    li { a href=(path(&["ledger", &word(begin)])) aria-current=[(*begin == kind).then_some("true")] { (title) } }
                }
            }
        }
        (entries(&page))
        @if let Some(next) = page.next { p { a href=(path(&["ledger", &word(&kind), &next.to_string()])) { "Older entries" } } }
        @if let Some(key) = &page.key {
            section.panel aria-labelledby="verify" {
                h2 #verify { "Verify it elsewhere" }
                p { "On any machine, from a copy of the ledger's folder, with the key that its checkpoints are signed with:" }
                pre { code { "moat ledger verify DIR --key " (key) } }
            }
        }
    };
    Ok(Page::of("/ledger", "Ledger", body))
}

fn entries(page: &LedgerPage) -> Markup {
    if page.entries.is_empty() {
        return html! { p.empty { "There is no such entry." } };
    }
    table(
        "Entries",
        &[
            numbers("No."),
            words("When"),
            words("Who"),
            words("Act"),
            words("Phase"),
            words("On what, and facts"),
            words("Proof"),
        ],
        html! {
            @for entry in &page.entries { (row(entry)) }
        },
    )
}

fn row(entry: &LedgerEntry) -> Markup {
    let tone = match entry.phase.as_str() {
        "done" => "good",
        "failed" | "refused" => "bad",
        _ => "quiet",
    };
    html! {
        tr {
            td.n { (count(entry.index)) }
            td { (time_of_milliseconds(entry.time)) }
            th.who scope="row" { (entry.who) @if let Some(uid) = entry.uid { " " span.soft { "user " (uid) } } }
            td { code { (entry.act) } }
            td { (chip(tone, &entry.phase)) }
            td.facts-of { @for (name, value) in entry.on.iter().chain(&entry.detail) { span { span.soft { (name) } " " (shortened(value)) } } }
            td { a href=(path(&["ledger", "entry", &entry.index.to_string()])) { "Verify" span.unseen { " entry " (entry.index) } } }
        }
    }
}

/// A long value's beginning, the whole of it in `title`.
fn shortened(value: &str) -> Markup {
    if value.chars().count() <= 24 {
        return html! { (value) };
    }
    html! { span title=(value) { (value.chars().take(16).collect::<String>()) "…" } }
}

/// One entry with its proof, which the browser judges by itself.
pub(crate) async fn entry(visit: Visit) -> Result<Outcome, Refusal> {
    let index: u64 =
        visit.segments[0].parse().map_err(|_| Refusal::request("a place in the ledger is a number"))?;
    let receipt = reply_of!(visit.ask(Request::LedgerReceipt { index }).await?, Reply::Receipt(text) => text);
    let request = Request::Ledger { act: None, before: index.checked_add(1), most: 1 };
    let page = reply_of!(visit.ask(request).await?, Reply::Ledger(page) => page);
    let key = page.key.clone().unwrap_or_default();
    let title = format!("Entry {}", count(index));
    let body = html! {
        p.trail { a href="/ledger" { "Ledger" } }
        h1 { (title) }
        (entries(&page))
        section.panel aria-labelledby="verify" data-receipt="#receipt" {
            h2 #verify { "Verify it" }
            p { "The receipt holds the entry, the hashes that lead from it to the root over all entries, and the root with its \
                 signature (C2SP tlog-proof). It convinces whoever knows the key that this ledger is signed with: compare the key with \
                 the one that you kept." }
            div.wide.stack {
                label for="key" { "The ledger's key" }
                input #key value=(key) autocomplete="off" autocapitalize="off" spellcheck="false" aria-describedby="key-help";
                p.soft #key-help { "As this box says it. Put your own copy in its place, so that you need not believe the box." }
                button.verify type="button" hidden { "Verify in this browser" }
            }
            div role="status" { ul.list.checks {} }
            noscript { p.soft { "Without the script this page cannot verify it for you; the command line can:" } }
            pre { code { "moat ledger check-receipt moat-receipt-" (index) ".txt --key " (key) } }
            form method="post" action="/ledger/receipt" {
                (token(visit.token()))
                input type="hidden" name="entry" value=(index);
                button { "Take the receipt away" }
            }
            details { summary { "The receipt" } pre { code #receipt { (receipt) } } }
        }
    };
    Ok(Page::of("/ledger", title, body))
}

/// A proof that an entry is in the ledger, to take away.
pub(crate) async fn receipt(visit: Visit) -> Result<Outcome, Refusal> {
    let index: u64 = visit
        .form
        .word("entry")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::request("no entry was named"))?;
    let text = reply_of!(visit.ask(Request::LedgerReceipt { index }).await?, Reply::Receipt(text) => text);
    Ok(Outcome::File(format!("moat-receipt-{index}.txt"), "text/plain; charset=utf-8", text))
}
