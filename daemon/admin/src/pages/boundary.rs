//! The boundary: seal, ways out, what the daemon gave up.

use maud::{Markup, html};
use moat_protocol::control::{Request, Status};
use moat_rights::Act;

use super::overview;
use crate::Refusal;
use crate::draw::parts::{self, chip, count, numbers, table, words};
use crate::draw::token;
use crate::site::{Outcome, Page, Visit};

/// The page.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let status = overview::status(&visit).await?;
    let body = html! {
        h1 { "Boundary" }
        div.columns {
            (seal(&visit, &status))
            (protections(&visit))
        }
        (ways(&visit))
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

fn protections(visit: &Visit) -> Markup {
    html! {
        section.panel aria-labelledby="given-up" {
            h2 #given-up { "What moatd gave up" }
            (table("Protections", &[words("Protection"), words("State")], html! {
                @for (name, had) in &visit.health.protections {
                    tr {
                        th scope="row" { (name) }
                        td { @match had { Ok(()) => (chip("good", "in force")), Err(why) => { (chip("bad", "not to be had")) " " (why) } } }
                    }
                }
            }))
        }
    }
}

fn ways(visit: &Visit) -> Markup {
    let health = &visit.health;
    html! {
        section aria-labelledby="ways" {
            h2 #ways { "Ways out that the canary tries" }
            @match health.tried {
                None => p.empty { "The canary has not flown yet." },
                Some(tried) => {
                    p.soft { "Last tried " (parts::time(tried)) "." }
                    (table("Ways out", &[words("Way"), numbers("Tried"), numbers("Open"), words("State")], html! {
                        @for (way, tries, open) in &health.canary {
                            tr {
                                th scope="row" { (way) }
                                td.n { (count(*tries)) }
                                td.n { (count(*open)) }
                                td { @if *open == 0 { (chip("good", "closed")) } @else { (chip("bad", "open")) } }
                            }
                        }
                    }))
                }
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
