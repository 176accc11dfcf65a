//! How pages look: the frame around each, the files that they are made with, and the parts that they share.

pub(crate) mod curve;
mod files;
pub(crate) mod parallel;
pub(crate) mod parts;
pub(crate) mod qr;

use maud::{DOCTYPE, Markup, html};

pub(crate) use files::FILES;

use crate::Health;
use crate::form::TOKEN;
use crate::routes::{Needs, PLACES, Place};
use crate::site::Here;

/// What stands around a page.
pub(crate) struct Frame<'a> {
    pub(crate) health: &'a Health,
    pub(crate) here: Option<&'a Here>,
    /// The page of the navigation that this one belongs to.
    pub(crate) place: &'a str,
    pub(crate) title: &'a str,
    /// What came of what was just done.
    pub(crate) note: Option<String>,
}

/// A whole page.
pub(crate) fn frame(frame: &Frame<'_>, body: Markup) -> Markup {
    let Frame { health, here, title, note, .. } = frame;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Moat" }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href=(files::path_of("style"));
                script src=(files::path_of("script")) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the page" }
                header.top {
                    a.mark href="/" { img src="/icon.svg" alt="" width="24" height="24"; span { "Moat" } }
                    (standing(health))
                    @if let Some(here) = here { (person(here)) }
                }
                @if let Some(here) = here {
                    nav.side aria-label="Pages" { (places(here, frame.place)) }
                    nav.menu aria-label="Pages" {
                        details { summary { "Menu" } (places(here, frame.place)) }
                    }
                }
                main #main .alone[here.is_none()] tabindex="-1" {
                    @if let Some(note) = note { p.note role="status" { (note) } }
                    (body)
                }
            }
        }
    }
}

/// Seal and egress, always in sight.
fn standing(health: &Health) -> Markup {
    let open = health.open_ways();
    html! {
        ul.standing aria-label="How the box stands" {
            li {
                @if health.sealed { (parts::chip("waits", "Sealed")) } @else { (parts::chip("good", "Open")) }
            }
            li {
                @match (health.tried, open) {
                    (None, _) => (parts::chip("quiet", "Ways out not tried yet")),
                    (Some(_), 0) => span.chip.good title={ (health.canary.len()) " ways out tried, none open" } {
                        "No way out"
                    },
                    (Some(_), _) => (parts::chip("bad", &format!("{open} ways out open"))),
                }
            }
            @if !health.sealed && health.wanted.is_some() {
                li { (parts::chip("bad", "Needs a person")) }
            }
        }
    }
}

fn person(here: &Here) -> Markup {
    let roles: Vec<_> = here.standing.roles.iter().map(|role| role.word()).collect();
    let roles = if roles.is_empty() { "no role yet".to_owned() } else { roles.join(", ") };
    html! {
        details.person {
            summary { (here.session.person.name) }
            div.card {
                p { strong { (here.session.person.name) } br; span.soft { (roles) } }
                form method="post" action="/sign-out" {
                    (token(&here.session.token))
                    button { "Sign out" }
                }
            }
        }
    }
}

fn places(here: &Here, place: &str) -> Markup {
    let seen = |place: &&Place| match place.needs {
        Needs::Act(act) => here.standing.may(act),
        Needs::Anyone | Needs::Account => true,
    };
    html! {
        ul {
            @for found in PLACES.iter().filter(seen) {
                li { a href=(found.path) aria-current=[(found.path == place).then_some("page")] { (found.title) } }
            }
        }
    }
}

/// The hidden field that says a form is of this session.
pub(crate) fn token(token: &str) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(token); }
}
