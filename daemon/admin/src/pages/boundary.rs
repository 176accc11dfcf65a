//! The boundary: seal, what each process gave up, ways out, who may do what, keys, what left.

use maud::{Markup, html};
use moat_protocol::control::{ApiKey, Confined, Reply, Request, Statement, Status};
use moat_rights::Act;

use super::{approvals, overview, people};
use crate::Refusal;
use crate::draw::parts::{self, bytes, chip, count, numbers, table, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// The page.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let status = overview::status(&visit).await?;
    let statements = reply_of!(visit.ask(Request::Statements).await?, Reply::Statements(all) => all);
    let keys = match visit.may(Act::KeyRevoke) {
        true => Some(reply_of!(visit.ask(Request::ApiKeys).await?, Reply::ApiKeys(keys) => keys)),
        false => None,
    };
    let body = html! {
        h1 { "Boundary" }
        div.columns {
            (seal(&visit, &status))
            @for (name, confined) in &status.processes { (process(name, confined)) }
            @if !status.processes.contains_key("moat-engine") {
                section.panel aria-labelledby="moat-engine" {
                    h2 #moat-engine { "What moat-engine gave up" }
                    p.soft { "No engine has worked since moatd started. Each tells what it gave up before it sees its job's data." }
                }
            }
        }
        (ways(&status))
        (exports(&statements))
        @if let Some(keys) = &keys { (served(keys)) }
        section aria-labelledby="rights" { h2 #rights { "Who may do what" } (people::rights()) }
    };
    Ok(Page::of("/boundary", "Boundary", body))
}

fn seal(visit: &Visit, status: &Status) -> Markup {
    let seal = &status.seal;
    html! {
        section.panel aria-labelledby="vault" {
            h2 #vault { "Vault" }
            dl.facts {
                (parts::fact("State", chip("good", "open")))
                (parts::fact("Root key", html! {
                    @match seal.generation { Some(number) => { "generation " (number) }, None => "unknown" }
                    @if seal.rotating { " " (chip("live", "rotating")) }
                }))
                (parts::fact("In memory", match seal.guarded {
                    Some(true) => "kept out of swap and dumps",
                    Some(false) => "the machine may swap it out",
                    None => "unknown",
                }))
                (parts::fact("Opened by", html! {
                    @for slot in &seal.slots { div { (slot.kind) " " span.soft { "slot " (slot.id) } } }
                }))
                (parts::fact("Ledger", html! { (count(status.ledger)) " entries" }))
            }
            @if visit.may(Act::VaultRotate) {
                details {
                    summary { "Rotate the root key" }
                    form.stack method="post" action="/boundary/rotate" {
                        (token(visit.token()))
                        p { "Every key is wrapped under a new root, and the old root is forgotten. Work goes on meanwhile; no data is rewritten." }
                        label for="rotate" { "Type " code { "rotate" } " to do it" }
                        input #rotate name="typed" required autocomplete="off" autocapitalize="off" spellcheck="false";
                        button { "Rotate" }
                    }
                }
            }
            @if visit.may(Act::VaultSeal) {
                details.danger {
                    summary { "Seal the vault now" }
                    form.stack method="post" action="/boundary/seal" {
                        (token(visit.token()))
                        p { "The keys are wiped from memory at once: runs stop at their last checkpoint, sources rest, and everybody \
                             is signed out. It takes a passphrase or the holders of the shares to open it again." }
                        label for="typed" { "Type " code { "seal" } " to do it" }
                        input #typed name="typed" required autocomplete="off" autocapitalize="off" spellcheck="false";
                        button.bad { "Seal" }
                    }
                }
            }
        }
    }
}

/// The sandbox of one process.
fn process(name: &str, confined: &Confined) -> Markup {
    html! {
        section.panel aria-labelledby=(name) {
            h2 id=(name) { "What " (name) " gave up" }
            (table("Protections", &[words("Protection"), words("State")], html! {
                @for held in &confined.protections {
                    tr {
                        th scope="row" { (held.protection.says()) }
                        td { @match &held.refused {
                            None => (chip("good", "in force")),
                            Some(why) => { (chip("bad", "not to be had")) " " (why) }
                        } }
                    }
                }
            }))
            p.soft { "Since " (parts::time(confined.since)) "." }
        }
    }
}

fn ways(status: &Status) -> Markup {
    let canary = &status.canary;
    let heads =
        [words("Way"), numbers("Tried"), numbers("Open"), words("State"), words("What the last try came to")];
    let tell = |title: &'static str, found: bool| {
        table(
            title,
            &heads,
            html! {
                @for (way, (tries, open)) in canary.ways.iter().filter(|(_, (_, open))| (*open > 0) == found) {
                    tr {
                        th scope="row" { (way) }
                        td.n { (count(*tries)) }
                        td.n { (count(*open)) }
                        td { @if *open == 0 { (chip("good", "closed")) } @else { (chip("bad", "open")) } }
                        td.soft { @match canary.last.get(way) { Some(last) => (last), None => "" } }
                    }
                }
            },
        )
    };
    let open = canary.ways.values().filter(|(_, open)| *open > 0).count();
    let closed = count((canary.ways.len() - open) as u64);
    html! {
        section aria-labelledby="ways" {
            h2 #ways { "Ways out that the canary tries" }
            @match canary.flown {
                None => p.empty { "The canary has not flown yet." },
                Some(flown) => {
                    p { @if open == 0 { (chip("good", "none is open")) } @else { (chip("bad", "not all are closed")) }
                        span.soft { " last tried " (parts::time(flown)) } }
                    @if open > 0 { (tell("Open ways", true)) }
                    details { summary { "Closed ways " span.soft { (closed) } } (tell("Closed ways", false)) }
                }
            }
            p.soft { "What the machine's packet filter drops of Moat's users it counts where none of them can look: "
                code { "nft list counter inet moat refused" } " shows it to root." }
        }
    }
}

/// What left, or is to leave.
fn exports(statements: &[Statement]) -> Markup {
    let exports: Vec<_> = statements.iter().filter(|statement| statement.kind == "export").collect();
    let heads = [
        words("Export"),
        words("Destination"),
        words("Encrypted to"),
        numbers("Size"),
        words("Asked by"),
        words("Agreed by"),
        words("State"),
    ];
    html! {
        section aria-labelledby="exports" {
            h2 #exports { "Exports" }
            @if exports.is_empty() {
                p.empty { "Nothing has left, and nobody has asked for it. An export takes two people." }
            } @else {
                (table("Exports", &heads, html! {
                    @for export in exports {
                        tr {
                            th scope="row" { a href=(path(&["approvals", &export.id])) { (export.what) } }
                            td.whole { (export.destination) }
                            td.whole { @match &export.recipient { Some(key) => code { (key) }, None => span.soft { "nobody: plain" } } }
                            td.n { (bytes(export.bytes)) }
                            td { (export.requester) }
                            td { @match &export.approver { Some(name) => (name), None => span.soft { "–" } } }
                            td { (approvals::state(export)) " " span.soft { (parts::time(export.created)) } }
                        }
                    }
                }))
            }
        }
    }
}

/// What API keys were served, of what they may be.
fn served(keys: &[ApiKey]) -> Markup {
    let heads =
        [words("Key"), words("Owner"), words("For"), words("Void from"), words("Completions served today")];
    html! {
        section aria-labelledby="keys" {
            div.head { h2 #keys { "API keys" } p { a href="/people" { "Make or revoke keys" } } }
            @if keys.is_empty() { p.empty { "No API key." } } @else {
                (table("API keys", &heads, html! {
                    @for key in keys {
                        tr {
                            th scope="row" { (key.name) " " code.soft { (key.id) } }
                            td { (key.owner) }
                            td { (key.scope.join(", ")) }
                            td { @if key.revoked.is_some() { (chip("quiet", "revoked")) } @else { (parts::time(key.expires)) } }
                            td { @match key.cap { Some(cap) => { (bytes(key.served)) " of " (bytes(cap)) }, None => span.soft { "may not ask" } } }
                        }
                    }
                }))
            }
        }
    }
}

/// Seals the vault, where the word was typed.
pub(crate) async fn seal_now(visit: Visit) -> Result<Outcome, Refusal> {
    typed(&visit, "seal")?;
    visit.ask(Request::VaultSeal).await?;
    Ok(Outcome::Go { to: "/unseal".to_owned(), cookies: Vec::new() })
}

/// Moves every key to a new root, where the word was typed.
pub(crate) async fn rotate(visit: Visit) -> Result<Outcome, Refusal> {
    typed(&visit, "rotate")?;
    let note = match visit.begin(Request::VaultRotate).await? {
        Some(_) => "The root key is a new one.",
        None => "The keys are on their way to a new root.",
    };
    Ok(visit.done("/boundary".to_owned(), note.to_owned()))
}

/// Whether what is to be destroyed was named by whoever asks.
pub(crate) fn typed(visit: &Visit, name: &str) -> Result<(), Refusal> {
    if visit.form.word("typed") == Some(name) {
        return Ok(());
    }
    Err(Refusal::request(&format!("`{name}` was not typed, so nothing was done")))
}
