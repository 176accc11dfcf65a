use std::fmt::Write;

use moat_protocol::control::{RunState, SweepReport, SweepRun};

use super::run::{ends, tone};
use super::table::{Cell, pairs, table};
use super::text::{clean, count, counted, fixed};
use super::{Tone, View};

/// All sweeps.
pub(super) fn sweeps(view: &View, sweeps: &[SweepReport]) -> String {
    if sweeps.is_empty() {
        return "no sweeps: `moat sweep start RECIPE` starts one\n".to_owned();
    }
    let row = |sweep: &SweepReport| {
        vec![
            Cell::toned(clean(&sweep.name), Tone::Strong),
            sweep.state.word().into(),
            format!("{} of {}", count(sweep.done), count(sweep.of)).into(),
            if sweep.failed > 0 { Cell::toned(count(sweep.failed), Tone::Bad) } else { Cell::from("") },
            sweep.keys.iter().map(|key| clean(key)).collect::<Vec<_>>().join(", ").into(),
            sweep.best.as_deref().map(clean).unwrap_or_default().into(),
            view.time(sweep.created).into(),
        ]
    };
    let rows: Vec<_> = sweeps.iter().map(row).collect();
    table(view, &["sweep", "state", ">done", ">failed", "varies", "best", "created"], &rows)
}

/// One sweep: its runs by what they were chosen by.
pub(super) fn sweep(view: &View, sweep: &SweepReport) -> String {
    let failed = if sweep.failed > 0 { format!(", {} failed", count(sweep.failed)) } else { String::new() };
    let runs = format!("{} of {} done{failed}", count(sweep.done), count(sweep.of));
    let mut page = pairs(
        view,
        &[
            ("sweep", format!("{}, {}", view.paint(Tone::Strong, &clean(&sweep.name)), sweep.state.word())),
            ("base", clean(&sweep.base)),
            ("runs", runs),
            ("created", view.time(sweep.created)),
        ],
    );
    page.push('\n');
    let keys: Vec<String> = sweep.keys.iter().map(|key| format!(">{}", clean(key))).collect();
    let mut headings = vec!["run", "state"];
    headings.extend(keys.iter().map(String::as_str));
    headings.extend([">validation loss", ">loss", ">edge", "interval", ">steps"]);
    let rows: Vec<_> =
        sweep.runs.iter().map(|run| row(run, sweep.best.as_deref() == Some(&run.run))).collect();
    page.push_str(&table(view, &headings, &rows));
    for run in sweep.runs.iter().filter(|run| run.state == RunState::Failed) {
        let why = run.message.as_deref().map(clean).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{}: {why}", clean(&run.run));
    }
    page.push('\n');
    page.push_str(&view.paint(Tone::Strong, &sentence(sweep)));
    page.push('\n');
    page
}

fn row(run: &SweepRun, best: bool) -> Vec<Cell> {
    let number = |value: Option<f64>| value.map(|value| fixed(value, 4)).unwrap_or_default();
    let name = if best { Tone::Good } else { Tone::Strong };
    let mut cells = vec![Cell::toned(clean(&run.run), name), Cell::toned(run.state.word(), tone(run.state))];
    cells.extend(run.values.iter().map(|value| Cell::from(clean(value))));
    let steps = match run.planned.filter(|planned| *planned != run.steps) {
        Some(planned) => format!("{} of {}", count(run.steps), count(planned)),
        None => count(run.steps),
    };
    let ended = if run.state == RunState::Done { "" } else { " so far" };
    let validation = run.validation.map(|loss| format!("{}{ended}", fixed(loss, 4)));
    cells.push(validation.unwrap_or_default().into());
    cells.push(number(run.loss).into());
    cells.push(number(run.edge.map(|edge| edge.value)).into());
    cells.push(run.edge.map(|edge| ends(edge, 4)).unwrap_or_default().into());
    cells.push(steps.into());
    cells
}

/// What the choice goes by.
fn sentence(sweep: &SweepReport) -> String {
    if !sweep.validated {
        return "no validation side, so nothing to choose by: set split.validation above 0; choosing by the edge would \
                flatter it"
            .to_owned();
    }
    match &sweep.best {
        Some(best) => format!(
            "lowest validation loss of {}: {}; its edge was not chosen by",
            counted(sweep.done, "done run"),
            clean(best)
        ),
        None => "no run is done yet".to_owned(),
    }
}
