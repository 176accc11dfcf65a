//! A new source: a folder is chosen, tried and asked for. Paths come by forms, so that none stands in an address.

use maud::{Markup, html};
use moat_protocol::control::{
    Fault, FolderEntry, FolderListing, Reply, Request, SourceDefinition, SourceTrial,
};
use moat_settings::SourceSettings;

use super::{approvals, source};
use crate::Refusal;
use crate::draw::parts::{count, table, words};
use crate::draw::token;
use crate::form::{Form, path};
use crate::site::{Outcome, Page, Visit, reply_of};

const AT: &str = "/new-source";
const FOLDERS: &str = "/new-source/folders";
const TRY: &str = "/new-source/try";

/// What the form holds.
struct Draft {
    name: String,
    kind: String,
    path: String,
    branch: String,
    policy: String,
    max_bytes: String,
    settle: String,
    rescan: String,
    hidden: bool,
}

impl Default for Draft {
    fn default() -> Self {
        let source = SourceSettings::default();
        Self {
            name: source.name,
            kind: source.kind.word().to_owned(),
            path: String::new(),
            branch: source.branch,
            policy: source.policy,
            max_bytes: source.max_bytes.to_string(),
            settle: source.settle_seconds.to_string(),
            rescan: source.rescan_seconds.to_string(),
            hidden: source.hidden,
        }
    }
}

impl Draft {
    fn of(form: &Form) -> Self {
        let word = |name: &str| form.word(name).unwrap_or_default().to_owned();
        Self {
            name: word("name"),
            kind: word("kind"),
            path: word("path"),
            branch: word("branch"),
            policy: word("policy"),
            max_bytes: word("max_bytes"),
            settle: word("settle"),
            rescan: word("rescan"),
            hidden: form.get("hidden").is_some(),
        }
    }

    /// Takes a folder; it lends its name where none was typed.
    fn choose(&mut self, path: &str, kind: &str) {
        if self.name.is_empty() {
            let last = path.rsplit('/').next().unwrap_or_default();
            let fits = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
            self.name = last.chars().filter(fits).take(64).collect();
        }
        (self.path, self.kind) = (path.to_owned(), kind.to_owned());
    }

    fn definition(&self) -> Result<Box<SourceDefinition>, Refusal> {
        let number = |text: &str, what: &str| {
            text.parse().map_err(|_| Refusal::request(&format!("{what} must be given as a whole number")))
        };
        Ok(Box::new(SourceDefinition {
            name: self.name.clone(),
            kind: self.kind.clone(),
            path: self.path.clone(),
            branch: self.branch.clone(),
            policy: self.policy.clone(),
            max_bytes: number(&self.max_bytes, "the bytes of a document")?,
            settle_seconds: number(&self.settle, "the seconds for which a changed file is waited for")?,
            rescan_seconds: number(&self.rescan, "the seconds between two whole scans")?,
            hidden: self.hidden,
        }))
    }

    /// What was tried, to be asked for as it is.
    fn carried(&self) -> Markup {
        let fields = [
            ("name", &self.name),
            ("kind", &self.kind),
            ("path", &self.path),
            ("branch", &self.branch),
            ("policy", &self.policy),
            ("max_bytes", &self.max_bytes),
            ("settle", &self.settle),
            ("rescan", &self.rescan),
        ];
        html! {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            @if self.hidden { input type="hidden" name="hidden" value="yes"; }
        }
    }
}

/// The form of a new source.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let listing = listed(&visit, "", None).await?;
    Ok(page(200, form(&visit, &Draft::default(), &listing, None)))
}

/// Shows the folders in a folder, or takes one of those that are shown.
pub(crate) async fn folders(visit: Visit) -> Result<Outcome, Refusal> {
    let mut draft = Draft::of(&visit.form);
    let shown = visit.form.get("at").unwrap_or_default();
    let (folder, after) = match (visit.form.get("folder"), visit.form.get("after")) {
        (Some(folder), _) => (folder, None),
        (None, after) => (shown, after.map(ToOwned::to_owned)),
    };
    let taken =
        ["folder", "git"].into_iter().find_map(|kind| Some((visit.form.get(&format!("take_{kind}"))?, kind)));
    match taken {
        Some((path, kind)) => draft.choose(path, kind),
        None if after.is_none() && visit.form.get("folder").is_none() => {
            return Err(Refusal::request("no folder was named"));
        }
        None => {}
    }
    match listed(&visit, folder, after).await {
        Ok(listing) => Ok(page(200, form(&visit, &draft, &listing, None))),
        Err(refusal) => refused(&visit, &draft, &refusal).await,
    }
}

/// Shows what the source would read.
pub(crate) async fn attempt(visit: Visit) -> Result<Outcome, Refusal> {
    tried(&visit, &Draft::of(&visit.form), None).await
}

/// Asks for the source.
pub(crate) async fn ask(visit: Visit) -> Result<Outcome, Refusal> {
    let draft = Draft::of(&visit.form);
    let proof = approvals::proof(&visit);
    let asked = match draft.definition() {
        Ok(definition) => visit.ask(Request::SourceAdd { definition, proof }).await,
        Err(refusal) => Err(refusal),
    };
    match asked {
        Ok(reply) => {
            let statement = reply_of!(reply, Reply::Statement(statement) => statement);
            let note = "It is asked for, and waits for somebody else.".to_owned();
            Ok(visit.done(path(&["approvals", &statement.id]), note))
        }
        // What was typed is not to be typed again.
        Err(refusal) if refusal.fault == Fault::Request => tried(&visit, &draft, Some(&refusal)).await,
        Err(refusal) => Err(refusal),
    }
}

async fn listed(visit: &Visit, folder: &str, after: Option<String>) -> Result<FolderListing, Refusal> {
    let request = Request::SourceFolders { folder: folder.to_owned(), after };
    Ok(reply_of!(visit.ask(request).await?, Reply::SourceFolders(listing) => listing))
}

/// The folders that were shown, or those at which one begins where they are not there any more.
async fn shown_before(visit: &Visit) -> Result<FolderListing, Refusal> {
    match listed(visit, visit.form.get("at").unwrap_or_default(), None).await {
        Err(refusal) if refusal.fault == Fault::Request => listed(visit, "", None).await,
        other => other,
    }
}

/// The form again, with what stands in the way.
async fn refused(visit: &Visit, draft: &Draft, refusal: &Refusal) -> Result<Outcome, Refusal> {
    if refusal.fault != Fault::Request {
        return Err(refusal.clone());
    }
    let listing = shown_before(visit).await?;
    Ok(page(422, form(visit, draft, &listing, Some(refusal))))
}

/// Tries a source, and shows what it would read; `said` is what an earlier try to ask for it came to.
async fn tried(visit: &Visit, draft: &Draft, said: Option<&Refusal>) -> Result<Outcome, Refusal> {
    let trial = match draft.definition() {
        Ok(definition) => visit.ask(Request::SourceTry { definition }).await,
        Err(refusal) => Err(refusal),
    };
    match trial {
        Ok(reply) => {
            let trial = reply_of!(reply, Reply::SourceTrial(trial) => trial);
            let listing = shown_before(visit).await?;
            let status = if said.is_some() { 422 } else { 200 };
            Ok(page(status, outcome(visit, draft, &trial, &listing, said)))
        }
        Err(refusal) => refused(visit, draft, said.unwrap_or(&refusal)).await,
    }
}

fn page(status: u16, body: Markup) -> Outcome {
    let body = html! {
        p.trail { a href="/sources" { "Sources" } }
        h1 { "New source" }
        (body)
    };
    Outcome::Page(Page { status, title: "New source".to_owned(), place: "/sources", body, retry: None })
}

fn form(visit: &Visit, draft: &Draft, listing: &FolderListing, said: Option<&Refusal>) -> Markup {
    if listing.boundary.is_empty() {
        return closed();
    }
    html! {
        p { "Choose a folder or a repository of this machine, try what would be read, and ask for it. Once somebody else agrees "
            "it is read, without a restart." }
        @if let Some(said) = said { p.note.bad role="alert" { "Not done: " (said.message) "." } }
        (fields(visit, draft, listing))
    }
}

/// Where the configuration names no folder in which sources may be added.
fn closed() -> Markup {
    html! {
        p.empty { "Nobody may add a source yet: the configuration names no folder in which one may lie." }
        section.panel aria-labelledby="open" {
            h2 #open { "How it is opened, once" }
            ol.steps-to {
                li { "Whoever keeps the box names the folders in " code { "moat.toml" } ", lets the user of " code { "moatd" }
                    " read them, and checks the file: " code { "moat check" } "."
                    pre { code { "[boundary]\nsources = [\"/srv\"]" } } }
                li { "Where systemd starts it, " code { "systemctl edit moatd.service" } " binds them as well, read-only."
                    pre { code { "[Service]\nBindReadOnlyPaths=/srv" } } }
                li { "They restart the daemon: " code { "systemctl restart moatd" } ". Until the next step is done no work on data goes on." }
                li { "What Moat may read is its policy: a steward or an admin asks for it (" code { "moat policy request" } "), and an "
                    "approver agrees under " a href="/approvals" { "Approvals" } "." }
                li { "From then on this page shows these folders: each source in them is asked for by a steward, agreed to by an approver, "
                    "and read at once." }
            }
            p.soft { "A source can be named in " code { "moat.toml" } " itself as well, under " code { "[[source]]" } ": it takes the same steps each time." }
        }
    }
}

/// All that can be typed and chosen. The button that tries comes first: it is what the Enter key presses.
fn fields(visit: &Visit, draft: &Draft, listing: &FolderListing) -> Markup {
    html! {
        form method="post" action=(TRY) {
            (token(visit.token()))
            input type="hidden" name="at" value=(listing.folder);
            div.columns { (typed(draft, listing)) (choice(listing)) }
        }
    }
}

fn typed(draft: &Draft, listing: &FolderListing) -> Markup {
    let example = listing.boundary.first().map(|folder| format!("{}/handbook", folder.trim_end_matches('/')));
    html! {
        section.panel aria-labelledby="source" {
            h2 #source { "The source" }
            div.stack.wide {
                label for="path" { "Path on this machine" }
                input #path name="path" value=(draft.path) required autocomplete="off" spellcheck="false" autocapitalize="off"
                    placeholder=[example] aria-describedby="path-help";
                p.soft #path-help { "Choose it among the folders, or type it." }
                label for="name" { "Name" }
                input #name name="name" value=(draft.name) required maxlength="64" autocomplete="off" spellcheck="false"
                    autocapitalize="off" aria-describedby="name-help";
                p.soft #name-help { "Recipes, tables and lineage call it so: letters, digits, - _ and dots." }
                label for="kind" { "Kind" }
                select #kind name="kind" {
                    option value="folder" selected[draft.kind == "folder"] { "A folder of files" }
                    option value="git" selected[draft.kind == "git"] { "The tracked text of a local git repository" }
                }
                div.fields {
                    (field("branch", "Branch", &draft.branch, Some("git: that of HEAD")))
                    (field("policy", "Policy of its documents", &draft.policy, None))
                    (number("max_bytes", "Bytes of a document at most", &draft.max_bytes))
                    (number("settle", "Seconds to wait for a changed file", &draft.settle))
                    (number("rescan", "Seconds between whole scans", &draft.rescan))
                }
                label.check { input type="checkbox" name="hidden" value="yes" checked[draft.hidden]; " also names that begin with a dot" }
                button { "Try it" }
            }
        }
    }
}

fn field(name: &str, title: &str, value: &str, empty: Option<&str>) -> Markup {
    html! {
        div {
            label for=(name) { (title) }
            input id=(name) name=(name) value=(value) required[empty.is_none()] placeholder=[empty] autocomplete="off"
                spellcheck="false" autocapitalize="off";
        }
    }
}

fn number(name: &str, title: &str, value: &str) -> Markup {
    html! {
        div {
            label for=(name) { (title) }
            input id=(name) name=(name) value=(value) required inputmode="numeric" autocomplete="off";
        }
    }
}

/// A button that leads on among the folders, whatever is typed so far.
fn leads(name: &str, value: &str, title: impl maud::Render, spoken: Option<String>) -> Markup {
    html! {
        button.link name=(name) value=(value) formaction=(FOLDERS) formnovalidate aria-label=[spoken] { (title) }
    }
}

fn choice(listing: &FolderListing) -> Markup {
    html! {
        section.panel aria-labelledby="folders" {
            h2 #folders { "Folders to choose from" }
            p.soft { "A source may lie in "
                @for (at, folder) in listing.boundary.iter().enumerate() { @if at > 0 { ", " } code.whole { (folder) } }
                ". Links are not followed." }
            @if !listing.folder.is_empty() {
                p { code.whole { (listing.folder) } }
                div.row {
                    @if let Some(above) = &listing.above {
                        (leads("folder", above, if above.is_empty() { "All folders" } else { "The folder above" }, None))
                    }
                    @if listing.allowed { (leads("take_folder", &listing.folder, "Choose this one", None)) }
                }
            }
            @if listing.folders.is_empty() {
                p.soft { "No folder to show here, beside " (count(listing.files)) " files." }
            } @else {
                (table("Folders", &[words("Folder"), words("As a source")], html! {
                    @for folder in &listing.folders { (row(folder)) }
                }))
                p.soft {
                    @if listing.of > listing.folders.len() as u64 { (count(listing.folders.len() as u64)) " of " }
                    (count(listing.of)) " folders" @if listing.files > 0 { ", beside " (count(listing.files)) " files" } "."
                }
            }
            @if let Some(more) = &listing.more { p { (leads("after", more, "The next", None)) } }
        }
    }
}

fn row(folder: &FolderEntry) -> Markup {
    let take = if folder.repository { "take_git" } else { "take_folder" };
    html! {
        tr {
            th scope="row" {
                (leads("folder", &folder.path, &folder.name, Some(format!("{}: show its folders", folder.name))))
                @if folder.repository { " " span.soft { "git" } }
            }
            td {
                @match &folder.source {
                    Some(name) => { "is " a href=(path(&["sources", name])) { (name) } },
                    None if folder.allowed => (leads(take, &folder.path, "Choose", Some(format!("Choose {}", folder.name)))),
                    None => span.soft { "to look into" },
                }
            }
        }
    }
}

/// What a source would read, and the way to ask for it.
fn outcome(
    visit: &Visit,
    draft: &Draft,
    trial: &SourceTrial,
    listing: &FolderListing,
    said: Option<&Refusal>,
) -> Markup {
    html! {
        @if let Some(said) = said { p.note.bad role="alert" { "Not asked for: " (said.message) "." } }
        section.panel aria-labelledby="tried" {
            div.head { h2 #tried { "What " (draft.name) " would read" } p { (source::verdict(trial)) } }
            p { "Nothing was taken in, and nothing is asked for yet." }
            dl.facts { (source::found(trial)) }
            @if !trial.problems.is_empty() {
                details { summary { "What would not be read " span.soft { (count(trial.problems.len() as u64)) } } (source::problems(trial)) }
            }
        }
        section.panel aria-labelledby="ask" {
            h2 #ask { "Ask for it" }
            p { "An approver sees all that is typed here and these counts, and agrees or not. Then it is read, whatever lies in "
                code.whole { (draft.path) } " from then on." }
            form.stack method="post" action=(AT) {
                (token(visit.token()))
                (draft.carried())
                (approvals::proof_fields("ask"))
                button { "Ask for it" }
            }
        }
        details {
            summary { "Change it" }
            (fields(visit, draft, listing))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Draft;
    use crate::form::Form;

    #[test]
    fn a_chosen_folder_lends_its_name_and_takes_none_away() {
        let mut draft = Draft::default();
        draft.choose("/srv/Our hand\u{e4}book (2)", "folder");
        assert_eq!(
            (draft.name.as_str(), draft.path.as_str()),
            ("Ourhandbook2", "/srv/Our hand\u{e4}book (2)")
        );
        draft.choose("/srv/code", "git");
        assert_eq!((draft.name.as_str(), draft.kind.as_str()), ("Ourhandbook2", "git"));
    }

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let typed = "name=book&kind=git&path=%2Fsrv%2Fb&branch=main&policy=secret&max_bytes=9&settle=1&rescan=60&hidden=yes";
        let definition = Draft::of(&Form::parse(typed.as_bytes())).definition().unwrap();
        assert_eq!(
            serde_json::to_value(&definition).unwrap(),
            serde_json::json!({"name": "book", "kind": "git", "path": "/srv/b", "branch": "main", "policy": "secret",
                "max_bytes": 9, "settle_seconds": 1, "rescan_seconds": 60, "hidden": true})
        );
        for wrong in ["", "-1", "1.5", "9e9", "1\nx = 2"] {
            let draft = Draft { max_bytes: wrong.to_owned(), ..Draft::default() };
            assert!(draft.definition().unwrap_err().message.contains("whole number"), "{wrong}");
        }
    }
}
