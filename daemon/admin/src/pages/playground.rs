//! The playground: one prompt, the base and the tuned model side by side, as the tokens are made, and what made them.

use std::time::Duration;

use maud::{Markup, html};
use moat_contracts::{Completion, Sampling};
use moat_protocol::control::{Reply, Request, Run, Update};
use moat_rights::Act;
use tokio::sync::mpsc;

use crate::Refusal;
use crate::draw::parts::{chip, count, fact, hash};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

/// How often the answers are drawn while they are made, and how many drawings it takes until it is asked again whether
/// whoever watches may.
const OFTEN: Duration = Duration::from_millis(120);
const ASK_AGAIN: u32 = 10;

/// The page without a prompt.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let models = models(&visit).await?;
    Ok(draw(&visit, &models, &Asked::default(), None))
}

/// The page with a model chosen.
pub(crate) async fn with_model(visit: Visit) -> Result<Outcome, Refusal> {
    let models = models(&visit).await?;
    let run = visit.segments[0].clone();
    if !models.iter().any(|model| model.name == run) {
        return Err(Refusal::request("there is no such model"));
    }
    Ok(draw(&visit, &models, &Asked { run, ..Asked::default() }, None))
}

/// The page with a prompt that was taken from elsewhere, and not yet asked. It comes by a form, as every prompt.
pub(crate) async fn take(visit: Visit) -> Result<Outcome, Refusal> {
    let asked = Asked::of(&visit)?;
    let models = models(&visit).await?;
    Ok(draw(&visit, &models, &asked, None))
}

async fn models(visit: &Visit) -> Result<Vec<Run>, Refusal> {
    let mut runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    runs.retain(|run| run.outcome.is_some());
    runs.reverse();
    Ok(runs)
}

/// What was asked.
#[derive(Clone)]
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

impl Asked {
    /// What the form says.
    fn of(visit: &Visit) -> Result<Self, Refusal> {
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
        let asked = Self {
            run: visit.form.word("run").unwrap_or_default().to_owned(),
            prompt: visit.form.get("prompt").unwrap_or_default().replace("\r\n", "\n"),
            chat: visit.form.get("chat").is_some(),
            sampling,
        };
        if asked.prompt.is_empty() {
            return Err(Refusal::request("there is no prompt"));
        }
        Ok(asked)
    }

    fn request(&self) -> Request {
        Request::Ask {
            run: Some(self.run.clone()).filter(|run| !run.is_empty()),
            prompt: self.prompt.clone(),
            chat: self.chat,
            sampling: self.sampling,
        }
    }

    /// The model that answers.
    fn model<'a>(&self, models: &'a [Run]) -> Option<&'a Run> {
        models.iter().find(|run| run.name == self.run).or(models.first())
    }
}

/// Completes a prompt, as a whole page: for browsers without the script. It comes by a form, so that no prompt stands in an
/// address.
pub(crate) async fn ask(visit: Visit) -> Result<Outcome, Refusal> {
    let asked = Asked::of(&visit)?;
    let models = models(&visit).await?;
    let answers = reply_of!(visit.ask(asked.request()).await?, Reply::Answer(answers) => answers);
    let answers: Vec<_> = answers.into_iter().map(Answer::from).collect();
    Ok(draw(&visit, &models, &asked, Some(&answers)))
}

/// Completes a prompt, and sends the answers as they are made. Whoever hangs up ends them.
pub(crate) async fn stream(mut visit: Visit) -> Result<Outcome, Refusal> {
    let asked = Asked::of(&visit)?;
    let models = models(&visit).await?;
    let Some(here) = &visit.here else { return Err(Refusal::request("nobody is signed in")) };
    let (updates, mut heard) = mpsc::channel(256);
    let answer = visit.site.daemon.ask(visit.from, &here.session.person, asked.request(), Some(updates));
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        tokio::pin!(answer);
        let mut answers = vec![Answer::begun("base"), Answer::begun("tuned")];
        let (mut shown, mut drawn) = (String::new(), 0_u32);
        let mut ticks = tokio::time::interval(OFTEN);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let told = loop {
            tokio::select! {
                reply = &mut answer => break reply,
                Some(update) = heard.recv() => {
                    if let Update::Answering { model, text } = update
                        && let Some(answer) = answers.iter_mut().find(|answer| answer.model == model)
                    {
                        answer.text.push_str(&text);
                        answer.tokens += 1;
                    }
                }
                // The next piece is not heard any more, which ends the engine, and the act in the ledger.
                () = sender.closed() => {
                    heard.close();
                    drop(answer.await);
                    return;
                }
                _ = ticks.tick() => {
                    drawn += 1;
                    if drawn.is_multiple_of(ASK_AGAIN) && !visit.look_again(Needs::Act(Act::ModelAsk)) {
                        drop(sender.send(live::event("over", "")).await);
                        heard.close();
                        drop(answer.await);
                        return;
                    }
                    let now = part(&answers, &asked, &models).into_string();
                    // Where nobody listens any more, the next turn sees it.
                    if now != shown {
                        drop(sender.send(live::event("part", &now)).await);
                    }
                    shown = now;
                }
            }
        };
        let last = match told {
            Ok(Reply::Answer(completions)) => {
                let answers: Vec<_> = completions.into_iter().map(Answer::from).collect();
                part(&answers, &asked, &models)
            }
            Ok(_) => {
                html! { p.note.bad role="alert" { "The daemon answered something else than was asked." } }
            }
            Err(refusal) => {
                html! { p.note.bad role="alert" { "It was not answered: " (refusal.message) "." } }
            }
        };
        drop(sender.send(live::event("part", &last.into_string())).await);
        drop(sender.send(live::event("done", "")).await);
    });
    Ok(Outcome::Live(receiver))
}

/// One model's answer, as far as it is made.
struct Answer {
    model: String,
    text: String,
    tokens: u64,
    /// Tokens a second, and whether it ended by itself, once it is whole.
    whole: Option<(f64, bool)>,
}

impl Answer {
    fn begun(model: &str) -> Self {
        Self { model: model.to_owned(), text: String::new(), tokens: 0, whole: None }
    }
}

impl From<Completion> for Answer {
    fn from(answer: Completion) -> Self {
        Self {
            tokens: answer.tokens.len() as u64,
            model: answer.model,
            text: answer.text,
            whole: Some((answer.tokens_per_second, answer.stopped)),
        }
    }
}

fn draw(visit: &Visit, models: &[Run], asked: &Asked, answers: Option<&[Answer]>) -> Outcome {
    let body = html! {
        h1 { "Playground" }
        @if models.is_empty() {
            p.empty { "No model yet: the playground compares a tuned model with its base." }
        } @else {
            (form(visit, models, asked))
            div #answers aria-live="polite" {
                @if let Some(answers) = answers { (part(answers, asked, models)) }
                @else { p.empty { "Both answer the same prompt, drawn by the same seed. Prompts and answers are kept nowhere." } }
            }
        }
    };
    Page::of("/playground", "Playground", body)
}

fn form(visit: &Visit, models: &[Run], asked: &Asked) -> Markup {
    let Sampling { temperature, top_p, seed, max_tokens } = asked.sampling;
    html! {
        form.stack.wide method="post" action="/playground" data-stream="/playground/stream" data-into="answers" {
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
            div.row { button { "Ask both" } button.plain type="button" data-stop hidden { "Stop" } }
        }
    }
}

/// The answers, and what made them.
fn part(answers: &[Answer], asked: &Asked, models: &[Run]) -> Markup {
    html! {
        div.columns { @for answer in answers { (one(answer, asked)) } }
        @if let Some(run) = asked.model(models) { (made_by(run, asked)) }
    }
}

fn one(answer: &Answer, asked: &Asked) -> Markup {
    let title = match answer.model.as_str() {
        "base" => "Base",
        "tuned" => "Tuned",
        other => other,
    };
    html! {
        section.panel aria-label=(title) {
            h2 { (title) }
            p.answer { @if !asked.chat { span.soft { (asked.prompt) } } (answer.text) }
            @match answer.whole {
                Some((rate, stopped)) => p.soft { (count(answer.tokens)) " tokens, " (format!("{rate:.1}")) " tokens/s, "
                    @if stopped { "ended by itself" } @else { "cut at the limit" } },
                None if answer.text.is_empty() => p { (chip("quiet", "waits")) },
                None => p { (chip("live", "answering")) },
            }
        }
    }
}

fn made_by(run: &Run, asked: &Asked) -> Markup {
    let Sampling { temperature, top_p, seed, max_tokens } = asked.sampling;
    html! {
        section.panel aria-labelledby="made-by" {
            h2 #made-by { "What made them" }
            dl.facts {
                (fact("Run", html! { a href=(path(&["runs", &run.name])) { (run.name) } ", recipe " (run.recipe.name) " " (hash(&run.recipe_hash)) }))
                (fact("Base", html! { (run.recipe.base) @if let Some(base) = &run.base { " " (hash(base)) } }))
                @if let Some(id) = &run.dataset { (fact("Dataset", html! { a href=(path(&["datasets", &id.to_string()])) { (hash(id)) } })) }
                @if let Some(outcome) = &run.outcome { (fact("Weights", hash(&outcome.weights))) }
                (fact("Drawn by", html! {
                    @if temperature == 0.0 { "the likeliest token each time" } @else { "temperature " (temperature) ", top p " (top_p) ", seed " (seed) }
                    ", " (count(max_tokens as u64)) " new tokens at most"
                    @if asked.chat { ", through the chat template" }
                }))
            }
        }
    }
}
