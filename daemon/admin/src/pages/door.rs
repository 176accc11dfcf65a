//! What a stranger sees: how the box stands, and the way in. While the vault is sealed that is a passphrase or shares,
//! afterwards an account.

use std::time::{Duration, Instant};

use maud::{Markup, html};
use moat_protocol::control::{Fault, Key, Proof, Seal, Secret};

use super::way;
use crate::draw::{parts, token};
use crate::form::{BACK, SESSION, STRANGER, forget_cookie, set_cookie};
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit};
use crate::{Health, Refusal};

/// The door.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    if visit.here.is_some() {
        return Ok(Outcome::Go { to: "/".to_owned(), cookies: Vec::new() });
    }
    Ok(draw(&visit, 200, None, None))
}

/// What the last try came to.
enum Said {
    Good(String),
    Bad(String),
}

/// The door, with what came of a try.
fn draw(visit: &Visit, status: u16, said: Option<&Said>, retry: Option<u64>) -> Outcome {
    let health = &visit.health;
    let (state, tone) = match (health.sealed, health.is_well()) {
        (true, _) => ("Sealed", "waits"),
        (false, true) => ("In order", "good"),
        (false, false) => ("Needs a person", "bad"),
    };
    let body = html! {
        h1 { "Moat " span class={ "state " (tone) } { (state) } }
        @if let Some(wanted) = health.wanted.as_ref().filter(|_| !health.sealed) {
            p.wanted { (wanted) }
        }
        div.door {
            section aria-labelledby="way-in" {
                @match said {
                    Some(Said::Good(words)) => p.note role="status" { (words) },
                    Some(Said::Bad(words)) => p.note.bad role="alert" { (words) },
                    None => {}
                }
                @if health.sealed { (ceremony(visit)) } @else { (account(visit)) }
            }
            (the_box(health))
        }
    };
    let title = if health.sealed { "Sealed" } else { "Sign in" };
    Outcome::Page(Page { status, title: title.to_owned(), place: "", body, retry })
}

fn ceremony(visit: &Visit) -> Markup {
    let seal = &visit.health.seal;
    if !seal.made {
        return html! {
            h2 #way-in { "There is no vault yet" }
            p { "Nothing is kept here so far. At the machine's command line, whoever keeps the box makes a vault:" }
            pre { code { "moat vault init               # opened by a passphrase\nmoat vault init --shares 2/3  # opened by two of three people" } }
            (way::for_strangers(false, true))
            p.soft { "It shows the shares once, and nobody else gets to see them. This page goes on by itself." }
            div data-live="/live/unseal" {}
        };
    }
    let shares = seal.slots.iter().any(|slot| slot.kind.ends_with("shares"));
    let passphrase = seal.slots.iter().any(|slot| slot.kind == "passphrase");
    html! {
        h2 #way-in { "Open the vault" }
        p { "Until it is open nothing can be read or done: sources rest, runs wait at their last checkpoint." }
        p.soft { "Where the browser does not know this page's certificate, compare its SHA-256 fingerprint with the one in "
            code { "moatd" } "'s journal before you type a secret." }
        @if shares {
            div data-live="/live/unseal" { (progress(seal)) }
            form.stack method="post" action="/unseal" {
                (token(visit.token()))
                label for="share" { "Your share" }
                textarea #share name="share" rows="3" required autocomplete="off" spellcheck="false" autocapitalize="off" {}
                p.soft { "Each holder gives theirs, from any browser. A share that was given counts for 15 minutes." }
                button { "Give this share" }
            }
        }
        @if passphrase {
            form.stack method="post" action="/unseal" {
                (token(visit.token()))
                label for="passphrase" { "Passphrase" }
                input #passphrase type="password" name="passphrase" required autocomplete="off";
                button { "Open" }
            }
        }
        @if !shares && !passphrase {
            p { "It is opened by the credential " code { "moat-kek" } ", which systemd hands over when " code { "moatd" } " starts: see " code { "systemctl status moatd" } "." }
        }
    }
}

/// How far a ceremony has come.
fn progress(seal: &Seal) -> Markup {
    let ways: Vec<_> = seal
        .slots
        .iter()
        .filter(|slot| slot.kind.ends_with("shares"))
        .map(|slot| slot.kind.as_str())
        .collect();
    html! {
        @match seal.shares_needed {
            None => p { "It takes " strong { (ways.join(", or ")) } ". None is given yet." },
            Some(needed) => {
                p { strong { (seal.shares_given) " of " (needed) } " shares given." }
                ol.pips aria-hidden="true" {
                    @for at in 0..needed { li .full[at < seal.shares_given] {} }
                }
            }
        }
    }
}

fn account(visit: &Visit) -> Markup {
    if !visit.health.set_up {
        return html! {
            h2 #way-in { "There are no accounts yet" }
            p { "At the machine's command line, whoever keeps the box prints an invitation, and gives it to the two people who make the first ones:" }
            pre { code { "moat account invite" } }
            p { a.button href="/set-up" { "Take up an invitation" } }
            (way::for_strangers(true, false))
            p.soft { "Each account gets a password and a secret for an authenticator app. What takes two people needs two accounts. "
                "They can be made at the command line as well: " code { "moat account set-up" } "." }
        };
    }
    html! {
        h2 #way-in { "Sign in" }
        form.stack method="post" action="/sign-in" {
            (token(visit.token()))
            label for="name" { "Account" }
            input #name name="name" required autocomplete="username" autocapitalize="off" spellcheck="false";
            label for="password" { "Password" }
            input #password type="password" name="password" required autocomplete="current-password";
            label for="code" { "Code" }
            input #code name="code" required inputmode="numeric" autocomplete="one-time-code" pattern="[0-9]{6}" maxlength="6"
                aria-describedby="code-help";
            p.soft #code-help { "The six digits that your device shows now. A code counts once." }
            button { "Sign in" }
        }
    }
}

/// What anyone may know.
fn the_box(health: &Health) -> Markup {
    let (had, missing): (Vec<_>, Vec<_>) = health.protections.iter().partition(|(_, had)| had.is_ok());
    html! {
        section.box aria-labelledby="the-box" {
            h2 #the-box { "The box" }
            dl.facts {
                (parts::fact("Version", &health.version))
                (parts::fact("Up", parts::duration(health.uptime)))
                (parts::fact("Vault", match (health.seal.made, health.sealed) {
                    (false, _) => "not made yet",
                    (true, true) => "sealed",
                    (true, false) => "open",
                }))
                (parts::fact("Given up", html! {
                    (had.len()) " protections in force"
                    @if !missing.is_empty() { ", " (parts::chip("bad", &format!("{} not to be had", missing.len()))) }
                }))
                (parts::fact("Ways out", match health.tried {
                    None => html! { "not tried yet" },
                    Some(tried) => html! {
                        (health.canary.len()) " tried, "
                        @if health.open_ways() == 0 { "none open" } @else { (parts::chip("bad", &format!("{} open", health.open_ways()))) }
                        br; span.soft { "last " (parts::time(tried)) }
                    },
                }))
            }
        }
    }
}

/// Takes a passphrase, or one share.
pub(crate) async fn unseal(mut visit: Visit) -> Result<Outcome, Refusal> {
    let share = visit.form.word("share").map(|text| Key::Share(Secret(text.to_owned())));
    let passphrase = || {
        let text = visit.form.get("passphrase").filter(|text| !text.is_empty())?;
        Some(Key::Passphrase(Secret(text.to_owned())))
    };
    let Some(key) = share.or_else(passphrase) else {
        return Ok(draw(&visit, 422, Some(&Said::Bad("Give a share, or the passphrase.".to_owned())), None));
    };
    if let Err(wait) = visit.site.unseals.enter(visit.from, Instant::now()) {
        return Ok(too_often(&visit, wait));
    }
    match visit.site.daemon.unseal(visit.from, key).await {
        Ok(seal) => {
            visit.site.unseals.was_right(visit.from, Instant::now());
            visit.health = visit.site.daemon.health();
            let words = match seal.shares_needed.filter(|_| seal.sealed) {
                Some(needed) => format!(
                    "Taken: {} of {needed} shares are given. The next holder gives theirs, here or from another browser.",
                    seal.shares_given
                ),
                None => "The vault is open. Work goes on.".to_owned(),
            };
            Ok(draw(&visit, 200, Some(&Said::Good(words)), None))
        }
        Err(refusal) if refusal.fault == Fault::Internal => Err(refusal),
        Err(refusal) => {
            let status = refusal.status();
            Ok(draw(&visit, status, Some(&Said::Bad(format!("Not taken: {}.", refusal.message))), None))
        }
    }
}

fn too_often(visit: &Visit, wait: Duration) -> Outcome {
    let seconds = wait.as_secs() + 1;
    let words = format!("Too many wrong tries: wait {seconds} s, then try again.");
    draw(visit, 429, Some(&Said::Bad(words)), Some(seconds))
}

/// The ceremony as it goes on; ends when the box is open, or gets a vault.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    let made = visit.health.seal.made;
    Ok(live::part(visit, Needs::Anyone, move |visit| {
        Box::pin(async move {
            let seal = &visit.health.seal;
            (visit.health.sealed && seal.made == made).then(|| {
                if made {
                    progress(seal)
                } else {
                    html! {}
                }
            })
        })
    }))
}

/// Judges an account's password and code, and lets its owner in.
pub(crate) async fn sign_in(visit: Visit) -> Result<Outcome, Refusal> {
    let field = |name: &str| visit.form.get(name).unwrap_or_default().to_owned();
    let name = visit.form.word("name").unwrap_or_default().to_owned();
    let code: String = field("code").chars().filter(|letter| !letter.is_whitespace()).collect();
    if name.is_empty() || code.is_empty() {
        let words = "Give account, password and code.".to_owned();
        return Ok(draw(&visit, 422, Some(&Said::Bad(words)), None));
    }
    let proof = Proof { name: Some(name), password: Secret(field("password")), code: Secret(code) };
    if let Err(wait) = visit.site.sign_ins.enter(visit.from, Instant::now()) {
        return Ok(too_often(&visit, wait));
    }
    // Counted before: a vault that is sealed meanwhile ends this session too.
    let seals = visit.site.daemon.seals();
    match visit.site.daemon.sign_in(visit.from, proof).await {
        Ok(person) => {
            visit.site.sign_ins.was_right(visit.from, Instant::now());
            if let Some(here) = &visit.here {
                visit.site.sessions.end(&here.id);
            }
            let id = visit.site.sessions.begin(person, seals, Instant::now());
            let id = id.map_err(|error| Refusal { fault: Fault::Internal, message: error.to_string() })?;
            let cookies = vec![set_cookie(SESSION, &id), forget_cookie(STRANGER), forget_cookie(BACK)];
            Ok(Outcome::Go { to: visit.back.unwrap_or_else(|| "/".to_owned()), cookies })
        }
        Err(refusal) if matches!(refusal.fault, Fault::Internal | Fault::Sealed) => Err(refusal),
        Err(_) => {
            // One sentence for every reason: that an account is there is not told to strangers.
            let words = "Account, password or code is wrong, or the account waits after wrong tries. A code counts once: \
                         wait for the next one.";
            Ok(draw(&visit, 422, Some(&Said::Bad(words.to_owned())), None))
        }
    }
}

/// Lets an account's owner out.
pub(crate) async fn sign_out(visit: Visit) -> Result<Outcome, Refusal> {
    if let Some(here) = &visit.here {
        visit.site.sessions.end(&here.id);
        visit.site.daemon.sign_out(visit.from, &here.session.person);
    }
    Ok(Outcome::Go { to: "/sign-in".to_owned(), cookies: vec![forget_cookie(SESSION)] })
}
