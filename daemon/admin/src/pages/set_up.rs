//! The first accounts: invited people type name and password themselves, and see the secret of their codes alone.

use std::time::Instant;

use maud::{Markup, html};
use moat_protocol::control::{Enlisted, MadeAccount, NewAccount, Reply, Request, Secret};
use moat_rights::Role;

use super::people::{chosen, new_password, secret_of};
use crate::Refusal;
use crate::draw::parts::{chip, table, words};
use crate::draw::token;
use crate::site::{Outcome, Page, Visit, reply_of};

/// The form, or what stands in its way.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let body = html! {
        h1 { "The first accounts" }
        @if visit.health.sealed {
            p.empty { "The vault is not open: " a href="/unseal" { "open it" } " first." }
        } @else if visit.health.set_up {
            p.empty { "They are made already: " a href="/sign-in" { "sign in" } ". An admin makes more under People." }
        } @else { (form(&visit)) }
    };
    Ok(Page::of("", "The first accounts", body))
}

fn form(visit: &Visit) -> Markup {
    html! {
        p { "It takes two people: one who runs the factory, and one who agrees to what leaves it. Each fills in this form, from any "
            "browser, and keeps password and device to themselves. Nothing is made until both are ready." }
        form.stack method="post" action="/set-up" {
            (token(visit.token()))
            label for="invitation" { "Invitation" }
            input #invitation name="invitation" required autocomplete="off" autocapitalize="characters" spellcheck="false" aria-describedby="invitation-help";
            p.soft #invitation-help { "Whoever keeps the box prints it with " code { "moat account invite" } "; it counts for an hour." }
            label for="name" { "Your account's name" }
            input #name name="name" required autocomplete="username" autocapitalize="off" spellcheck="false" pattern="[a-z][a-z0-9._\\-]*" maxlength="64" aria-describedby="name-help";
            p.soft #name-help { "Letters a to z, digits, dots and dashes, a letter first." }
            (new_password("first"))
            label for="uid" { "Your user on this machine " span.soft { "(optional)" } }
            input #uid name="uid" inputmode="numeric" pattern="[0-9]*" autocomplete="off" aria-describedby="uid-help";
            p.soft #uid-help { "Its number, as " code { "id -u" } " tells it, if you work at the machine's command line as well: taking in a base is done there." }
            fieldset {
                legend { "What you are here for" }
                @for role in Role::ALL {
                    label.check { input type="checkbox" name=(role.word()) value="yes"; " " strong { (role.word()) } " " span.soft { (meaning(role)) } }
                }
            }
            p.soft { "Usual for two: steward, engineer and admin for the one, approver and auditor for the other." }
            button { "Go on to my device" }
        }
    }
}

/// What a role is for, in few words.
fn meaning(role: Role) -> &'static str {
    match role {
        Role::Viewer => "sees what runs, asks the models",
        Role::Steward => "answers for the data",
        Role::Engineer => "builds datasets and models",
        Role::Approver => "agrees, or does not, to what others ask for",
        Role::Admin => "runs the box: accounts, keys, updates",
        Role::Auditor => "reads the ledger",
    }
}

/// Takes one of the first people in, and shows the secret of their codes.
pub(crate) async fn enlist(visit: Visit) -> Result<Outcome, Refusal> {
    open(&visit)?;
    let code = visit.form.word("invitation").ok_or_else(|| Refusal::request("no invitation was given"))?;
    let name = visit.form.word("name").ok_or_else(|| Refusal::request("the account has no name"))?;
    let uid = visit.form.word("uid").map(str::parse).transpose();
    let uid = uid.map_err(|_| Refusal::request("a user of the machine is a number"))?;
    let roles = Role::ALL.iter().filter(|role| visit.form.get(role.word()).is_some());
    let roles: Vec<_> = roles.map(|role| role.word().to_owned()).collect();
    if roles.is_empty() {
        return Err(Refusal::request("say what you are here for: no role was chosen"));
    }
    let account = NewAccount { name: name.to_owned(), uid, roles, password: chosen(&visit)? };
    let request = Request::Enlist { code: Secret(code.to_owned()), account };
    if let Err(wait) = visit.site.unseals.enter(visit.from, Instant::now()) {
        return Err(too_often(wait.as_secs()));
    }
    let reply = visit.site.daemon.invited(visit.from, request).await?;
    visit.site.unseals.was_right(visit.from, Instant::now());
    let made = reply_of!(reply, Reply::Made(made) => made);
    let [MadeAccount { name, uri }] = made.as_slice() else {
        return Err(Refusal::request("no account was made ready"));
    };
    let body = html! {
        h1 { "Your device, " (name) }
        p { "Only you may see this: your device needs the secret to show codes. It is shown this once." }
        (secret_of(name, uri))
        (confirmation(&visit, name))
    };
    Ok(Page::of("", format!("Your device, {name}"), body))
}

fn confirmation(visit: &Visit, name: &str) -> Markup {
    html! {
        form.stack method="post" action="/set-up/confirm" {
            (token(visit.token()))
            input type="hidden" name="name" value=(name);
            label for="code" { "The code that your device shows now" }
            input #code name="code" required inputmode="numeric" autocomplete="one-time-code" pattern="[0-9]{6}" maxlength="6";
            button { "I am ready" }
        }
    }
}

fn open(visit: &Visit) -> Result<(), Refusal> {
    match visit.health.set_up && !visit.health.sealed {
        true => Err(Refusal::request("the first accounts are made already")),
        false => Ok(()),
    }
}

fn too_often(seconds: u64) -> Refusal {
    Refusal::request(&format!("too many wrong tries: wait {} s, then try again", seconds + 1))
}

/// Judges the first code of somebody's device.
pub(crate) async fn confirm(visit: Visit) -> Result<Outcome, Refusal> {
    open(&visit)?;
    let name = visit.form.word("name").ok_or_else(|| Refusal::request("the account has no name"))?;
    let digits = visit.form.get("code").unwrap_or_default().chars().filter(|letter| !letter.is_whitespace());
    let code = Secret(digits.collect());
    if code.0.is_empty() {
        return Err(Refusal::request("no code was given"));
    }
    if let Err(wait) = visit.site.unseals.enter(visit.from, Instant::now()) {
        return Err(too_often(wait.as_secs()));
    }
    let request = Request::EnlistConfirm { name: name.to_owned(), code };
    match visit.site.daemon.invited(visit.from, request).await {
        Ok(reply) => {
            visit.site.unseals.was_right(visit.from, Instant::now());
            let enlisted = reply_of!(reply, Reply::Enlisted(enlisted) => enlisted);
            Ok(Page::of("", "The first accounts", ready(&enlisted)))
        }
        Err(refusal) => {
            let body = html! {
                h1 { "Not yet, " (name) }
                p.note.bad role="alert" { "Not taken: " (refusal.message) "." }
                (confirmation(&visit, name))
                p { a href="/set-up" { "Begin anew" } " if your device did not take the secret." }
            };
            let (title, place) = (format!("Not yet, {name}"), "");
            Ok(Outcome::Page(Page { status: refusal.status(), title, place, body, retry: None }))
        }
    }
}

fn ready(enlisted: &Enlisted) -> Markup {
    let names = table(
        "The first accounts",
        &[words("Account"), words("Roles"), words("State")],
        html! {
            @for guest in &enlisted.guests {
                tr {
                    th scope="row" { (guest.name) }
                    td { (guest.roles.join(", ")) }
                    td { @if guest.ready { (chip("good", "ready")) } @else { (chip("waits", "device not confirmed")) } }
                }
            }
        },
    );
    html! {
        @match &enlisted.missing {
            None => {
                h1 { "The accounts are made" }
                p.note role="status" { "From now on rights come from accounts, and what takes two people takes two. The configuration's policy is in force." }
                (names)
                p { a.button href="/sign-in" { "Sign in" } }
            },
            Some(missing) => {
                h1 { "You are ready" }
                p { "Nothing is made yet: " (missing) "." }
                (names)
                p { "The other person takes up the same invitation, here or from another browser: " a href="/set-up" { "the form" } "." }
            },
        }
    }
}
