use std::fmt::Write;

use moat_protocol::control::{Against, Comparison, Run};

use super::run::{ends, tone};
use super::table::{Cell, table};
use super::text::{bytes, clean, count, counted, duration, fixed, measure};
use super::{Tone, View};

/// Runs side by side, a column each: what came of them, what differs in their recipes, and how sure it is that their edges
/// differ.
pub(super) fn comparison(view: &View, found: &Comparison) -> String {
    let names: Vec<String> = found.runs.iter().map(|run| clean(&run.name)).collect();
    let headings: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    let row = |name: &str, of: &dyn Fn(&Run) -> String| -> Option<Vec<Cell>> {
        let cells: Vec<String> = found.runs.iter().map(of).collect();
        let told = cells.iter().any(|cell| !cell.is_empty());
        told.then(|| std::iter::once(Cell::from(name)).chain(cells.into_iter().map(Cell::from)).collect())
    };
    let outcome = |run: &Run, of: &dyn Fn(&moat_contracts::TrainOutcome) -> String| {
        run.outcome.as_ref().map(of).unwrap_or_default()
    };
    let state = found.runs.iter().map(|run| Cell::toned(run.state.word(), tone(run.state)));
    let mut rows = vec![std::iter::once(Cell::from("state")).chain(state).collect::<Vec<_>>()];
    rows.extend(row("base", &|run| clean(&run.recipe.base)));
    rows.extend(row("dataset", &|run| run.dataset.map(|dataset| dataset.0.short()).unwrap_or_default()));
    rows.extend(row("steps", &|run| count(run.steps)));
    rows.extend(row("tokens", &|run| outcome(run, &|outcome| count(outcome.tokens))));
    rows.extend(row("loss at the end", &|run| outcome(run, &|outcome| fixed(outcome.last_loss, 4))));
    rows.extend(row("validation loss", &|run| {
        let kept =
            |outcome: &moat_contracts::TrainOutcome| outcome.validation.map(|validation| validation.kept);
        run.outcome.as_ref().and_then(kept).map(|kept| fixed(kept, 4)).unwrap_or_default()
    }));
    rows.extend(row("peak memory", &|run| {
        outcome(run, &|outcome| match outcome.peak_memory {
            0 => String::new(),
            peak => bytes(peak),
        })
    }));
    rows.extend(row("training took", &|run| took(run).map(duration).unwrap_or_default()));
    let all = |run: &Run| run.edge.as_ref().map(|report| report.all.clone());
    rows.extend(row("base bits per byte", &|run| all(run).map(|all| fixed(all.base, 4)).unwrap_or_default()));
    rows.extend(row("tuned bits per byte", &|run| {
        all(run).map(|all| fixed(all.tuned, 4)).unwrap_or_default()
    }));
    let edge = |run: &Run| all(run).and_then(|all| all.edge);
    rows.extend(row("edge", &|run| edge(run).map(|edge| fixed(edge.value, 4)).unwrap_or_default()));
    rows.extend(row("its interval", &|run| edge(run).map(|edge| ends(edge, 4)).unwrap_or_default()));
    let mut page = table(view, &headings, &rows);
    page.push('\n');
    if found.recipe.is_empty() {
        page.push_str("their recipes say the same\n");
    } else {
        let row = |difference: &moat_protocol::control::KeyDifference| {
            let values = difference.values.iter().map(|value| Cell::from(clean(value)));
            std::iter::once(Cell::toned(difference.key.clone(), Tone::Strong))
                .chain(values)
                .collect::<Vec<_>>()
        };
        let rows: Vec<_> = found.recipe.iter().map(row).collect();
        let headings: Vec<&str> = std::iter::once("recipe").chain(names.iter().map(String::as_str)).collect();
        page.push_str(&table(view, &headings, &rows));
    }
    page.push('\n');
    let first = names.first().map_or("", String::as_str);
    for against in &found.against {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{}", sentence(view, first, against));
    }
    page
}

/// Seconds that the steps took together, where their speed is known.
fn took(run: &Run) -> Option<u64> {
    let single = run.course.steps.iter().map(|step| (1, step));
    let joined = run.course.joined.iter().map(|steps| (steps.steps, &steps.mean));
    let mut seconds = 0.0;
    for (steps, step) in single.chain(joined) {
        if step.tokens_per_second <= 0.0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a time for people")]
        let tokens = (steps * step.tokens) as f64;
        seconds += tokens / step.tokens_per_second;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (seconds > 0.0).then_some(seconds.round() as u64)
}

/// What a person should take away of one pair.
fn sentence(view: &View, first: &str, against: &Against) -> String {
    let run = clean(&against.run);
    let Some(difference) = &against.difference else {
        let why = against.why.as_deref().map(clean).unwrap_or_default();
        return view.paint(Tone::Bad, &format!("{run} against {first}: not compared, {why}"));
    };
    let percent = measure(difference.confidence * 100.0);
    let interval = format!("{percent}% interval {}", ends(difference.edge, 4));
    let on = counted(difference.records, "held-back record");
    let on = if against.same_dataset { on } else { format!("{on} that both have") };
    let value = fixed(difference.edge.value.abs(), 4);
    let word = if difference.edge.value < 0.0 { "less" } else { "more" };
    let (tone, sure) = match (difference.is_sure(), difference.edge.value > 0.0) {
        (true, true) => (Tone::Good, ""),
        (true, false) => (Tone::Bad, ""),
        (false, _) => (Tone::Plain, ", which may be chance"),
    };
    let mut text =
        format!("{run} against {first}: an edge of {value} bits per byte {word}{sure} ({interval}; {on})");
    if !against.same_base {
        let saved = difference.saved;
        let spent = if saved.value < 0.0 { "more" } else { "fewer" };
        let value = fixed(saved.value.abs(), 4);
        let _ = write!(
            text,
            "; on another base, its tuned model takes {value} bits per byte {spent} ({percent}% interval {})",
            ends(saved, 4)
        );
    }
    view.paint(tone, &text)
}
