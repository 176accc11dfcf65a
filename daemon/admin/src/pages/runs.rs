//! Runs: all of them, one of them as it goes on, and what starts, stops and resumes one.

use maud::{Markup, html};
use moat_contracts::{Progress, Proof};
use moat_protocol::control::{Base, Course, Reply, Request, Run, RunState, StepPoint, Update};
use moat_rights::Act;

use super::models::edges;
use super::overview::{edge, tone};
use crate::Refusal;
use crate::draw::curve::{Curve, curve, figure};
use crate::draw::parts::{bytes, chip, count, duration, fact, hash, numbers, short, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Rows of the table of steps.
const STEPS: usize = 50;

/// All runs.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    let body = html! {
        div.head {
            h1 { "Runs" }
            @if visit.may(Act::RunStart) { a.button href="/runs/new" { "New run" } }
        }
        @if runs.is_empty() {
            p.empty { "No run yet. A run executes a recipe: it builds the dataset, trains, and measures the edge." }
        } @else {
            (table("Runs", &[words("Run"), words("State"), words("Base"), words("Asked for"), numbers("Steps"), numbers("Loss"), numbers("Edge")], html! {
                @for run in runs.iter().rev() { (row(run)) }
            }))
        }
    };
    Ok(Page::of("/runs", "Runs", body))
}

fn row(run: &Run) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(path(&["runs", &run.name])) { (run.name) } }
            td { (chip(tone(run.state.word()), run.state.word())) }
            td { (run.recipe.base) }
            td { (time(run.created)) }
            td.n { (count(run.steps)) }
            td.n { @if let Some(outcome) = &run.outcome { (figure(outcome.last_loss)) } @else { span.soft { "–" } } }
            td.n { @if let Some(report) = &run.edge { (edge(report.all.edge.as_ref())) } @else { span.soft { "–" } } }
        }
    }
}

fn is_active(state: RunState) -> bool {
    !matches!(state, RunState::Done | RunState::Stopped | RunState::Failed)
}

async fn one(visit: &Visit) -> Result<Run, Refusal> {
    let name = visit.segments[0].clone();
    Ok(*reply_of!(visit.ask(Request::Run { name }).await?, Reply::Run(run) => run))
}

/// One run.
pub(crate) async fn run(visit: Visit) -> Result<Outcome, Refusal> {
    let run = one(&visit).await?;
    let title = format!("Run {}", run.name);
    let active = is_active(run.state);
    let at = path(&["runs", &run.name]);
    let body = html! {
        p.trail { a href="/runs" { "Runs" } }
        div.head {
            h1 { (run.name) }
            @if active && visit.may(Act::RunStop) {
                form method="post" action={ (at) "/stop" } { (token(visit.token())) button.plain { "Stop at a checkpoint" } }
            }
            @if !active && run.state != RunState::Done && visit.may(Act::RunStart) {
                form method="post" action={ (at) "/resume" } { (token(visit.token())) button.plain { "Resume" } }
            }
        }
        @if let Some(message) = &run.message { p.note.bad { (message) } }
        @if active { div data-live={ "/live" (at) } { (course(&Told::of(&run))) } } @else { (course(&Told::of(&run))) }
        @if let Some(report) = &run.edge {
            section aria-labelledby="edge" { h2 #edge { "Edge" } (edges(report)) }
        }
        (proofs(&run.course.proofs))
        (facts(&run))
        (plan(&run.course))
        (steps(&run.course.steps))
    };
    Ok(Page::of("/runs", title, body))
}

/// What is known of a run while it is watched.
struct Told {
    state: RunState,
    planned: Option<u64>,
    points: Vec<StepPoint>,
    validations: Vec<(u64, f64)>,
    doing: String,
    examined: Option<(u64, u64)>,
}

impl Told {
    fn of(run: &Run) -> Self {
        Self {
            state: run.state,
            planned: run.planned.or((run.recipe.train.max_steps > 0).then_some(run.recipe.train.max_steps)),
            points: run.course.steps.clone(),
            validations: run.course.validations.iter().map(|point| (point.step, point.loss)).collect(),
            doing: String::new(),
            examined: None,
        }
    }

    fn hear(&mut self, update: Update) {
        match update {
            Update::RunState { state, .. } => (self.state, self.doing) = (state, String::new()),
            Update::Building { records, of } => {
                self.doing = format!("{} of {} records", count(records), count(of))
            }
            Update::Run { progress, .. } => self.progress(progress),
            Update::Curating { .. } => {}
        }
    }

    fn progress(&mut self, progress: Progress) {
        match progress {
            Progress::Preparing { doing } => self.doing = doing,
            Progress::Training { steps, .. } => (self.planned, self.doing) = (Some(steps), String::new()),
            Progress::Step {
                step,
                steps,
                loss,
                gradient_norm,
                learning_rate,
                tokens,
                tokens_per_second,
                memory,
                seconds_left,
                ..
            } => {
                self.planned = Some(steps);
                self.doing.clear();
                // After a restart steps since the last checkpoint are done again.
                self.points.retain(|point| point.step < step);
                self.points.push(StepPoint {
                    step,
                    loss,
                    gradient_norm,
                    learning_rate,
                    tokens,
                    tokens_per_second,
                    memory,
                    seconds_left,
                });
            }
            Progress::Validated { step, loss, .. } => {
                self.validations.retain(|(known, _)| *known < step);
                self.validations.push((step, loss));
            }
            Progress::Examined { done, of, .. } => self.examined = Some((done, of)),
            _ => {}
        }
    }
}

/// How a run goes on: state, progress, curves.
fn course(told: &Told) -> Markup {
    let last = told.points.last();
    let series = |value: fn(&StepPoint) -> f64| -> Vec<_> {
        told.points.iter().map(|point| (point.step, value(point))).collect()
    };
    let loss = series(|point| point.loss);
    let norm = series(|point| point.gradient_norm);
    let rate = series(|point| point.learning_rate);
    // Steps of earlier releases know neither.
    let known = |value| series(value).into_iter().filter(|(_, value)| *value > 0.0).collect::<Vec<_>>();
    let speed = known(|point| point.tokens_per_second);
    let memory = known(|point| point.memory as f64 / f64::from(1 << 20));
    let active = is_active(told.state);
    let until = told.planned.filter(|_| active);
    let draw = |title, unit, points: &[(u64, f64)], marks: &[(u64, f64)], smooth| {
        curve(&Curve { title, unit, points, marks, until, smooth })
    };
    html! {
        div.progress {
            (chip(tone(told.state.word()), told.state.word()))
            @if let Some(point) = last {
                span { "step " strong { (count(point.step)) } @if let Some(planned) = told.planned { " of " (count(planned)) } }
                @if point.tokens_per_second > 0.0 && active {
                    span { (short(point.tokens_per_second.round() as u64)) " tokens/s" }
                    @if told.state == RunState::Training && point.seconds_left > 0.0 {
                        span.soft { "about " (duration(point.seconds_left.round() as u64)) " left" }
                    }
                }
            }
            @if let Some((done, of)) = told.examined.filter(|_| told.state == RunState::Evaluating) {
                span { "examined " (count(done)) " of " (count(of)) " records" }
            }
            @if !told.doing.is_empty() { span.soft { (told.doing) } }
        }
        @if let (Some(point), Some(planned)) = (last, told.planned) {
            progress.steps max=(planned) value=(point.step) aria-label="Steps done" { (point.step) }
        }
        @if !told.points.is_empty() {
            div.curves {
                (draw("Loss", "nats a token", &loss, &told.validations, true))
                (draw("Gradient norm", "before clipping", &norm, &[], true))
                (draw("Learning rate", "", &rate, &[], false))
                @if speed.len() > 1 { (draw("Speed", "tokens a second", &speed, &[], true)) }
                @if memory.len() > 1 { (draw("Memory", "MiB at most so far", &memory, &[], false)) }
            }
        }
    }
}

fn facts(run: &Run) -> Markup {
    html! {
        div.columns {
            section.panel aria-labelledby="made-of" {
                h2 #made-of { "What made it" }
                dl.facts {
                    (fact("Recipe", html! { (run.recipe.name) " " (hash(&run.recipe_hash)) }))
                    (fact("Base", html! { (run.recipe.base) @if let Some(base) = &run.base { " " (hash(base)) } }))
                    (fact("Dataset", html! {
                        @match &run.dataset {
                            Some(id) => a href=(path(&["datasets", &id.to_string()])) { (hash(id)) },
                            None => span.soft { "not built yet" },
                        }
                    }))
                    (fact("Asked for", time(run.created)))
                    @if let Some(outcome) = &run.outcome {
                        (fact("Trained", html! { (count(outcome.steps)) " steps, " (short(outcome.tokens)) " tokens" }))
                        (fact("Loss", html! { (figure(outcome.first_loss)) " → " (figure(outcome.last_loss)) " nats a token" }))
                        (fact("Weights", hash(&outcome.weights)))
                        (fact("Peak memory", bytes(outcome.peak_memory)))
                    }
                }
            }
            section.panel aria-labelledby="recipe" {
                h2 #recipe { "Recipe" }
                dl.facts {
                    @let recipe = &run.recipe;
                    (fact("Seed", recipe.seed))
                    (fact("Sources", if recipe.selection.sources.is_empty() { "all".to_owned() } else { recipe.selection.sources.join(", ") }))
                    (fact("Held back", html! { (format!("{:.1}", recipe.split.held_out * 100.0)) "\u{202f}%" }))
                    (fact("Sequence", html! { (count(recipe.train.sequence_length as u64)) " tokens" }))
                    (fact("Epochs", recipe.train.epochs))
                    (fact("LoRA rank", recipe.lora.rank))
                    (fact("Learning rate", figure(recipe.optimizer.learning_rate)))
                }
            }
        }
    }
}

/// What the run showed of itself before it trained, and of its weights at the end.
fn proofs(proofs: &[Proof]) -> Markup {
    let columns = [words("Claim"), words("Compared"), numbers("Found"), numbers("At most"), words("Holds")];
    html! {
        @if !proofs.is_empty() {
            section aria-labelledby="proofs" {
                h2 #proofs { "Proofs" }
                (table("Proofs", &columns, html! {
                    @for proof in proofs {
                        tr {
                            th scope="row" { (proof.claim.sentence()) }
                            td { (proof.compared) @if !proof.held { br; (proof.remedy) } }
                            td.n { (figure(proof.figure)) }
                            td.n { (figure(proof.bound)) }
                            td { @if proof.held { (chip("good", "held")) } @else { (chip("bad", "failed")) } }
                        }
                    }
                }))
            }
        }
    }
}

/// What the training side comes to, and what the run was planned to take of memory.
fn plan(course: &Course) -> Markup {
    html! {
        @if course.survey.is_some() || course.memory.is_some() { div.columns {
            @if let Some(survey) = &course.survey {
                section.panel aria-labelledby="survey" {
                    h2 #survey { "Training side" }
                    dl.facts {
                        (fact("Examples", html! { (count(survey.examples)) @if survey.chats > 0 { ", " (count(survey.chats)) " of them chats" } }))
                        (fact("Tokens", html! { (short(survey.tokens)) ", " (format!("{:.1}", 100.0 * survey.trained_share())) "\u{202f}% of them learnt" }))
                        (fact("Tokens of one", html! { (count(survey.shortest)) " to " (count(survey.longest)) ", median " (count(survey.median)) }))
                        (fact("Cut", html! { (count(survey.cut)) " examples are longer than a row" }))
                        (fact("Rows", html! { (count(survey.rows)) " a pass" }))
                    }
                }
            }
            @if let Some(memory) = &course.memory {
                section.panel aria-labelledby="memory" {
                    h2 #memory { "Memory as planned" }
                    dl.facts {
                        @for part in memory.parts.iter().filter(|part| part.bytes > 0) { (fact(part.used.word(), bytes(part.bytes))) }
                        (fact("in all", html! { (bytes(memory.total())) @if memory.recompute { ", with recomputation" } }))
                    }
                }
            }
        } }
    }
}

fn steps(points: &[StepPoint]) -> Markup {
    let every = points.len().div_ceil(STEPS).max(1);
    let shown = points.iter().enumerate().filter(|(at, _)| (at + 1) % every == 0 || at + 1 == points.len());
    html! {
        @if !points.is_empty() {
            details {
                summary { "Steps" @if every > 1 { span.soft { " one in " (every) } } }
                (table("Steps", &[numbers("Step"), numbers("Loss"), numbers("Gradient norm"), numbers("Learning rate"), numbers("Tokens")], html! {
                    @for (_, point) in shown {
                        tr {
                            td.n { (count(point.step)) }
                            td.n { (figure(point.loss)) }
                            td.n { (figure(point.gradient_norm)) }
                            td.n { (figure(point.learning_rate)) }
                            td.n { (count(point.tokens)) }
                        }
                    }
                }))
            }
        }
    }
}

/// One run as it goes on.
pub(crate) async fn live(visit: Visit) -> Result<Outcome, Refusal> {
    let run = one(&visit).await?;
    let request = Request::RunWatch { name: run.name.clone() };
    Ok(live::watch(visit, Needs::Act(Act::StatusRead), request, Told::of(&run), Told::hear, course))
}

/// The form of a new run.
pub(crate) async fn new(visit: Visit) -> Result<Outcome, Refusal> {
    let bases = reply_of!(visit.ask(Request::Bases).await?, Reply::Bases(bases) => bases);
    Ok(recipe_page(&visit, &bases, RECIPE, None))
}

/// What a recipe begins as; what it does not say is as the shipped recipes explain it.
const RECIPE: &str = "name = \"first\"\nbase = \"\"\nseed = 1\n\n[selection]\nsources = []\n\n[split]\nheld_out = 0.1\n\n[train]\nmethod = \"lora\"\nepochs = 1.0\nsequence_length = 512\n\n[lora]\nrank = 8\nalpha = 16.0\n\n[optimizer]\nlearning_rate = 2e-4\n";

fn recipe_page(visit: &Visit, bases: &[Base], text: &str, faults: Option<Vec<String>>) -> Outcome {
    let status = if faults.is_some() { 422 } else { 200 };
    let text = match bases.first() {
        Some(base) if text.contains("base = \"\"") => {
            text.replace("base = \"\"", &format!("base = \"{}\"", base.name))
        }
        _ => text.to_owned(),
    };
    let body = html! {
        p.trail { a href="/runs" { "Runs" } }
        h1 { "New run" }
        @if let Some(faults) = &faults {
            div.note.bad role="alert" { p { "The recipe cannot be run:" } ul { @for fault in faults { li { (fault) } } } }
        }
        @if bases.is_empty() {
            p.note { "There is no base yet: " code { "moat base import DIR" } " takes one in, at the machine's command line." }
        }
        div.columns {
            form.stack.wide method="post" action="/runs/start" {
                (token(visit.token()))
                label for="recipe" { "Recipe" }
                textarea #recipe name="recipe" rows="24" required spellcheck="false" autocapitalize="off" { (text) }
                p.soft { "TOML. What it leaves out has its default; the run proves itself before it spends time." }
                button { "Start" }
            }
            section.panel aria-labelledby="bases" {
                h2 #bases { "Bases" }
                (table("Bases", &[words("Name"), words("Family"), numbers("Parameters"), numbers("Size")], html! {
                    @for base in bases {
                        tr {
                            th scope="row" { (base.name) }
                            td { (base.family) @if base.chat { span.soft { ", chats" } } }
                            td.n { (short(base.parameters)) }
                            td.n { (bytes(base.bytes)) }
                        }
                    }
                }))
            }
        }
    };
    Outcome::Page(Page { status, title: "New run".to_owned(), place: "/runs", body, retry: None })
}

/// Puts a run into the queue.
pub(crate) async fn start(visit: Visit) -> Result<Outcome, Refusal> {
    let text = visit.form.get("recipe").unwrap_or_default().replace("\r\n", "\n");
    let recipe = match moat_settings::parse_recipe(&text) {
        Ok(recipe) => recipe,
        Err(faults) => {
            let bases = reply_of!(visit.ask(Request::Bases).await?, Reply::Bases(bases) => bases);
            let lines = faults.to_string().lines().map(ToOwned::to_owned).collect();
            return Ok(recipe_page(&visit, &bases, &text, Some(lines)));
        }
    };
    let request = Request::RunStart { recipe: Box::new(recipe) };
    let run = reply_of!(visit.ask(request).await?, Reply::Run(run) => run);
    let to = path(&["runs", &run.name]);
    Ok(visit.done(to, format!("Run {} is in the queue.", run.name)))
}

/// Asks a run to stop.
pub(crate) async fn stop(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    let note = match visit.begin(Request::RunStop { name: name.clone() }).await? {
        Some(_) => "The run has stopped; it can be resumed.",
        None => "The run stops at its next checkpoint.",
    };
    Ok(visit.done(path(&["runs", &name]), note.to_owned()))
}

/// Puts a stopped run into the queue again.
pub(crate) async fn resume(visit: Visit) -> Result<Outcome, Refusal> {
    let name = visit.segments[0].clone();
    visit.ask(Request::RunResume { name: name.clone() }).await?;
    Ok(visit.done(path(&["runs", &name]), "The run is in the queue again.".to_owned()))
}
