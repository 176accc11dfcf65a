//! The way from a new box to its first edge: what is done, what is next, and what only the command line can do.

use maud::{Markup, html};
use moat_protocol::control::Status;
use moat_rights::Act;

use crate::draw::parts::chip;
use crate::site::Visit;

/// One step of the way.
struct Step {
    title: &'static str,
    done: bool,
    /// What to do, for whoever may.
    next: Markup,
}

/// The way, until the first edge is measured.
pub(crate) fn way(visit: &Visit, status: &Status) -> Markup {
    let made = &status.made;
    if made.models > 0 {
        return html! {};
    }
    let steps = steps(visit, status);
    let next = steps.iter().position(|step| !step.done);
    let done = steps.iter().filter(|step| step.done).count();
    html! {
        section.panel.way aria-labelledby="way" {
            div.head { h2 #way { "The way to the first edge" } p.soft { (done) " of " (steps.len()) " done" } }
            ol {
                @for (at, step) in steps.iter().enumerate() {
                    li aria-current=[(Some(at) == next).then_some("step")] {
                        @if step.done { (chip("good", step.title)) span.unseen { " done" } }
                        @else if Some(at) == next { (chip("live", step.title)) span.unseen { " next" } div.under { (step.next) } }
                        @else { (chip("quiet", step.title)) }
                    }
                }
            }
        }
    }
}

fn steps(visit: &Visit, status: &Status) -> Vec<Step> {
    let made = &status.made;
    let taken_in: u64 = status.sources.values().map(|source| source.present).sum();
    let usable: u64 = status
        .sources
        .values()
        .flat_map(|source| ["kept", "redacted"].map(|word| source.verdicts.get(word).copied().unwrap_or(0)))
        .sum();
    let runs: u64 = made.runs.values().sum();
    let who = |act: Act, role: &'static str| {
        html! { @if !visit.may(act) { span.soft { " This is for the role " (role) "." } } }
    };
    vec![
        Step { title: "The vault is made and open", done: !status.seal.sealed, next: html! {} },
        Step { title: "Two people have accounts", done: visit.health.set_up, next: html! {} },
        Step {
            title: "A base is taken in",
            done: made.bases > 0,
            next: html! {
                p { "A base is an open model's folder on this machine, in one of " code { "boundary.imports" } ": "
                    a href="/bases" { "take one in" } ", or at the command line " code { "moat base import DIR --name NAME" } "."
                    (who(Act::BaseImport, "engineer or admin")) }
            },
        },
        Step {
            title: "A source is named",
            done: !status.sources.is_empty(),
            next: html! {
                p { "A source is a folder or a git repository of this machine: "
                    @if visit.may(Act::SourceChange) { a href="/new-source" { "choose one, try it and ask for it" } } @else { "a steward asks for one under Sources" }
                    ". Once an approver agrees it is read." }
            },
        },
        Step {
            title: "The policy is agreed to",
            done: status.held_back.is_none() && visit.health.set_up,
            next: html! {
                p { "The configuration says another policy than the one agreed to. A steward or an admin asks for it at the command line, "
                    code { "moat policy request" } ", and an approver agrees under " a href="/approvals" { "Approvals" } "." }
            },
        },
        Step {
            title: "Documents are taken in",
            done: taken_in > 0 && usable > 0,
            next: html! {
                @if taken_in > 0 { p { "Documents were read, but no record of them was kept: " a href="/sources" { "Sources" } " says why." } }
                @else { p { "The first scan goes on by itself: " a href="/sources" { "Sources" } " shows it." } }
            },
        },
        Step {
            title: "A run trains, on a dataset of its own",
            done: runs > 0,
            next: html! {
                p { "A recipe says what is selected and how it is trained on; a run builds the dataset and proves itself first: "
                    a href="/runs/new" { "start a run" } "." (who(Act::RunStart, "engineer")) }
            },
        },
        Step {
            title: "Its edge is measured",
            done: made.models > 0,
            next: html! { p { a href="/runs" { "Runs" } " shows how it goes on; the edge follows training by itself." } },
        },
    ]
}

/// The way as far as strangers see it: before there are accounts.
pub(crate) fn for_strangers(made: bool, sealed: bool) -> Markup {
    html! {
        ol.way {
            li { (chip(if made && !sealed { "good" } else { "live" }, "The vault is made and open")) }
            li { (chip(if made && !sealed { "live" } else { "quiet" }, "Two people make the first accounts")) }
            li { (chip("quiet", "They sign in, and the front page shows the rest: base, source, policy, run, edge")) }
        }
    }
}
