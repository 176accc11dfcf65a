//! One source: how it stands, what lies in it, whether it can be read, what of it was not, and its pause. Names of files
//! come by forms, so that none stands in an address.

use maud::{Markup, html};
use moat_protocol::control::{
    FaultyDocument, Reply, Request, SourceEntry, SourceFaults, SourceListing, SourceStatus, SourceTrial,
};
use moat_rights::Act;

use super::sources;
use crate::Refusal;
use crate::draw::parts::{bytes, chip, count, fact, numbers, table, time, words};
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
            @if visit.may(Act::SourceChange) { (pause(&visit, &name, &source)) }
        }
        div data-live={ "/live" (at(&name)) } { (sources::panel(&name, &source)) }
        @if visit.may(Act::RecordRead) {
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
    };
    Ok(Page::of("/sources", format!("Source {name}"), body))
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
        dl.facts.panel {
            (fact("Files", html! { (count(trial.files)) ", " (bytes(trial.bytes)) }))
            @if trial.folders > 0 { (fact("Folders", count(trial.folders))) }
            @if let Some(commit) = &trial.commit { (fact("Commit", html! { code.whole { (commit) } })) }
            @for (skip, number) in &trial.skipped { (fact("Not read", html! { (count(*number)) ": " (reason(skip)) })) }
            @if trial.closed > 0 { (fact("Closed", html! { (count(trial.closed)) " folders cannot be listed" })) }
            @if trial.passed_over > 0 { (fact("Passed over", html! { (count(trial.passed_over)) ", by their names or since they are links to what is read anyway" })) }
            (fact("Took", format!("{:.1}\u{202f}s", trial.seconds)))
        }
        @if !trial.problems.is_empty() {
            section aria-labelledby="problems" {
                h2 #problems { "What would not be read" }
                (table("Problems", &[words("File"), words("Why")], html! {
                    @for problem in &trial.problems { tr { th scope="row" { (problem.path) } td { (reason(&problem.what)) } } }
                }))
            }
        }
        (button(&visit, &trial.source, "test", &[], "Test it again"))
    };
    Ok(Page::of("/sources", format!("Test of {}", trial.source), body))
}

fn verdict(trial: &SourceTrial) -> Markup {
    match (trial.problems.is_empty(), trial.whole) {
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

/// The form of a source that is to be added.
pub(crate) async fn new(visit: Visit) -> Result<Outcome, Refusal> {
    Ok(draw_new(&visit, &Draft::default(), None, 200))
}

/// What the form of a new source holds.
struct Draft {
    name: String,
    kind: String,
    path: String,
    branch: String,
    policy: String,
    max_bytes: String,
    rescan: String,
    hidden: bool,
}

impl Default for Draft {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            name: String::new(),
            kind: text("folder"),
            path: String::new(),
            branch: String::new(),
            policy: text("internal"),
            max_bytes: text("16777216"),
            rescan: text("300"),
            hidden: false,
        }
    }
}

impl Draft {
    fn of(visit: &Visit) -> Self {
        let word = |name: &str| visit.form.word(name).unwrap_or_default().to_owned();
        Self {
            name: word("name"),
            kind: word("kind"),
            path: word("path"),
            branch: word("branch"),
            policy: word("policy"),
            max_bytes: word("max_bytes"),
            rescan: word("rescan"),
            hidden: visit.form.get("hidden").is_some(),
        }
    }

    /// The lines that it takes in `moat.toml`.
    fn lines(&self) -> String {
        let mut lines = format!(
            "[[source]]\nname = {}\nkind = {}\npath = {}\n",
            quoted(&self.name),
            quoted(&self.kind),
            quoted(&self.path)
        );
        if !self.branch.is_empty() {
            lines.push_str(&format!("branch = {}\n", quoted(&self.branch)));
        }
        lines.push_str(&format!("policy = {}\n", quoted(&self.policy)));
        // A number that is none must not become another line.
        for (key, value) in [("max_bytes", &self.max_bytes), ("rescan_seconds", &self.rescan)] {
            let number = value.parse::<u64>().map_or_else(|_| quoted(value), |number| number.to_string());
            lines.push_str(&format!("{key} = {number}\n"));
        }
        if self.hidden {
            lines.push_str("hidden = true\n");
        }
        lines
    }
}

/// A text as a basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// What the configuration's own reader says of a draft beside the sources that there are: key and message.
fn faults_of(draft: &Draft, known: &[(String, String, String)]) -> Vec<(String, String)> {
    let mut text = String::new();
    for (name, kind, path) in known {
        text.push_str(&format!(
            "[[source]]\nname = {}\nkind = {}\npath = {}\n\n",
            quoted(name),
            quoted(kind),
            quoted(path)
        ));
    }
    text.push_str(&draft.lines());
    let own = format!("source[{}]", known.len());
    match moat_settings::parse(&text) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            let faults = faults.0.into_iter().filter(|fault| fault.key.starts_with(&own));
            let key = |key: &str| key.trim_start_matches(&own).trim_start_matches('.').to_owned();
            faults.map(|fault| (key(&fault.key), fault.message)).collect()
        }
    }
}

/// Checks a draft by the configuration's own rules, and shows the lines that it takes.
pub(crate) async fn check(visit: Visit) -> Result<Outcome, Refusal> {
    let draft = Draft::of(&visit);
    let all = reply_of!(visit.ask(Request::Sources).await?, Reply::Sources(all) => all);
    let known = all.into_iter().map(|(name, source)| (name, source.kind, source.location));
    let faults = faults_of(&draft, &known.collect::<Vec<_>>());
    let status = if faults.is_empty() { 200 } else { 422 };
    Ok(draw_new(&visit, &draft, Some(&faults), status))
}

fn draw_new(visit: &Visit, draft: &Draft, checked: Option<&[(String, String)]>, status: u16) -> Outcome {
    let body = html! {
        p.trail { a href="/sources" { "Sources" } }
        h1 { "A new source" }
        p { "What Moat may read is said by its configuration and agreed to by two people, so a source is not added by a click. This "
            "page checks what you type by the configuration's own rules, and shows the lines and what happens next." }
        @match checked {
            Some([]) => (next(draft)),
            Some(faults) => div.note.bad role="alert" {
                p { "This is not sound yet:" }
                ul.list { @for (key, message) in faults { li { code { (key) } ": " (message) } } }
            },
            None => {}
        }
        form.stack method="post" action="/new-source" {
            (token(visit.token()))
            label for="name" { "Name" }
            input #name name="name" value=(draft.name) required maxlength="64" autocomplete="off" spellcheck="false" autocapitalize="off" aria-describedby="name-help";
            p.soft #name-help { "Recipes, tables and lineage call it so: letters, digits, - _ and dots." }
            label for="kind" { "Kind" }
            select #kind name="kind" {
                option value="folder" selected[draft.kind == "folder"] { "A folder of files" }
                option value="git" selected[draft.kind == "git"] { "The tracked text of a local git repository" }
            }
            label for="path" { "Path on this machine" }
            input #path name="path" value=(draft.path) required autocomplete="off" spellcheck="false" placeholder="/srv/handbook";
            label for="branch" { "Branch " span.soft { "(git only; empty: the one that HEAD names)" } }
            input #branch name="branch" value=(draft.branch) autocomplete="off" spellcheck="false";
            label for="policy" { "Policy that its documents carry" }
            input #policy name="policy" value=(draft.policy) required autocomplete="off";
            label for="max_bytes" { "Bytes of a document at most" }
            input #max_bytes name="max_bytes" value=(draft.max_bytes) required inputmode="numeric";
            label for="rescan" { "Seconds between two whole scans" }
            input #rescan name="rescan" value=(draft.rescan) required inputmode="numeric";
            label.check { input type="checkbox" name="hidden" value="yes" checked[draft.hidden]; " also names that begin with a dot" }
            button { "Check it" }
        }
    };
    let title = "A new source".to_owned();
    Outcome::Page(Page { status, title, place: "/sources", body, retry: None })
}

fn next(draft: &Draft) -> Markup {
    html! {
        section.panel aria-labelledby="next" {
            h2 #next { "It is sound. What happens next" }
            ol.steps-to {
                li { "Whoever keeps the box adds these lines to " code { "moat.toml" } ", lets the user of " code { "moatd" } " read the "
                    "folder, and checks the whole file on the machine: " code { "moat check" } "."
                    pre { code { (draft.lines()) } } }
                li { "They restart the daemon: " code { "systemctl restart moatd" } ". From then on it may read the folder; until the next "
                    "step is done, no work on any data goes on." }
                li { "What Moat may read is its policy: a steward or an admin asks for it (" code { "moat policy request" } "), and an "
                    "approver agrees under " a href="/approvals" { "Approvals" } "." }
                li { "The source shows under " a href="/sources" { "Sources" } ": test there whether all of it can be read." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Draft, faults_of, quoted};

    fn draft(name: &str, path: &str) -> Draft {
        Draft { name: name.to_owned(), path: path.to_owned(), ..Draft::default() }
    }

    #[test]
    fn a_draft_is_judged_as_the_configuration_is() {
        let known = [("wiki".to_owned(), "folder".to_owned(), "/srv/wiki".to_owned())];
        assert_eq!(faults_of(&draft("book", "/srv/book"), &known), []);
        let keys = |draft: &Draft| {
            let faults = faults_of(draft, &known).into_iter();
            faults.map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&draft("wiki", "/srv/wiki")), ["name", "path"]);
        assert_eq!(keys(&draft("a b", "book")), ["name", "path"]);
        assert_eq!(keys(&Draft { branch: "main".to_owned(), ..draft("book", "/srv/book") }), ["branch"]);
        assert_eq!(keys(&Draft { kind: "tape".to_owned(), ..draft("book", "/srv/book") }), ["kind"]);
        assert_eq!(keys(&Draft { max_bytes: "1\nx = 2".to_owned(), ..draft("book", "/b") }), ["max_bytes"]);
        assert_eq!(faults_of(&draft("", ""), &[]).len(), 2);
    }

    #[test]
    fn no_text_leaves_its_quotes() {
        for text in ["", "a\"b\\", "new\nline\u{7f}\t", "\u{e4}\u{1F600}"] {
            let settings = moat_settings::parse(&format!(
                "[[source]]\nname = \"a\"\npath = \"/a\"\npolicy = {}\n",
                quoted(&format!("x{text}"))
            ));
            assert_eq!(
                settings.map(|settings| settings.source[0].policy.clone()).ok(),
                Some(format!("x{text}"))
            );
        }
    }
}
