//! The first hour: the first accounts, made by the people whose they are, and the way from there to a first edge.

use std::time::Instant;

use maud::{Markup, html};
use moat_protocol::control::{Fault, MadeAccount, NewAccount, Secret, Status};
use moat_rights::{Act, Role};

use super::people::codes;
use crate::Refusal;
use crate::draw::parts::chip;
use crate::draw::token;
use crate::site::{Outcome, Page, Visit};

/// Who begins, and the roles that are ticked for them: what takes two people needs two.
const PEOPLE: [(&str, &[Role]); 2] = [
    ("The first person", &[Role::Steward, Role::Engineer, Role::Admin]),
    ("The second person", &[Role::Approver, Role::Auditor]),
];

/// The form of the first accounts, while there are none.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let elsewhere = match (visit.health.sealed, visit.health.set_up) {
        (true, _) => Some("/unseal"),
        (_, true) => Some("/sign-in"),
        _ => None,
    };
    match elsewhere {
        Some(to) => Ok(Outcome::Go { to: to.to_owned(), cookies: Vec::new() }),
        None => Ok(draw(&visit, 200, None, None)),
    }
}

fn draw(visit: &Visit, status: u16, said: Option<&str>, retry: Option<u64>) -> Outcome {
    let body = html! {
        h1 { "The first accounts" }
        @if let Some(said) = said { p.note.bad role="alert" { (said) } }
        p.lead { "Two people begin: what lets weights or data out, and who may do what, takes both of them from now on." }
        form.stack method="post" action="/set-up" {
            (token(visit.token()))
            label for="code" { "The code of the invitation" }
            input #code name="code" required autocomplete="off" autocapitalize="off" spellcheck="false" aria-describedby="code-help";
            p.soft #code-help { "Whoever keeps the box gets it at its command line from " code { "moat account invite" } ". It counts once, for half an hour." }
            div.columns { @for at in 0..PEOPLE.len() { (person(visit, at)) } }
            button { "Make both accounts" }
        }
    };
    let title = "The first accounts".to_owned();
    Outcome::Page(Page { status, title, place: "", body, retry })
}

fn person(visit: &Visit, at: usize) -> Markup {
    let (title, roles) = PEOPLE[at];
    let typed = |field: &str| visit.form.word(&name(at, field)).unwrap_or_default().to_owned();
    // Until the form was sent once, the roles that most sites want are ticked.
    let fresh = visit.form.word("code").is_none();
    let ticked = |role: Role| match fresh {
        true => roles.contains(&role),
        false => visit.form.get(&name(at, role.word())).is_some(),
    };
    html! {
        fieldset {
            legend { (title) }
            label for=(name(at, "name")) { "Name" }
            input id=(name(at, "name")) name=(name(at, "name")) value=(typed("name")) required autocomplete="off" autocapitalize="off"
                spellcheck="false" pattern="[a-z][a-z0-9._\\-]*" maxlength="64" aria-describedby=(name(at, "name-help"));
            p.soft id=(name(at, "name-help")) { "Letters a to z, digits, dots and dashes, a letter first." }
            label for=(name(at, "password")) { "Password" }
            input id=(name(at, "password")) type="password" name=(name(at, "password")) required autocomplete="new-password";
            label for=(name(at, "again")) { "Once more" }
            input id=(name(at, "again")) type="password" name=(name(at, "again")) required autocomplete="new-password";
            label for=(name(at, "uid")) { "User of the machine " span.soft { "(optional)" } }
            input id=(name(at, "uid")) name=(name(at, "uid")) value=(typed("uid")) inputmode="numeric" pattern="[0-9]*" autocomplete="off"
                aria-describedby=(name(at, "uid-help"));
            p.soft id=(name(at, "uid-help")) { "The number of the user who is the same person at the command line." }
            p { strong { "Roles" } }
            @for role in Role::ALL {
                label.check { input type="checkbox" name=(name(at, role.word())) value="yes" checked[ticked(role)]; " " (role.word()) }
            }
        }
    }
}

/// A field of a person's.
fn name(at: usize, field: &str) -> String {
    format!("{field}-{}", at + 1)
}

/// The account that a person wants.
fn wanted(visit: &Visit, at: usize) -> Result<NewAccount, Refusal> {
    let missing = |what: &str| Refusal::request(&format!("{} has no {what}", PEOPLE[at].0.to_lowercase()));
    let given = visit.form.word(&name(at, "name")).ok_or_else(|| missing("name"))?.to_owned();
    let password = visit.form.get(&name(at, "password")).filter(|text| !text.is_empty());
    let password = password.ok_or_else(|| missing("password"))?;
    if visit.form.get(&name(at, "again")) != Some(password) {
        return Err(Refusal::request(&format!("the two passwords of {given} differ, so nothing was done")));
    }
    let uid = visit.form.word(&name(at, "uid")).map(str::parse).transpose();
    let uid = uid.map_err(|_| Refusal::request("a user of the machine is a number"))?;
    let roles = Role::ALL.iter().filter(|role| visit.form.get(&name(at, role.word())).is_some());
    let roles = roles.map(|role| role.word().to_owned()).collect();
    Ok(NewAccount { name: given, uid, roles, password: Secret(password.to_owned()) })
}

/// Makes the first accounts, and shows the secrets of their codes this once.
pub(crate) async fn set_up(visit: Visit) -> Result<Outcome, Refusal> {
    let code = visit.form.word("code").map(|code| Secret(code.to_owned()));
    let code = code.ok_or_else(|| Refusal::request("no code of an invitation was given"));
    let accounts = (0..PEOPLE.len()).map(|at| wanted(&visit, at)).collect::<Result<Vec<_>, _>>();
    let (code, accounts) = match (code, accounts) {
        (Ok(code), Ok(accounts)) => (code, accounts),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(not_done(&visit, &refusal)),
    };
    if let Err(wait) = visit.site.sign_ins.enter(visit.from, Instant::now()) {
        let seconds = wait.as_secs() + 1;
        let words = format!("Too many tries: wait {seconds} s, then try again.");
        return Ok(draw(&visit, 429, Some(&words), Some(seconds)));
    }
    match visit.site.daemon.set_up(visit.from, code, accounts).await {
        Ok(made) => {
            visit.site.sign_ins.was_right(visit.from, Instant::now());
            Ok(done(&made))
        }
        Err(refusal) if matches!(refusal.fault, Fault::Internal | Fault::Sealed) => Err(refusal),
        Err(refusal) => Ok(not_done(&visit, &refusal)),
    }
}

fn not_done(visit: &Visit, refusal: &Refusal) -> Outcome {
    draw(visit, 422, Some(&format!("Not done: {}.", refusal.message)), None)
}

fn done(made: &[MadeAccount]) -> Outcome {
    let body = html! {
        h1 { "The accounts are made" }
        @for account in made {
            section aria-labelledby={ "of-" (account.name) } {
                h2 id={ "of-" (account.name) } { (account.name) }
                (codes(&account.name, &account.uri))
            }
        }
        p { "Once both devices show codes: " a.button href="/sign-in" { "Sign in" } }
    };
    Page::of("", "The accounts are made", body)
}

/// One step on the way to a first edge.
struct Step {
    done: bool,
    what: &'static str,
    how: Markup,
}

/// The way to a first edge, until there is one.
pub(super) fn way(visit: &Visit, status: &Status) -> Markup {
    if status.made.models > 0 {
        return html! {};
    }
    let scanned = status.sources.values().any(|source| source.scanned.is_some() && source.present > 0);
    let runs: u64 = status.made.runs.values().sum();
    let steps = [
        Step {
            done: true,
            what: "Open the box",
            how: html! { "The vault is open, and you have an account." },
        },
        Step {
            done: !status.sources.is_empty(),
            what: "Name a source",
            how: html! { "A folder or a git repository, in " code { "moat.toml" } "; " code { "moat check" }
            " says what is wrong with it. What may be trained on is policy, so a change takes two people." },
        },
        Step {
            done: scanned,
            what: "Curate it",
            how: html! { "That goes on by itself, and " a href="/sources" { "Sources" } " tells how far it is." },
        },
        Step {
            done: runs > 0,
            what: "Start a run",
            how: html! {
                "Base, data and training are one recipe: "
                @if visit.may(Act::RunStart) { a href="/runs/new" { "New run" } } @else { "an engineer starts one" }
                ". It builds the dataset, proves itself and trains. Another base comes in by " code { "moat base import DIR" } "."
            },
        },
        Step {
            done: false,
            what: "See the edge",
            how: html! { "How much better than its base the model is on documents that were held back, with an interval." },
        },
    ];
    let next = steps.iter().position(|step| !step.done);
    html! {
        section.panel aria-labelledby="way" {
            h2 #way { "The way to a first edge" }
            ol.list {
                @for (at, step) in steps.iter().enumerate() {
                    li {
                        @if step.done { (chip("good", "done")) } @else if next == Some(at) { (chip("live", "next")) } @else { (chip("quiet", "later")) }
                        " " strong { (step.what) } " " span.soft { (step.how) }
                    }
                }
            }
        }
    }
}
