//! One source: how it stands, what lies in it, whether it can be read, what of it was not, its pause and its end. Names of
//! files come by forms, so that none stands in an address.

use maud::{Markup, html};
use moat_protocol::control::{
    FaultyDocument, Reply, Request, SourceDefinition, SourceEntry, SourceFaults, SourceListing, SourceStatus,
    SourceTrial,
};
use moat_rights::Act;

use super::boundary::typed;
use super::sources;
use crate::Refusal;
use crate::draw::parts::{bytes, chip, count, duration, fact, numbers, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

fn at(name: &str) -> String {
    path(&["sources", name])
}

fn named(visit: &Visit) -> String {
    visit.segments.first().cloned().unwrap_or_default()
}

async fn standing(visit: &Visit) -> Result<SourceStatus, Refusal> {
    let mut all = reply_of!(visit.ask(Request::Sources).await?, Reply::Sources(all) => all);
    all.remove(&named(visit)).ok_or_else(|| Refusal::request("there is no such source"))
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let (name, source) = (named(&visit), standing(&visit).await?);
    let body = html! {
        p.trail { a href="/sources" { "Sources" } }
        div.head {
            h1 { (name) " " span.soft { (source.kind) } }
            @if visit.may(Act::SourceChange) && !source.removing { (pause(&visit, &name, &source)) }
        }
        div data-live={ "/live" (at(&name)) } { (sources::panel(&name, &source)) }
        @if visit.may(Act::RecordRead) && !source.removing {
            section.panel aria-labelledby="inside" {
                h2 #inside { "What lies in it" }
                p { "Names of files are the company's data: that you look at them is on record in the ledger." }
                div.row {
                    (button(&visit, &name, "browse", &[], "Browse its folder"))
                    (button(&visit, &name, "test", &[], "Test whether all of it can be read"))
                }
            }
        }
        @if visit.may(Act::RecordWhy) && source.partial + source.skipped.values().sum::<u64>() > 0 {
            section.panel aria-labelledby="faults" {
                h2 #faults { "Documents with faults" }
                p { (count(source.skipped.values().sum())) " were not read, " (count(source.partial)) " only in part." }
                (button(&visit, &name, "faults", &[], "Show them with their files"))
            }
        }
        @if visit.may(Act::SourceChange) { (end(&visit, &name, &source)) }
    };
    Ok(Page::of("/sources", format!("Source {name}"), body))
}

/// How a source ends: one that was added is removed here, one of the configuration where it is named.
fn end(visit: &Visit, name: &str, source: &SourceStatus) -> Markup {
    let documents = source.present + source.skipped.values().sum::<u64>();
    html! {
        @if source.added.is_none() {
            p.soft { "It is named in " code { "moat.toml" } ", under " code { "[[source]]" } ", and ends there alone: whoever keeps the box takes "
                "it out and restarts " code { "moatd" } ", and two people agree to the policy without it." }
        } @else if source.removing {
            p.soft { "It is being removed: its documents are deleted with their records, and then it is gone." }
        } @else {
            details.danger {
                summary { "Remove this source" }
                form.stack method="post" action={ (at(name)) "/remove" } {
                    (token(visit.token()))
                    p { strong { (count(documents)) " documents and " (count(source.verdicts.values().sum())) " records" }
                        " are deleted here at once, and the next dataset is without them. The files themselves stay where they are. "
                        "Datasets and models that were made before keep what they learned." }
                    label for="typed" { "Type " code { (name) } " to do it" }
                    input #typed name="typed" required autocomplete="off" autocapitalize="off" spellcheck="false";
                    button.bad { "Remove" }
                }
            }
        }
    }
}

/// Removes a source that was added, where its name was typed.
pub(crate) async fn remove(visit: Visit) -> Result<Outcome, Refusal> {
    let source = named(&visit);
    typed(&visit, &source)?;
    let note = match visit.begin(Request::SourceRemove { source: source.clone() }).await? {
        Some(Reply::SourceRemoved(gone)) => {
            format!(
                "Source {source} is removed: {} documents are deleted with their records.",
                count(gone.documents)
            )
        }
        _ => format!("Source {source} is being removed: its documents are deleted with their records."),
    };
    Ok(visit.done("/sources".to_owned(), note))
}

/// The page as it goes on.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    standing(&visit).await?;
    Ok(live::part(visit, Needs::Act(Act::StatusRead), |visit| {
        Box::pin(async move {
            let source = standing(visit).await.ok()?;
            Some(sources::panel(&named(visit), &source))
        })
    }))
}

fn pause(visit: &Visit, name: &str, source: &SourceStatus) -> Markup {
    match source.paused {
        Some(_) => button(visit, name, "resume", &[], "Resume"),
        None => button(visit, name, "pause", &[], "Pause"),
    }
}

/// A form that asks one thing of a source.
fn button(visit: &Visit, name: &str, deed: &str, fields: &[(&str, &str)], words: &str) -> Markup {
    html! {
        form method="post" action={ (at(name)) "/" (deed) } {
            (token(visit.token()))
            @for (field, value) in fields { input type="hidden" name=(field) value=(value); }
            button.plain { (words) }
        }
    }
}

/// Takes nothing in any more.
pub(crate) async fn pause_it(visit: Visit) -> Result<Outcome, Refusal> {
    let source = named(&visit);
    visit.ask(Request::SourcePause { source: source.clone() }).await?;
    let note = "It is paused: nothing is taken in, and the records that there are stay.".to_owned();
    Ok(visit.done(at(&source), note))
}

/// Takes in again.
pub(crate) async fn resume(visit: Visit) -> Result<Outcome, Refusal> {
    let source = named(&visit);
    visit.ask(Request::SourceResume { source: source.clone() }).await?;
    Ok(visit.done(at(&source), "It goes on: all of it is looked at again.".to_owned()))
}

/// Shows a folder of the source.
pub(crate) async fn browse(visit: Visit) -> Result<Outcome, Refusal> {
    let source = named(&visit);
    let folder = visit.form.get("folder").unwrap_or_default().to_owned();
    let after = visit.form.get("after").map(ToOwned::to_owned);
    let request = Request::SourceList { source, folder, after };
    let listing = reply_of!(visit.ask(request).await?, Reply::SourceListing(listing) => listing);
    let body = html! {
        (trail(&listing.source))
        h1 { "What lies in " (listing.source) }
        (steps(&visit, &listing))
        @if listing.entries.is_empty() { p.empty { "This folder is empty." } } @else { (entries(&visit, &listing)) }
        @if let Some(more) = &listing.more {
            p.soft { (count(listing.entries.len() as u64)) " of " (count(listing.of)) " names are shown." }
            (button(&visit, &listing.source, "browse", &[("folder", &listing.folder), ("after", more)], "The next"))
        }
    };
    Ok(Page::of("/sources", format!("What lies in {}", listing.source), body))
}

fn trail(source: &str) -> Markup {
    html! { p.trail { a href="/sources" { "Sources" } " / " a href=(at(source)) { (source) } } }
}

/// The folders above the one that is shown, each to go back to.
fn steps(visit: &Visit, listing: &SourceListing) -> Markup {
    let parts: Vec<_> = listing.folder.split('/').filter(|part| !part.is_empty()).collect();
    html! {
        form.steps-up method="post" action={ (at(&listing.source)) "/browse" } aria-label="Folder" {
            (token(visit.token()))
            button.link name="folder" value="" { (listing.source) }
            @for end in 1..=parts.len() {
                " / "
                @if end == parts.len() { strong { (parts[end - 1]) } }
                @else { button.link name="folder" value=(parts[..end].join("/")) { (parts[end - 1]) } }
            }
        }
    }
}

fn entries(visit: &Visit, listing: &SourceListing) -> Markup {
    let heads = [words("Name"), numbers("Size"), words("Changed"), words("State")];
    let inner = |name: &str| match listing.folder.as_str() {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    };
    html! {
        form method="post" action={ (at(&listing.source)) "/browse" } {
            (token(visit.token()))
            (table("Entries", &heads, html! {
                @for entry in &listing.entries {
                    tr {
                        th scope="row" {
                            @if entry.kind == "folder" && !entry.passed_over {
                                button.link name="folder" value=(inner(&entry.name)) { (entry.name) "/" }
                            } @else { (entry.name) @if entry.kind == "folder" { "/" } }
                        }
                        td.n { @match entry.size { Some(size) => (bytes(size)), None => span.soft { "–" } } }
                        td { @match entry.modified { Some(at) => (time(at)), None => span.soft { "–" } } }
                        td { (state(entry)) }
                    }
                }
            }))
        }
    }
}

fn state(entry: &SourceEntry) -> Markup {
    match (entry.passed_over, entry.state.as_deref(), entry.skip.as_deref(), entry.kind.as_str()) {
        (true, ..) => chip("quiet", "passed over by its name"),
        (_, Some("present"), ..) => chip("good", "taken in"),
        (_, _, Some(skip), _) => html! { (chip("waits", "not read")) " " span.soft { (reason(skip)) } },
        (.., "folder") => html! {},
        (.., "file") => chip("quiet", "not taken in yet"),
        _ => chip("quiet", "never opened"),
    }
}

/// Why a document is not read, for people.
pub(crate) fn reason(word: &str) -> &str {
    match word {
        "unreadable" => "moatd may not read it",
        "too_large" => "larger than the source's max_bytes",
        "binary" => "holds no text",
        "special" => "no regular file",
        "link" => "a link that leads elsewhere",
        "damaged" => "its format is damaged",
        "closed" => "a folder that cannot be listed",
        other => other,
    }
}

/// Looks whether the source can be read.
pub(crate) async fn test(visit: Visit) -> Result<Outcome, Refusal> {
    let request = Request::SourceTest { source: named(&visit) };
    let trial = reply_of!(visit.ask(request).await?, Reply::SourceTrial(trial) => trial);
    let body = html! {
        (trail(&trial.source))
        div.head { h1 { "Test of " (trial.source) } p { (verdict(&trial)) } }
        p { "Nothing was taken in: files were opened and closed again." }
        dl.facts.panel { (found(&trial)) }
        @if !trial.problems.is_empty() {
            section aria-labelledby="problems" {
                h2 #problems { "What would not be read" }
                (problems(&trial))
            }
        }
        (button(&visit, &trial.source, "test", &[], "Test it again"))
    };
    Ok(Page::of("/sources", format!("Test of {}", trial.source), body))
}

/// What a trial found, as facts.
pub(crate) fn found(trial: &SourceTrial) -> Markup {
    html! {
        (fact("Files", html! { (count(trial.files)) ", " (bytes(trial.bytes)) }))
        @if trial.folders > 0 { (fact("Folders", count(trial.folders))) }
        @if let Some(commit) = &trial.commit { (fact("Commit", html! { code.whole { (commit) } })) }
        @for (skip, number) in &trial.skipped { (fact("Not read", html! { (count(*number)) ": " (reason(skip)) })) }
        @if trial.closed > 0 { (fact("Closed", html! { (count(trial.closed)) " folders cannot be listed" })) }
        @if trial.passed_over > 0 { (fact("Passed over", html! { (count(trial.passed_over)) ", by their names or since they are links to what is read anyway" })) }
        (fact("Took", format!("{:.1}\u{202f}s", trial.seconds)))
    }
}

/// The files that a trial found to be unreadable.
pub(crate) fn problems(trial: &SourceTrial) -> Markup {
    table(
        "Problems",
        &[words("File"), words("Why")],
        html! {
            @for problem in &trial.problems { tr { th scope="row" { (problem.path) } td { (reason(&problem.what)) } } }
        },
    )
}

/// What a source is, as facts.
pub(crate) fn described(source: &SourceDefinition) -> Markup {
    html! {
        (fact("Name", html! { strong { (source.name) } }))
        (fact("Kind", &source.kind))
        (fact("Path", html! { code.whole { (source.path) } }))
        @if source.kind == "git" {
            (fact("Branch", if source.branch.is_empty() { "the one that HEAD names" } else { source.branch.as_str() }))
        }
        (fact("Policy", &source.policy))
        (fact("At most", html! { (bytes(source.max_bytes)) " a document" }))
        (fact("Waits for", html! { "files that changed in the last " (duration(source.settle_seconds)) }))
        (fact("Whole scans", html! { "every " (duration(source.rescan_seconds)) }))
        (fact("Dotted names", if source.hidden { "are read" } else { "are passed over" }))
    }
}

/// In a word what a trial came to.
pub(crate) fn verdict(trial: &SourceTrial) -> Markup {
    match (trial.is_sound(), trial.whole) {
        (true, true) => chip("good", "all of it can be read"),
        (true, false) => chip("good", "what was looked at can be read; there is more"),
        (false, true) => chip("waits", "some of it would not be read"),
        (false, false) => chip("waits", "some of it would not be read, and there is more"),
    }
}

/// Documents that were not read, or only in part.
pub(crate) async fn faults(visit: Visit) -> Result<Outcome, Refusal> {
    let after = visit.form.word("after").map(str::parse).transpose();
    let after = after.map_err(|_| Refusal::request("a document's number is a number"))?;
    let request = Request::SourceFaults { source: named(&visit), after };
    let found = reply_of!(visit.ask(request).await?, Reply::SourceFaults(found) => found);
    let body = html! {
        (trail(&found.source))
        h1 { "Documents with faults in " (found.source) }
        @if found.documents.is_empty() { p.empty { "Every document was read whole." } } @else { (faulty(&found)) }
        @if let Some(more) = found.more {
            (button(&visit, &found.source, "faults", &[("after", &more.to_string())], "The next"))
        }
    };
    Ok(Page::of("/sources", format!("Faults in {}", found.source), body))
}

fn faulty(found: &SourceFaults) -> Markup {
    let what = |document: &FaultyDocument| match &document.skip {
        Some(skip) => html! { (chip("waits", "not read")) " " (reason(skip)) },
        None => {
            html! { (chip("waits", "read in part")) " " (count(document.places)) " places could not be read" }
        }
    };
    table(
        "Documents with faults",
        &[words("Document"), numbers("Size"), words("Fault")],
        html! {
            @for document in &found.documents {
                tr {
                    th scope="row" { (document.path) }
                    td.n { (bytes(document.size)) }
                    td {
                        (what(document))
                        @for fault in &document.faults { div.soft { "line " (count(fault.line)) ": " (fault.what) } }
                        @if document.places > document.faults.len() as u64 && !document.faults.is_empty() { div.soft { "…" } }
                    }
                }
            }
        },
    )
}
