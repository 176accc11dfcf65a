//! What takes two people: what waits, what was, and the second person's word.

use maud::{Markup, html};
use moat_protocol::control::{AskedSource, Proof, Reply, Request, Secret, Statement};
use moat_rights::Act;

use super::source;
use crate::Refusal;
use crate::draw::parts::{bytes, chip, fact, hash, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// All requests, those that wait first.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let all = reply_of!(visit.ask(Request::Statements).await?, Reply::Statements(all) => all);
    let (waiting, ended): (Vec<_>, Vec<_>) =
        all.iter().rev().partition(|statement| statement.state == "waiting");
    let body = html! {
        h1 { "Approvals" }
        section aria-labelledby="waiting" {
            h2 #waiting { "Waiting for a second person" }
            @if waiting.is_empty() { p.empty { "Nothing waits. Exports, new sources, changes of policy and of roles are asked for by one person and agreed to by another." } }
            @else { (list(&waiting)) }
        }
        @if !ended.is_empty() { section aria-labelledby="ended" { h2 #ended { "Before" } (list(&ended)) } }
    };
    Ok(Page::of("/approvals", "Approvals", body))
}

fn list(statements: &[&Statement]) -> Markup {
    table(
        "Requests",
        &[
            words("Request"),
            words("State"),
            words("Asked by"),
            words("Agreed by"),
            words("Asked for"),
            words("Void from"),
        ],
        html! {
            @for statement in statements {
                tr {
                    th scope="row" { a href=(path(&["approvals", &statement.id])) { (statement.what) } }
                    td { (state(statement)) }
                    td { (statement.requester) }
                    td { @match &statement.approver { Some(name) => (name), None => span.soft { "–" } } }
                    td { (time(statement.created)) }
                    td { (time(statement.expires)) }
                }
            }
        },
    )
}

/// A request's state with its colour.
pub(crate) fn state(statement: &Statement) -> Markup {
    let tone = match statement.state.as_str() {
        "waiting" | "agreed" => "waits",
        "done" => "good",
        "failed" => "bad",
        _ => "quiet",
    };
    chip(tone, &statement.state)
}

/// One request, with what both sign.
pub(crate) async fn one(visit: Visit) -> Result<Outcome, Refusal> {
    let id = &visit.segments[0];
    let all = reply_of!(visit.ask(Request::Statements).await?, Reply::Statements(all) => all);
    let Some(statement) = all.iter().find(|statement| statement.id == *id) else {
        return Err(Refusal::request("there is no such request"));
    };
    let own = visit.here.as_ref().is_some_and(|here| here.session.person.name == statement.requester);
    let waits = statement.state == "waiting";
    let at = path(&["approvals", &statement.id]);
    let body = html! {
        p.trail { a href="/approvals" { "Approvals" } }
        div.head { h1 { (statement.what) } p { (state(statement)) } }
        @if let Some(message) = &statement.message { p.note.bad { (message) } }
        section.panel aria-label="The request" {
            dl.facts {
                (fact("Asked by", html! { (statement.requester) ", " (time(statement.created)) }))
                (fact("Agreed by", match &statement.approver { Some(name) => name.as_str(), None => "nobody yet" }))
                @if statement.source.is_none() { (fact("Goes to", html! { code { (statement.destination) } })) }
                @if let Some(recipient) = &statement.recipient { (fact("Encrypted to", html! { code.whole { (recipient) } })) }
                @if statement.source.is_none() { (fact("Size", bytes(statement.bytes))) }
                (fact("SHA-256", hash(&statement.hash)))
                (fact("Void from", time(statement.expires)))
            }
            details { summary { "What both sign, byte for byte" } pre { code { (statement.text) } } }
        }
        @if let Some(asked) = &statement.source { (new_source(asked)) }
        @if waits && visit.may(Act::ExportApprove) && !own {
            section.panel aria-labelledby="agree" {
                h2 #agree { "Agree" }
                @if statement.source.is_some() {
                    p { "It is read at once, with whatever lies there from then on. What models learn of it cannot be taken back." }
                } @else {
                    p { "It happens at once, and cannot be taken back." }
                }
                form.stack method="post" action={ (at) "/agree" } {
                    (token(visit.token()))
                    (proof_fields("agree"))
                    button { "Agree to it" }
                }
            }
        }
        @if waits && (own || visit.may(Act::ExportApprove)) {
            form method="post" action={ (at) "/withdraw" } {
                (token(visit.token()))
                button.plain { @if own { "Take it back" } @else { "Refuse it" } }
            }
        }
        @if waits && own { p.soft { "Somebody else has to agree: an approver finds it under Approvals." } }
    };
    Ok(Page::of("/approvals", statement.what.clone(), body))
}

/// A source that is asked for, whole, and what it would have read then.
fn new_source(asked: &AskedSource) -> Markup {
    html! {
        div.columns {
            section.panel aria-labelledby="source" { h2 #source { "The source" } dl.facts { (source::described(&asked.definition)) } }
            section.panel aria-labelledby="trial" {
                div.head { h2 #trial { "What it would have read" } p { (source::verdict(&asked.trial)) } }
                dl.facts { (source::found(&asked.trial)) }
            }
        }
    }
}

/// Password and code, which what takes two people asks for again.
pub(crate) fn proof_fields(of: &str) -> Markup {
    html! {
        label for={ (of) "-password" } { "Your password" }
        input id={ (of) "-password" } type="password" name="password" required autocomplete="current-password";
        label for={ (of) "-code" } { "Code" }
        input id={ (of) "-code" } name="code" required inputmode="numeric" autocomplete="one-time-code" pattern="[0-9]{6}" maxlength="6";
    }
}

/// What the form says of who sends it: always the account that is signed in.
pub(crate) fn proof(visit: &Visit) -> Proof {
    let field = |name: &str| visit.form.get(name).unwrap_or_default().to_owned();
    Proof { name: None, password: Secret(field("password")), code: Secret(field("code").trim().to_owned()) }
}

/// Agrees to a request.
pub(crate) async fn agree(visit: Visit) -> Result<Outcome, Refusal> {
    let id = visit.segments[0].clone();
    let to = path(&["approvals", &id]);
    let note = match visit.ask(Request::Approve { id, proof: proof(&visit) }).await? {
        Reply::Exported(done) => {
            format!("Agreed, and done: {} files lie in {}.", done.files.len(), done.folder)
        }
        Reply::Statement(said) if said.source.is_some() => "Agreed: the source is being read.".to_owned(),
        _ => "Agreed, and in force.".to_owned(),
    };
    Ok(visit.done(to, note))
}

/// Takes a request back, or refuses it.
pub(crate) async fn withdraw(visit: Visit) -> Result<Outcome, Refusal> {
    let id = visit.segments[0].clone();
    visit.ask(Request::Withdraw { id }).await?;
    Ok(visit.done("/approvals".to_owned(), "The request counts no more.".to_owned()))
}
