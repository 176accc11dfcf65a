//! A try-out: what changed curation rules would keep and drop.

use maud::{Markup, html};
use moat_contracts::{Kind, Quality};
use moat_protocol::control::{Change, Reply, Request, Tryout};
use serde_json::json;

use super::data::because;
use crate::Refusal;
use crate::draw::parts::{count, fact, hash, numbers, table, words};
use crate::draw::token;
use crate::form::path;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Records of one try-out, unless said otherwise, and at most from a browser.
const SOME: u64 = 2000;
const MOST: u64 = 50_000;

/// What is to be tried, as it was typed.
#[derive(Default)]
struct Asked {
    kind: String,
    rule: String,
    value: String,
    more: String,
    most: u64,
    seed: u64,
}

/// The page without a try-out.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let asked = Asked { most: SOME, seed: 1, ..Asked::default() };
    Ok(draw(&visit, &asked, None))
}

/// Tries changed rules.
pub(crate) async fn attempt(visit: Visit) -> Result<Outcome, Refusal> {
    let text = |name: &str| visit.form.word(name).unwrap_or_default().to_owned();
    let number = |name: &str, other: u64| match visit.form.word(name) {
        None => Ok(other),
        Some(text) => {
            text.parse::<u64>().map_err(|_| Refusal::request(&format!("{name} is no whole number")))
        }
    };
    let asked = Asked {
        kind: text("kind"),
        rule: text("rule"),
        value: text("value"),
        more: text("more").replace("\r\n", "\n"),
        most: number("most", SOME)?.clamp(1, MOST),
        seed: number("seed", 1)?,
    };
    let mut changes = if asked.more.is_empty() {
        json!({})
    } else {
        moat_settings::parse_curation(&asked.more).map_err(|faults| Refusal::request(&faults.to_string()))?
    };
    if !asked.value.is_empty() {
        let whole = Kind::from_word(&asked.kind)
            .filter(|_| Quality::default().entries().iter().any(|(key, _)| *key == asked.rule));
        let kind = whole.ok_or_else(|| Refusal::request("choose a kind of text and one of its rules"))?;
        let value: serde_json::Number =
            asked.value.parse().map_err(|_| Refusal::request("the rule's new value is no number"))?;
        changes["quality"][kind.word()][&asked.rule] = value.into();
    } else if asked.more.is_empty() {
        return Err(Refusal::request("there is nothing to try: give a rule another value"));
    }
    let request = Request::Tryout { changes, most: asked.most, seed: asked.seed };
    let tried = reply_of!(visit.ask(request).await?, Reply::Tryout(tried) => tried);
    Ok(draw(&visit, &asked, Some(&tried)))
}

fn draw(visit: &Visit, asked: &Asked, tried: Option<&Tryout>) -> Outcome {
    let body = html! {
        p.trail { a href="/data" { "Data" } }
        h1 { "Try other rules" }
        (form(visit, asked))
        @match tried {
            Some(tried) => (told(tried)),
            None => p.empty { "Shows which records other rules would keep and drop. Nothing is stored, and the rules in force stay." },
        }
    };
    Page::of("/data", "Try other rules", body)
}

fn form(visit: &Visit, asked: &Asked) -> Markup {
    html! {
        form.stack.wide method="post" action="/rules" {
            (token(visit.token()))
            div.fields {
                div { label for="kind" { "Kind of text" } select #kind name="kind" { @for kind in Kind::ALL { option value=(kind.word()) selected[kind.word() == asked.kind] { (kind.word()) } } } }
                div { label for="rule" { "Rule" } select #rule name="rule" { @for (key, _) in Quality::default().entries() { option value=(key) selected[key == asked.rule] { (key) } } } }
                div { label for="value" { "New value" } input #value name="value" value=(asked.value) inputmode="decimal" placeholder="0 turns it off" autocomplete="off"; }
                div { label for="most" { "Records at most" } input #most name="most" value=(asked.most) inputmode="numeric"; }
                div { label for="seed" { "Seed" } input #seed name="seed" value=(asked.seed) inputmode="numeric"; }
            }
            details open[!asked.more.is_empty()] {
                summary { "Several changes at once" }
                label for="more" { "As they would stand in moat.toml" }
                textarea #more name="more" rows="6" spellcheck="false" placeholder="[curation.quality.prose]\nmin_words = 10\n\n[curation.detect.labels]\nPHONE = \"drop\"" { (asked.more) }
            }
            button { "Try" }
        }
    }
}

fn told(tried: &Tryout) -> Markup {
    let drawn = tried.judged + tried.left_out < tried.of;
    html! {
        section.panel aria-labelledby="tried" {
            h2 #tried { "What it would change" }
            dl.facts {
                (fact("Judged", html! { (count(tried.judged)) " of " (count(tried.of)) " records" @if drawn { ", drawn with seed " (tried.seed) } }))
                @if tried.left_out > 0 { (fact("Left out", html! { (count(tried.left_out)) span.soft { " for which another record stands, or a person decided" } })) }
                (fact("Stay kept", html! { (count(tried.kept)) @if tried.other_redactions > 0 { span.soft { ", in " (count(tried.other_redactions)) " other spans are replaced" } } }))
                (fact("Stay dropped", count(tried.dropped)))
                (fact("Would be dropped", html! { strong { (count(tried.lost.records)) } span.soft { ", " (count(tried.lost.words)) " words" } }))
                (fact("Would be kept", html! { strong { (count(tried.gained.records)) } span.soft { ", " (count(tried.gained.words)) " words" } }))
                (fact("Rules", html! { (hash(&tried.in_force)) " in force, " (hash(&tried.tried)) " tried" }))
            }
        }
        (changed("lost", "Kept now, would be dropped", &tried.lost))
        (changed("gained", "Dropped now, would be kept", &tried.gained))
    }
}

fn changed(id: &str, title: &'static str, change: &Change) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            @if change.records == 0 { p.empty { "None." } } @else {
                (table(title, &[words("Rule"), numbers("Records")], html! {
                    @for (rule, number) in &change.rules { tr { th scope="row" { code { (rule) } } td.n { (count(*number)) } } }
                }))
                ul.hits { @for one in &change.examples { li.panel {
                    div.head {
                        h3 { a href=(path(&["records", &one.record.to_string()])) { span.soft { (one.source) " / " } (one.path) } }
                        p { @for reason in &one.reasons { span { (because(reason)) } " " } }
                    }
                    p.answer { (one.beginning) }
                } } }
            }
        }
    }
}
