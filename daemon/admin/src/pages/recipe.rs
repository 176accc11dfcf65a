//! The form of a new run or sweep: a recipe's text with its main values beside it, checked and planned before anything
//! starts.

use maud::{Markup, html};
use moat_contracts::{Recipe, Sweep};
use moat_protocol::control::{Base, Course, Fault, Reply, Request, RunPreview};
use moat_rights::Act;
use moat_settings::{
    Fault as Place, SHIPPED, edited, parse_either, quoted, recipe_text, recipe_values, written,
};

use super::runs::{plan, proofs};
use crate::Refusal;
use crate::draw::parts::{bytes, count, fact, hash, numbers, short, table, titled, words};
use crate::draw::token;
use crate::form::{Form, path};
use crate::site::{Outcome, Page, Visit, reply_of};

/// Earlier runs that a recipe may be taken from.
const EARLIER: usize = 20;

/// What begins the name of a run in the list of recipes to start from.
const OF_RUN: &str = "run ";

/// What a main value is chosen from.
#[derive(Clone, Copy)]
enum Sort {
    Text,
    Number,
    Base,
    Words(&'static [&'static str]),
}

/// The values that have a field of their own.
const MAIN: [(&str, &str, Sort); 16] = [
    ("name", "Name", Sort::Text),
    ("base", "Base", Sort::Base),
    ("seed", "Seed", Sort::Number),
    ("train.method", "Method", Sort::Words(&["lora", "full"])),
    ("train.epochs", "Epochs", Sort::Number),
    ("train.max_steps", "Steps at most (0: no bound)", Sort::Number),
    ("train.sequence_length", "Tokens of a row", Sort::Number),
    ("train.micro_batch", "Rows of a micro-batch", Sort::Number),
    ("train.accumulate", "Micro-batches of a step", Sort::Number),
    ("lora.rank", "LoRA rank", Sort::Number),
    ("lora.alpha", "LoRA alpha", Sort::Number),
    ("optimizer.learning_rate", "Learning rate", Sort::Number),
    ("optimizer.schedule", "Schedule", Sort::Words(&["constant", "linear", "cosine", "wsd"])),
    ("split.held_out", "Share held back for the edge", Sort::Number),
    ("split.validation", "Share to choose by", Sort::Number),
    ("validation.every", "Steps between looks at it", Sort::Number),
];

/// What stands on the page beside the text.
#[derive(Default)]
struct Shown {
    faults: Vec<Place>,
    /// What the daemon would not do.
    refusal: Option<String>,
    checked: Option<(Recipe, Option<Sweep>)>,
    preview: Option<Box<RunPreview>>,
}

/// The form as it begins.
pub(crate) async fn new(visit: Visit) -> Result<Outcome, Refusal> {
    page(&visit, SHIPPED[0].1, Shown::default(), true).await
}

/// The form with another recipe to start from.
pub(crate) async fn begin(visit: Visit) -> Result<Outcome, Refusal> {
    let Some(from) = visit.form.word("from").map(ToOwned::to_owned) else {
        return Err(Refusal::request("no recipe was chosen"));
    };
    let text = match from.strip_prefix(OF_RUN) {
        Some(name) => {
            let request = Request::Run { name: name.to_owned() };
            let run = reply_of!(visit.ask(request).await?, Reply::Run(run) => run);
            recipe_text(&run.recipe)
        }
        None => SHIPPED.iter().find(|(name, _)| *name == from).map(|(_, text)| (*text).to_owned()),
    };
    let text = text.ok_or_else(|| Refusal::request("there is no such recipe"))?;
    page(&visit, &text, Shown::default(), true).await
}

/// Says what is wrong with a recipe, or what it asks for.
pub(crate) async fn check(visit: Visit) -> Result<Outcome, Refusal> {
    let text = text(&visit.form)?;
    let shown = match parse_either(&text) {
        Ok(found) => Shown { checked: Some(found), ..Shown::default() },
        Err(faults) => Shown { faults: faults.0, ..Shown::default() },
    };
    page(&visit, &text, shown, false).await
}

/// Shows what a run would train on and take. The example is for those who may read texts.
pub(crate) async fn preview(visit: Visit) -> Result<Outcome, Refusal> {
    let text = text(&visit.form)?;
    let found = match parse_either(&text) {
        Ok(found) => found,
        Err(faults) => {
            return page(&visit, &text, Shown { faults: faults.0, ..Shown::default() }, false).await;
        }
    };
    let recipe = Box::new(found.0.clone());
    let request = match visit.may(Act::RecordRead) {
        true => Request::RunPreview { recipe },
        false => Request::RunPlan { recipe },
    };
    let mut shown = Shown { checked: Some(found), ..Shown::default() };
    match visit.ask(request).await {
        Ok(reply) => shown.preview = Some(reply_of!(reply, Reply::Preview(preview) => preview)),
        Err(refusal) if refusal.fault == Fault::Request => shown.refusal = Some(refusal.message),
        Err(refusal) => return Err(refusal),
    }
    page(&visit, &text, shown, false).await
}

/// Puts a run, or the runs of a sweep, into the queue.
pub(crate) async fn start(visit: Visit) -> Result<Outcome, Refusal> {
    let text = text(&visit.form)?;
    let (recipe, sweep) = match parse_either(&text) {
        Ok(found) => found,
        Err(faults) => {
            return page(&visit, &text, Shown { faults: faults.0, ..Shown::default() }, false).await;
        }
    };
    let request = match sweep.clone() {
        Some(sweep) => Request::SweepStart { sweep: Box::new(sweep) },
        None => Request::RunStart { recipe: Box::new(recipe.clone()) },
    };
    match visit.ask(request).await {
        Ok(Reply::Sweep(sweep)) => {
            let note = format!("{} runs of sweep {} are in the queue.", sweep.of, sweep.name);
            Ok(visit.done(path(&["sweeps", &sweep.name]), note))
        }
        Ok(reply) => {
            let run = reply_of!(reply, Reply::Run(run) => run);
            let to = path(&["runs", &run.name]);
            Ok(visit.done(to, format!("Run {} is in the queue.", run.name)))
        }
        Err(refusal) if refusal.fault == Fault::Request => {
            let shown =
                Shown { refusal: Some(refusal.message), checked: Some((recipe, sweep)), ..Shown::default() };
            page(&visit, &text, shown, false).await
        }
        Err(refusal) => Err(refusal),
    }
}

/// The text that was sent, with the main values that were changed beside it.
fn text(form: &Form) -> Result<String, Refusal> {
    let Some(text) = form.get("recipe") else { return Err(Refusal::request("no recipe was sent")) };
    let mut text = text.replace("\r\n", "\n");
    for (key, label, sort) in MAIN {
        let (Some(now), Some(was)) = (form.get(&format!("set:{key}")), form.get(&format!("was:{key}")))
        else {
            continue;
        };
        let now = now.trim();
        if now == was || now.is_empty() {
            continue;
        }
        let number = |letter: char| letter.is_ascii_alphanumeric() || "+-._".contains(letter);
        let value = match sort {
            Sort::Number if now.chars().all(number) => now.to_owned(),
            // Text where a number belongs is told with its place.
            _ => quoted(now),
        };
        let changed = edited(&text, key, &value);
        let unclear =
            || Refusal::request(&format!("`{label}` finds no place in this text: write {key} into it"));
        text = changed.ok_or_else(unclear)?;
    }
    Ok(text)
}

/// A main value as a person writes it: what the text says, or else the default.
fn value(text: &str, key: &str, defaults: &Defaults) -> String {
    let written = written(text, key).map(ToOwned::to_owned).or_else(|| defaults.get(key).cloned());
    let written = written.unwrap_or_default();
    written.trim_matches(|letter| letter == '"' || letter == '\'').to_owned()
}

type Defaults = std::collections::BTreeMap<String, String>;

async fn page(visit: &Visit, text: &str, shown: Shown, fresh: bool) -> Result<Outcome, Refusal> {
    let bases = reply_of!(visit.ask(Request::Bases).await?, Reply::Bases(bases) => bases);
    let runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    let mut text = text.to_owned();
    // What is shipped names a base that may not be here.
    if let Some(base) = bases.first().filter(|_| fresh)
        && !bases.iter().any(|base| written(&text, "base") == Some(&quoted(&base.name)))
    {
        text = edited(&text, "base", &quoted(&base.name)).unwrap_or(text);
    }
    let wrong = !shown.faults.is_empty() || shown.refusal.is_some();
    let body = html! {
        p.trail { a href="/runs" { "Runs" } }
        h1 { "New run" }
        (faults(&text, &shown))
        @if bases.is_empty() {
            p.note { "There is no base yet: " code { "moat base import DIR" } " takes one in, at the machine's command line." }
        }
        form.row.from method="post" action="/runs/new" {
            (token(visit.token()))
            label for="from" { "Start from" }
            select #from name="from" {
                @for (name, _) in SHIPPED { option value=(name) { (name) ".toml" } }
                @for run in runs.iter().rev().take(EARLIER) { option value={ (OF_RUN) (run.name) } { "the recipe of " (run.name) } }
            }
            button.plain { "Take it" }
        }
        form.stack.wide method="post" action="/runs/start" {
            (token(visit.token()))
            (fields(&text, &bases))
            label for="recipe" { "Recipe" }
            textarea #recipe name="recipe" rows="24" required spellcheck="false" autocapitalize="off" { (text) }
            p.soft { "TOML. What it leaves out has its default; a value that is changed above is written into it. With a table " code { "[sweep]" }
                " it is run at several values. A preview builds the dataset, and takes as long." }
            div.row {
                button { "Start" }
                button.plain formaction="/runs/check" { "Check" }
                button.plain formaction="/runs/preview" { "Preview" }
            }
        }
        @if let Some((recipe, sweep)) = &shown.checked { (sound(recipe, sweep.as_ref(), wrong)) }
        @if let Some(preview) = &shown.preview { (previewed(preview)) }
    };
    let status = if wrong { 422 } else { 200 };
    Ok(Outcome::Page(Page { status, title: "New run".to_owned(), place: "/runs", body, retry: None }))
}

fn fields(text: &str, bases: &[Base]) -> Markup {
    let defaults = recipe_values(&Recipe::default());
    let select = |key: &str, now: &str, options: Vec<&str>| {
        html! {
            select id={ "set-" (key) } name={ "set:" (key) } {
                @if !options.contains(&now) { option value=(now) selected { (now) } }
                @for option in options { option value=(option) selected[option == now] { (option) } }
            }
        }
    };
    html! {
        fieldset {
            legend { "Main values" }
            div.fields {
                @for (key, label, sort) in MAIN {
                    @let now = value(text, key, &defaults);
                    div {
                        label for={ "set-" (key) } { (label) }
                        input type="hidden" name={ "was:" (key) } value=(now);
                        @match sort {
                            Sort::Base => (select(key, &now, bases.iter().map(|base| base.name.as_str()).collect())),
                            Sort::Words(words) => (select(key, &now, words.to_vec())),
                            Sort::Number => input id={ "set-" (key) } name={ "set:" (key) } value=(now) inputmode="decimal" autocomplete="off" spellcheck="false";,
                            Sort::Text => input id={ "set-" (key) } name={ "set:" (key) } value=(now) autocomplete="off" spellcheck="false";,
                        }
                    }
                }
            }
        }
    }
}

/// Every fault with its place and the line that it stands in.
fn faults(text: &str, shown: &Shown) -> Markup {
    let lines: Vec<&str> = text.split('\n').collect();
    let heads = [numbers("Line"), numbers("Column"), words("Key"), words("Fault"), words("There")];
    html! {
        @if let Some(refusal) = &shown.refusal { p.note.bad role="alert" { "This cannot be run: " (refusal) "." } }
        @if !shown.faults.is_empty() {
            section role="alert" aria-labelledby="faults" {
                h2 #faults { (chip_of(shown.faults.len())) }
                (table("Faults", &heads, html! {
                    @for fault in &shown.faults {
                        tr {
                            td.n { (fault.line) }
                            td.n { (fault.column) }
                            td { code { (fault.key) } }
                            td { (fault.message) }
                            td { code { (lines.get(fault.line.saturating_sub(1)).copied().unwrap_or_default()) } }
                        }
                    }
                }))
            }
        }
    }
}

fn chip_of(faults: usize) -> Markup {
    crate::draw::parts::chip(
        "bad",
        &format!("{faults} {} of the recipe", if faults == 1 { "fault" } else { "faults" }),
    )
}

/// What a sound recipe asks for.
fn sound(recipe: &Recipe, sweep: Option<&Sweep>, wrong: bool) -> Markup {
    let recipes = sweep.and_then(|sweep| sweep.recipes().ok()).unwrap_or_default();
    html! {
        @match sweep {
            None => @if !wrong { p.note role="status" { "The recipe is sound: one run on " strong { (recipe.base) } "." } },
            Some(sweep) => {
                section aria-labelledby="points" {
                    h2 #points { "A sweep of " (recipes.len()) " runs on " (recipe.base) }
                    @if recipe.split.validation == 0.0 {
                        p.note.bad { "It has no validation side to choose by: set " code { "split.validation" } " above 0." }
                    }
                    (titled("Points of the sweep", &sweep.values.iter().map(|swept| (swept.key.as_str(), true)).collect::<Vec<_>>(), html! {
                        @for recipe in &recipes {
                            @let values = recipe_values(recipe);
                            tr { @for swept in &sweep.values { td.n { (values.get(&swept.key).map_or("", String::as_str)) } } }
                        }
                    }))
                }
            }
        }
    }
}

fn previewed(found: &RunPreview) -> Markup {
    let preview = &found.preview;
    let course =
        Course { survey: Some(preview.survey), memory: Some(preview.memory.clone()), ..Course::default() };
    html! {
        section aria-labelledby="preview" {
            h2 #preview { "Preview" }
            div.columns {
                section.panel aria-labelledby="preview-data" {
                    h2 #preview-data { "Dataset" }
                    dl.facts {
                        (fact("Dataset", html! { a href=(path(&["datasets", &found.dataset.to_string()])) { (hash(&found.dataset)) } }))
                        (fact("Trained on", html! { (count(found.sides.train.records)) " records, " (short(found.sides.train.tokens)) " tokens" }))
                        (fact("To choose by", html! { (count(found.sides.validation.records)) " records, " (short(found.sides.validation.tokens)) " tokens" }))
                        (fact("Held back", html! { (count(found.sides.held_out.records)) " records" }))
                        (fact("Steps", count(preview.survey.steps)))
                        (fact("Memory", html! {
                            (bytes(preview.memory.total()))
                            @if preview.memory.available > 0 { " of " (bytes(preview.memory.available)) " at most" }
                            @if !preview.memory.fits() { strong { ", which does not fit" } }
                        }))
                    }
                }
            }
            (plan(&course))
            (proofs(&preview.proofs))
            @if preview.example.is_empty() {
                p.soft { "An example of the data is shown to those who may read texts." }
            } @else {
                section aria-labelledby="example" {
                    h2 #example { "Record " (hash(&preview.record.0)) ", as it is trained on " span.soft { "what is learnt is marked" } }
                    pre.example { @for stretch in &preview.example { @if stretch.trained { mark { (stretch.text) } } @else { (stretch.text) } } }
                    @if preview.left > 0 { p.soft { "and " (count(preview.left)) " more tokens" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{MAIN, text, value};
    use crate::form::Form;
    use moat_contracts::Recipe;
    use moat_settings::{SHIPPED, parse_either, recipe_values};

    #[test]
    fn what_was_changed_beside_the_text_is_written_into_it_and_nothing_else_is() {
        let sent =
            |recipe: &str, fields: &str| text(&Form::parse(format!("recipe={recipe}&{fields}").as_bytes()));
        let own = "name = \"own\"%0D%0A[lora]%0D%0Arank = 8 # small%0D%0A";
        let same = "set:lora.rank=16&was:lora.rank=16&set:name=&was:name=own";
        assert_eq!(sent(own, same).unwrap(), "name = \"own\"\n[lora]\nrank = 8 # small\n");
        let other = "set:lora.rank=32&was:lora.rank=8&set:base=tiny&was:base=moat-starter&set:train.epochs=2e0&was:train.epochs=1.0";
        let (recipe, _) = parse_either(&sent(own, other).unwrap()).unwrap();
        assert_eq!((recipe.lora.rank, recipe.base.as_str(), recipe.train.epochs), (32, "tiny", 2.0));
        // What is no number is told as a fault of the text, and cannot write other keys.
        let odd = sent(own, "set:lora.rank=1%0Aseed = 9&was:lora.rank=8").unwrap();
        let faults = parse_either(&odd).unwrap_err();
        assert_eq!((faults.0.len(), faults.0[0].key.as_str()), (1, "lora.rank"), "{faults}");
        assert!(text(&Form::default()).is_err());
    }

    #[test]
    fn every_main_value_is_a_key_with_a_default() {
        let defaults = recipe_values(&Recipe::default());
        for (key, _, _) in MAIN {
            assert!(defaults.contains_key(key), "{key}");
            for (_, shipped) in SHIPPED {
                assert!(!value(shipped, key, &defaults).contains('"'));
            }
        }
    }
}
