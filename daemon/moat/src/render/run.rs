use std::fmt::Write;

use moat_contracts::{EdgeReport, Interval, Objective, PreferenceReport, Recipe, SourceEdge, TrainOutcome};
use moat_protocol::control::{Course, Run, RunState};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, count, counted, duration, fixed, measure};
use super::{Tone, View, course, preview};

/// All runs, the edge of each in one column.
pub(super) fn runs(view: &View, runs: &[Run]) -> String {
    if runs.is_empty() {
        return "no runs: `moat run start RECIPE` starts one\n".to_owned();
    }
    let row = |run: &Run| {
        let loss = run.outcome.as_ref().map(|outcome| format!("{:.3}", outcome.last_loss));
        vec![
            Cell::toned(clean(&run.name), Tone::Strong),
            Cell::toned(run.state.word(), tone(run.state)),
            count(run.steps).into(),
            loss.unwrap_or_default().into(),
            run.edge.as_ref().map(short_edge).unwrap_or_default().into(),
            run.dataset.map(|dataset| dataset.0.short()).unwrap_or_default().into(),
            view.time(run.created).into(),
        ]
    };
    let rows: Vec<_> = runs.iter().map(row).collect();
    table(view, &["run", "state", ">steps", ">loss", ">edge", "dataset", "created"], &rows)
}

fn short_edge(edge: &EdgeReport) -> String {
    match (edge.has_edge, edge.all.edge, edge.preference) {
        (true, _, Some(preference)) => format!("{} %", fixed(preference.accuracy * 100.0, 1)),
        (true, Some(interval), None) => fixed(interval.value, 3),
        _ => "none".to_owned(),
    }
}

pub(super) const fn tone(state: RunState) -> Tone {
    match state {
        RunState::Done => Tone::Good,
        RunState::Failed => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// One run with its edge.
pub(super) fn run(view: &View, run: &Run) -> String {
    let recipe = &run.recipe;
    let base = run.base.map(|hash| format!(" ({})", hash.short())).unwrap_or_default();
    let mut page = pairs(
        view,
        &[
            (
                "run",
                format!(
                    "{}, {}",
                    view.paint(Tone::Strong, &clean(&run.name)),
                    view.paint(tone(run.state), run.state.word())
                ),
            ),
            ("why", run.message.as_deref().map(clean).unwrap_or_default()),
            ("recipe", format!("{} ({})", clean(&recipe.name), run.recipe_hash.short())),
            ("base", format!("{}{base}", clean(&recipe.base))),
            ("sweep", run.sweep.as_deref().map(clean).unwrap_or_default()),
            ("started from", clean(&recipe.train.start_from)),
            ("dataset", run.dataset.map(|dataset| dataset.0.short()).unwrap_or_default()),
            ("created", view.time(run.created)),
            ("steps", steps(run)),
            (
                "training",
                run.outcome.as_ref().map(|outcome| training(outcome, unit(recipe))).unwrap_or_default(),
            ),
            (
                "validation",
                run.outcome.as_ref().map(|outcome| validation(outcome, unit(recipe))).unwrap_or_default(),
            ),
            ("weights", run.weights.as_deref().map(clean).unwrap_or_default()),
        ],
    );
    if matches!(run.state, RunState::Failed | RunState::Stopped) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "`moat run resume {}` goes on from its last checkpoint", clean(&run.name));
    }
    let Course { survey, memory, proofs, .. } = &run.course;
    if let (Some(survey), Some(memory)) = (survey, memory) {
        page.push('\n');
        page.push_str(&preview::facts(view, survey, memory));
    }
    if !proofs.is_empty() {
        page.push('\n');
        page.push_str(&preview::proofs(view, proofs));
    }
    if run.course.last.is_some() || !run.course.steps.is_empty() {
        page.push('\n');
        page.push_str(&course::course(view, &run.course));
    }
    if let Some(report) = &run.edge {
        page.push('\n');
        page.push_str(&edge(view, report));
    }
    page
}

/// `120 of 600, 4 min left`
fn steps(run: &Run) -> String {
    let of = run.planned.filter(|planned| *planned != run.steps);
    let of = of.map(|planned| format!(" of {}", count(planned))).unwrap_or_default();
    let last =
        run.course.last.as_ref().filter(|last| run.state == RunState::Training && last.seconds_left > 0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let left = last.map(|last| format!(", {} left", duration(last.seconds_left.ceil() as u64)));
    format!("{}{of}{}", count(run.steps), left.unwrap_or_default())
}

/// What a loss is the mean over.
const fn unit(recipe: &Recipe) -> &'static str {
    match recipe.train.objective {
        Objective::Text => "token",
        Objective::Dpo => "preference",
    }
}

fn validation(outcome: &TrainOutcome, of: &str) -> String {
    let Some(validation) = outcome.validation else { return String::new() };
    let kept = match validation.step {
        Some(step) => format!("the weights after step {}", count(step)),
        None => "the mean of its best weights".to_owned(),
    };
    let early = if validation.early { ", ended early" } else { "" };
    format!(
        "loss {:.3} to {:.3} nats a {of} on the validation side, with {kept}{early}",
        validation.first, validation.kept
    )
}

fn training(outcome: &TrainOutcome, of: &str) -> String {
    format!(
        "{} tokens, loss {:.3} to {:.3} nats a {of}{}",
        count(outcome.tokens),
        outcome.first_loss,
        outcome.last_loss,
        match outcome.peak_memory {
            0 => String::new(),
            peak => format!(", peak memory {}", bytes(peak)),
        }
    )
}

/// The edge: a table of bits per byte by source, what was forgotten, and one plain sentence.
fn edge(view: &View, report: &EdgeReport) -> String {
    let percent = measure(report.confidence * 100.0);
    let row = |name: &str, tone: Tone, edge: &SourceEdge| {
        let (value, interval) = match edge.edge {
            Some(edge) => (fixed(edge.value, 3), ends(edge, 3)),
            None => (String::new(), "too few records".to_owned()),
        };
        vec![
            Cell::toned(clean(name), tone),
            count(edge.records).into(),
            format!("{:.3}", edge.base).into(),
            format!("{:.3}", edge.tuned).into(),
            value.into(),
            interval.into(),
        ]
    };
    let mut rows: Vec<_> = report.sources.iter().map(|(name, edge)| row(name, Tone::Plain, edge)).collect();
    rows.push(row("all sources", Tone::Strong, &report.all));
    let interval = format!("{percent}% interval");
    let headings = ["held-back bits per byte", ">records", ">base", ">tuned", ">edge", &interval];
    let mut page = table(view, &headings, &rows);
    page.push_str(&forgotten(report, &percent));
    let tone = if report.has_edge { Tone::Good } else { Tone::Bad };
    page.push_str(&view.paint(tone, &sentence(report, &percent)));
    page.push('\n');
    page
}

/// What tuning did to text unlike the company's.
fn forgotten(report: &EdgeReport, percent: &str) -> String {
    let forgetting = &report.forgetting;
    let lost = forgetting.lost;
    let verdict = if lost.low > 0.0 {
        "forgetting"
    } else if lost.high < 0.0 {
        "no forgetting, but a gain"
    } else {
        "no forgetting to be seen"
    };
    format!(
        "{verdict}: {} to {} bits per byte on {}, lost {} ({percent}% interval {})\n",
        fixed(forgetting.base, 3),
        fixed(forgetting.tuned, 3),
        clean(&forgetting.text),
        fixed(lost.value, 3),
        ends(lost, 3)
    )
}

/// What a person should take away.
fn sentence(report: &EdgeReport, percent: &str) -> String {
    if let Some(preference) = &report.preference {
        return preferred(preference, report.has_edge, percent);
    }
    let Some(edge) = report.all.edge else {
        let records = counted(report.all.records, "held-back record");
        return format!("no edge: {records} are too few for an interval");
    };
    // A small figure needs more places, or its interval would seem to touch 0.
    let places = if edge.value.abs() < 0.1 { 4 } else { 2 };
    let interval = format!("{percent}% interval {}", ends(edge, places));
    let value = fixed(edge.value.abs(), places);
    if report.has_edge {
        format!("edge: {value} bits per byte better than its base ({interval})")
    } else if edge.high < 0.0 {
        format!("no edge: {value} bits per byte worse than its base ({interval})")
    } else {
        let word = if edge.value < 0.0 { "worse" } else { "better" };
        format!("no edge: {value} bits per byte {word}, which may be chance ({interval})")
    }
}

/// The same of a run on preferences; the bits above are those of the chosen answers.
fn preferred(preference: &PreferenceReport, has_edge: bool, percent: &str) -> String {
    let share = fixed(preference.accuracy * 100.0, 1);
    let pairs = counted(preference.pairs, "held-back preference");
    let Some(interval) = preference.interval else {
        return format!("no edge: {pairs} are too few for an interval");
    };
    let range = format!("{} to {}", fixed(interval.low * 100.0, 1), fixed(interval.high * 100.0, 1));
    let found = format!(
        "against its base it raises the chosen answer above the rejected one in {share}% of {pairs} ({percent}% interval {range}), by {} nats on average",
        fixed(preference.margin, 3)
    );
    let word = if has_edge { "edge" } else { "no edge, since a half is chance" };
    format!("{word}: {found}")
}

pub(super) fn ends(interval: Interval, places: usize) -> String {
    format!("{} to {}", fixed(interval.low, places), fixed(interval.high, places))
}
