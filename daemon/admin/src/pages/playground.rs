//! The playground: one prompt, the base and the tuned model side by side.

use maud::{Markup, html};
use moat_contracts::{Completion, Sampling};
use moat_protocol::control::{Reply, Request, Run};

use crate::Refusal;
use crate::draw::parts::count;
use crate::draw::token;
use crate::site::{Outcome, Page, Visit, reply_of};

/// The page without a prompt.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let models = models(&visit).await?;
    Ok(draw(&visit, &models, &Asked::default(), None))
}

async fn models(visit: &Visit) -> Result<Vec<Run>, Refusal> {
    let mut runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    runs.retain(|run| run.outcome.is_some());
    runs.reverse();
    Ok(runs)
}

/// What was asked.
struct Asked {
    run: String,
    prompt: String,
    chat: bool,
    sampling: Sampling,
}

impl Default for Asked {
    fn default() -> Self {
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 64 };
        Self { run: String::new(), prompt: String::new(), chat: false, sampling }
    }
}

/// Completes a prompt. It comes by a form, so that no prompt stands in an address.
pub(crate) async fn ask(visit: Visit) -> Result<Outcome, Refusal> {
    let number = |name: &str, other: f64| match visit.form.word(name) {
        None => Ok(other),
        Some(text) => text.parse().map_err(|_| Refusal::request(&format!("{name} is no number"))),
    };
    let sampling = Sampling {
        temperature: number("temperature", 0.0)?.clamp(0.0, 10.0),
        top_p: number("top_p", 1.0)?.clamp(0.01, 1.0),
        seed: number("seed", 1.0)?.max(0.0) as u64,
        max_tokens: number("max_tokens", 64.0)?.clamp(1.0, 2048.0) as usize,
    };
    let asked = Asked {
        run: visit.form.word("run").unwrap_or_default().to_owned(),
        prompt: visit.form.get("prompt").unwrap_or_default().replace("\r\n", "\n"),
        chat: visit.form.get("chat").is_some(),
        sampling,
    };
    if asked.prompt.is_empty() {
        return Err(Refusal::request("there is no prompt"));
    }
    let models = models(&visit).await?;
    let request = Request::Ask {
        run: Some(asked.run.clone()).filter(|run| !run.is_empty()),
        prompt: asked.prompt.clone(),
        chat: asked.chat,
        sampling,
    };
    let answers = reply_of!(visit.ask(request).await?, Reply::Answer(answers) => answers);
    Ok(draw(&visit, &models, &asked, Some(&answers)))
}

fn draw(visit: &Visit, models: &[Run], asked: &Asked, answers: Option<&[Completion]>) -> Outcome {
    let body = html! {
        h1 { "Playground" }
        @if models.is_empty() {
            p.empty { "No model yet: the playground compares a tuned model with its base." }
        } @else {
            (form(visit, models, asked))
            @if let Some(answers) = answers {
                div.columns aria-live="polite" { @for answer in answers { (one(answer, &asked.prompt)) } }
            }
        }
    };
    Page::of("/playground", "Playground", body)
}

fn form(visit: &Visit, models: &[Run], asked: &Asked) -> Markup {
    let Sampling { temperature, top_p, seed, max_tokens } = asked.sampling;
    html! {
        form.stack.wide method="post" action="/playground" {
            (token(visit.token()))
            label for="prompt" { "Prompt" }
            textarea #prompt name="prompt" rows="5" required { (asked.prompt) }
            div.fields {
                div { label for="run" { "Model" }
                    select #run name="run" { @for run in models { option value=(run.name) selected[run.name == asked.run] { (run.name) " on " (run.recipe.base) } } } }
                div { label for="temperature" { "Temperature" } input #temperature name="temperature" inputmode="decimal" value=(temperature); }
                div { label for="top_p" { "Top p" } input #top_p name="top_p" inputmode="decimal" value=(top_p); }
                div { label for="max_tokens" { "New tokens" } input #max_tokens name="max_tokens" inputmode="numeric" value=(max_tokens); }
                div { label for="seed" { "Seed" } input #seed name="seed" inputmode="numeric" value=(seed); }
            }
            label.check { input type="checkbox" name="chat" value="yes" checked[asked.chat]; " through the chat template" }
            button { "Ask both" }
        }
    }
}

fn one(answer: &Completion, prompt: &str) -> Markup {
    let title = match answer.model.as_str() {
        "base" => "Base",
        "tuned" => "Tuned",
        other => other,
    };
    html! {
        section.panel aria-label=(title) {
            h2 { (title) }
            p.answer { span.soft { (prompt) } (answer.text) }
            p.soft { (count(answer.tokens.len() as u64)) " tokens, " (format!("{:.1}", answer.tokens_per_second)) " tokens/s, "
                @if answer.stopped { "ended by itself" } @else { "cut at the limit" } }
        }
    }
}
