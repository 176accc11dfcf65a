//! Runs: all of them, one of them as it goes on, and what starts, stops and resumes one.

use maud::{Markup, html};
use moat_contracts::{Progress, Proof};
use moat_protocol::control::{Course, JoinedSteps, Reply, Request, Run, RunState, StepPoint, Update};
use moat_rights::Act;

use super::models::edges;
use super::overview::{edge, tone};
use crate::Refusal;
use crate::draw::curve::{Curve, Dot, curve, figure};
use crate::draw::parts::{bytes, chip, count, duration, fact, hash, numbers, short, table, time, words};
use crate::draw::token;
use crate::form::path;
use crate::live;
use crate::routes::Needs;
use crate::site::{Outcome, Page, Visit, reply_of};

/// Rows of the table of steps.
const STEPS: usize = 50;

/// Points that a page which is watched long keeps at most.
const KEPT: usize = 2000;

/// All runs.
pub(crate) async fn show(visit: Visit) -> Result<Outcome, Refusal> {
    let runs = reply_of!(visit.ask(Request::Runs).await?, Reply::Runs(runs) => runs);
    let body = html! {
        div.head {
            h1 { "Runs" }
            div.row {
                a href="/sweeps" { "Sweeps" }
                @if visit.may(Act::RunStart) { a.button href="/runs/new" { "New run" } }
            }
        }
        @if runs.is_empty() {
            p.empty { "No run yet. A run executes a recipe: it builds the dataset, trains, and measures the edge." }
        } @else {
            @let compares = visit.may(Act::EdgeRead) && runs.len() > 1;
            @if compares {
                form method="post" action="/runs/compare" {
                    (token(visit.token()))
                    (list(&runs, true))
                    button.plain { "Compare those chosen" }
                }
            } @else { (list(&runs, false)) }
        }
    };
    Ok(Page::of("/runs", "Runs", body))
}

/// All runs, the newest first, each with a box to choose it by.
fn list(runs: &[Run], chosen: bool) -> Markup {
    let heads = [
        words("Run"),
        words("State"),
        words("Base"),
        words("Asked for"),
        numbers("Steps"),
        numbers("Loss"),
        numbers("Validation loss"),
        numbers("Edge"),
    ];
    table("Runs", &heads, html! { @for run in runs.iter().rev() { (row(run, chosen)) } })
}

fn row(run: &Run, chosen: bool) -> Markup {
    let validation = run.outcome.as_ref().and_then(|outcome| outcome.validation);
    html! {
        tr {
            th scope="row" {
                @if chosen { input.pick type="checkbox" name="run" value=(run.name) aria-label={ "Compare " (run.name) }; }
                a href=(path(&["runs", &run.name])) { (run.name) }
            }
            td { (chip(tone(run.state.word()), run.state.word())) }
            td { (run.recipe.base) }
            td { (time(run.created)) }
            td.n { (count(run.steps)) }
            td.n { @if let Some(outcome) = &run.outcome { (figure(outcome.last_loss)) } @else { span.soft { "–" } } }
            td.n { @if let Some(validation) = validation { (figure(validation.kept)) } @else { span.soft { "–" } } }
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
        (steps(&joined(&run.course)))
    };
    Ok(Page::of("/runs", title, body))
}

/// What is known of a run while it is watched.
struct Told {
    state: RunState,
    planned: Option<u64>,
    points: Vec<JoinedSteps>,
    last: Option<StepPoint>,
    validations: Vec<(u64, f64)>,
    doing: String,
    examined: Option<(u64, u64)>,
}

impl Told {
    fn of(run: &Run) -> Self {
        Self {
            state: run.state,
            planned: run.planned.or((run.recipe.train.max_steps > 0).then_some(run.recipe.train.max_steps)),
            points: joined(&run.course),
            last: run.course.last,
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
            Update::Curating { .. }
            | Update::Answering { .. }
            | Update::Looking { .. }
            | Update::Sweep(_) => {}
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
                cores,
                pairs: _,
            } => {
                self.planned = Some(steps);
                self.doing.clear();
                // After a restart steps since the last checkpoint are done again.
                self.points.retain(|points| points.mean.step < step);
                let point = StepPoint {
                    step,
                    loss,
                    gradient_norm,
                    learning_rate,
                    tokens,
                    tokens_per_second,
                    memory,
                    seconds_left,
                    cores,
                };
                self.last = Some(point);
                self.points.push(point.into());
                if self.points.len() > KEPT {
                    let pairs = self.points.chunks(2);
                    self.points = pairs
                        .map(|pair| pair[1..].iter().fold(pair[0], |one, other| one.join(other)))
                        .collect();
                }
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

/// Each step, or neighbouring ones joined.
pub(crate) fn joined(course: &Course) -> Vec<JoinedSteps> {
    let single = course.steps.iter().map(|step| JoinedSteps::from(*step));
    single.chain(course.joined.iter().copied()).collect()
}

/// One measured quantity over the steps. Of those that were never told nothing is drawn.
pub(crate) fn dots(points: &[JoinedSteps], value: fn(&StepPoint) -> f64) -> Vec<Dot> {
    let dot = |steps: &JoinedSteps| Dot {
        step: steps.mean.step,
        mean: value(&steps.mean),
        low: value(&steps.low),
        high: value(&steps.high),
    };
    points.iter().map(dot).filter(|dot| dot.high > 0.0).collect()
}

pub(crate) fn mebibytes(point: &StepPoint) -> f64 {
    point.memory as f64 / f64::from(1 << 20)
}

/// How a run goes on: state, progress, curves.
fn course(told: &Told) -> Markup {
    let active = is_active(told.state);
    let draw = |title, unit, value: fn(&StepPoint) -> f64, marks: &[(u64, f64)], smooth| {
        let points = dots(&told.points, value);
        let (last, until) = (told.last.as_ref().map(value), told.planned.filter(|_| active));
        // Steps of earlier releases do not know all.
        html! { @if !points.is_empty() { (curve(&Curve { title, unit, points: &points, last, marks, until, smooth })) } }
    };
    html! {
        div.progress {
            (chip(tone(told.state.word()), told.state.word()))
            @if let Some(point) = &told.last {
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
        @if let (Some(point), Some(planned)) = (&told.last, told.planned) {
            progress.steps max=(planned) value=(point.step) aria-label="Steps done" { (point.step) }
        }
        @if !told.points.is_empty() {
            div.curves {
                (draw("Loss", "nats a token", |point| point.loss, &told.validations, true))
                (draw("Gradient norm", "before clipping", |point| point.gradient_norm, &[], true))
                (draw("Learning rate", "", |point| point.learning_rate, &[], false))
                (draw("Speed", "tokens a second", |point| point.tokens_per_second, &[], true))
                (draw("Memory", "MiB at most so far", mebibytes, &[], false))
                (draw("Processor", "cores busy", |point| point.cores, &[], true))
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
                    @if let Some(sweep) = &run.sweep { (fact("Sweep", html! { a href=(path(&["sweeps", sweep])) { (sweep) } })) }
                    (fact("Asked for", time(run.created)))
                    @if let Some(outcome) = &run.outcome {
                        (fact("Trained", html! { (count(outcome.steps)) " steps, " (short(outcome.tokens)) " tokens" }))
                        (fact("Loss", html! { (figure(outcome.first_loss)) " → " (figure(outcome.last_loss)) " nats a token" }))
                        (fact("Weights", hash(&outcome.weights)))
                        @if outcome.peak_memory > 0 { (fact("Peak memory", bytes(outcome.peak_memory))) }
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
pub(crate) fn proofs(proofs: &[Proof]) -> Markup {
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
pub(crate) fn plan(course: &Course) -> Markup {
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

fn steps(points: &[JoinedSteps]) -> Markup {
    let every = points.len().div_ceil(STEPS).max(1);
    let rows = points.chunks(every).filter_map(|part| {
        let (first, others) = part.split_first()?;
        Some(others.iter().fold(*first, |one, other| one.join(other)))
    });
    let heads = [
        numbers("Step"),
        numbers("Loss"),
        numbers("Gradient norm"),
        numbers("Learning rate"),
        numbers("Tokens"),
        numbers("Tokens/s"),
        numbers("Memory"),
        numbers("Cores"),
    ];
    let cell = |row: &JoinedSteps, value: fn(&StepPoint) -> f64| {
        let (low, high) = (value(&row.low), value(&row.high));
        let range = (row.steps > 1).then(|| format!("{low} to {high}"));
        let exact = range.unwrap_or_else(|| low.to_string());
        html! { td.n title=(exact) { (figure(value(&row.mean))) } }
    };
    html! {
        @if !points.is_empty() {
            details {
                summary { "Steps" @if points.iter().any(|point| point.steps > 1) || every > 1 { span.soft { " means of neighbours, their extremes on hover" } } }
                (table("Steps", &heads, html! {
                    @for row in rows {
                        tr {
                            td.n { @if row.steps > 1 { (count(row.mean.step + 1 - row.steps)) "–" } (count(row.mean.step)) }
                            (cell(&row, |point| point.loss))
                            (cell(&row, |point| point.gradient_norm))
                            (cell(&row, |point| point.learning_rate))
                            td.n { (count(row.mean.tokens)) }
                            (cell(&row, |point| point.tokens_per_second))
                            td.n { (bytes(row.high.memory)) }
                            (cell(&row, |point| point.cores))
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
