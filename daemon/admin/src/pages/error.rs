//! What stands in place of a page.

use maud::html;
use moat_protocol::control::Fault;
use moat_rights::{Act, Role, Roles, may};

use crate::Refusal;
use crate::site::{Outcome, Page};

/// A status with what it means here.
pub(crate) fn plain(status: u16) -> Outcome {
    told(status, meaning(status))
}

/// What a status means here.
pub(crate) const fn meaning(status: u16) -> &'static str {
    match status {
        401 => "Nobody is signed in here any more: the session ended, and nothing was done.",
        404 => "There is no such page.",
        405 => "This page cannot be asked for in this way.",
        408 => "What was sent came too slowly.",
        411 | 413 => "What was sent is larger than anything that is taken here.",
        503 => "This cannot be done now: Moat is sealed, or busy with too many.",
        _ => "The request could not be understood.",
    }
}

/// A status with a sentence.
pub(crate) fn told(status: u16, sentence: &str) -> Outcome {
    let title = match status {
        401 => "Signed out",
        403 => "Not allowed",
        404 => "Not here",
        422 => "Not done",
        503 => "Not now",
        _ => "It did not work",
    };
    let body = html! {
        h1 { (title) }
        p.lead { (sentence) }
        p { a href="/" { "How the box stands" } }
    };
    Outcome::Page(Page { status, title: title.to_owned(), place: "", body, retry: None })
}

/// That a role is missing, and which.
pub(crate) fn denied(act: Act) -> Outcome {
    let able: Vec<_> =
        Role::ALL.into_iter().filter(|role| may(Roles::of(&[*role]), act)).map(Role::word).collect();
    told(
        403,
        &format!("`{}` is for the role {}, which this account does not have.", act.word(), able.join(" or ")),
    )
}

/// That a form did not come from a page of this session.
pub(crate) fn foreign_form() -> Outcome {
    told(
        403,
        "This form is not of this session, so nothing was done: load its page again, and send it from there.",
    )
}

/// That the daemon did not do it.
pub(crate) fn refused(refusal: &Refusal, done: bool) -> Outcome {
    if refusal.fault == Fault::Sealed && !done {
        return Outcome::Go { to: "/unseal".to_owned(), cookies: Vec::new() };
    }
    let mut sentence = refusal.message.clone();
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // What an address names and is not there is a page that is not there.
    let status = if refusal.fault == Fault::Request && !done { 404 } else { refusal.status() };
    told(status, &format!("{sentence}."))
}
