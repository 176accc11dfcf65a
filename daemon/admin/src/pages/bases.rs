//! Bases: the open models that are there, and how one is taken in from a folder of the machine.

use maud::{Markup, html};
use moat_protocol::control::{Base, Reply, Request};
use moat_rights::Act;

use crate::Refusal;
use crate::draw::parts::{bytes, hash, numbers, short, table, words};
use crate::draw::token;
use crate::site::{Outcome, Page, Visit, reply_of};

/// All bases.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let bases = reply_of!(visit.ask(Request::Bases).await?, Reply::Bases(bases) => bases);
    let body = html! {
        @if visit.may(Act::EdgeRead) { p.trail { a href="/models" { "Models" } } }
        h1 { "Bases" }
        @if bases.is_empty() { p.empty { "No base yet. A base is an open model as it was released; runs tune it." } } @else { (list(&bases)) }
        @if visit.may(Act::BaseImport) { (form(&visit)) }
    };
    Ok(Page::of("/models", "Bases", body))
}

fn list(bases: &[Base]) -> Markup {
    let heads = [
        words("Base"),
        words("Family"),
        numbers("Parameters"),
        numbers("Weights"),
        words("Chat template"),
        words("SHA-256"),
    ];
    table(
        "Bases",
        &heads,
        html! {
            @for base in bases {
                tr {
                    th scope="row" { (base.name) }
                    td { (base.family) }
                    td.n { (short(base.parameters)) }
                    td.n { (bytes(base.bytes)) }
                    td { @if base.chat { "yes" } @else { span.soft { "none" } } }
                    td { (hash(&base.hash)) }
                }
            }
        },
    )
}

fn form(visit: &Visit) -> Markup {
    html! {
        section.panel aria-labelledby="import" {
            h2 #import { "Take a base in" }
            p { "It lies on this machine in Hugging Face's layout, in one of the folders that the configuration names in "
                code { "boundary.imports" } ". Its files are verified and copied; nothing is fetched from anywhere." }
            form.stack method="post" action="/bases/import" {
                (token(visit.token()))
                label for="folder" { "Folder" }
                input #folder name="folder" required autocomplete="off" spellcheck="false" placeholder="/srv/moat/bases/moat-starter";
                label for="name" { "Name in recipes " span.soft { "(empty: the folder's)" } }
                input #name name="name" autocomplete="off" spellcheck="false";
                button { "Take it in" }
            }
        }
    }
}

/// Takes a base in.
pub(crate) async fn import(visit: Visit) -> Result<Outcome, Refusal> {
    let folder = visit.form.word("folder").ok_or_else(|| Refusal::request("no folder was given"))?.to_owned();
    let name = visit.form.word("name").map(ToOwned::to_owned);
    let note = match visit.begin(Request::BaseImport { folder, name }).await? {
        Some(Reply::Base(base)) => format!("Base {} is taken in.", base.name),
        Some(_) | None => "It is being verified and copied: it shows here once it is whole.".to_owned(),
    };
    Ok(visit.done("/bases".to_owned(), note))
}
