use moat_protocol::control::{Course, JoinedSteps, StepPoint};

use super::View;
use super::table::{Cell, table};
use super::text::{bytes, count, duration, fixed};

/// Columns of a curve.
const WIDTH: usize = 32;

/// What was measured over the steps: a curve each, where it began and ended, and its extremes. `moat run steps` has every
/// step.
pub(super) fn course(view: &View, course: &Course) -> String {
    let each = course.steps.iter().map(|step| JoinedSteps::from(*step)).chain(course.joined.iter().copied());
    let each: Vec<JoinedSteps> = each.collect();
    let last = course.last.or_else(|| course.steps.last().copied());
    let of = |value: fn(&StepPoint) -> f64| {
        let means: Vec<f64> = each.iter().map(|steps| value(&steps.mean)).collect();
        let low = each.iter().map(|steps| value(&steps.low)).fold(f64::INFINITY, f64::min);
        let high = each.iter().map(|steps| value(&steps.high)).fold(f64::NEG_INFINITY, f64::max);
        let last = last.as_ref().map(value).or_else(|| means.last().copied());
        Told { last: last.unwrap_or(low), means, low, high }
    };
    let losses: Vec<f64> = course.validations.iter().map(|point| point.loss).collect();
    let places = |places| move |value: f64| fixed(value, places);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = |value: f64| count(value.round() as u64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = |value: f64| bytes(value as u64);
    let mut rows = vec![row("loss", &of(|step| step.loss), places(3))];
    if !losses.is_empty() {
        rows.push(row("validation loss", &Told::of(losses), places(3)));
    }
    rows.push(row("gradient norm", &of(|step| step.gradient_norm), places(3)));
    rows.push(row("learning rate", &of(|step| step.learning_rate), |value| format!("{value:.1e}")));
    let told = |values: &Told| values.high > 0.0;
    let rates = of(|step| step.tokens_per_second);
    if told(&rates) {
        rows.push(row("tokens a second", &rates, whole));
    }
    #[allow(clippy::cast_precision_loss)]
    let memory = of(|step| step.memory as f64);
    if told(&memory) {
        rows.push(row("memory", &memory, size));
    }
    let cores = of(|step| step.cores);
    if told(&cores) {
        rows.push(row("cores busy", &cores, places(1)));
    }
    table(view, &["over the steps", "", ">first", ">last", ">lowest", ">highest"], &rows)
}

/// A quantity over the steps; of joined steps the curve has the means, and the extremes are those of single steps.
struct Told {
    means: Vec<f64>,
    last: f64,
    low: f64,
    high: f64,
}

impl Told {
    fn of(means: Vec<f64>) -> Self {
        let (low, high) = extremes(&means);
        Self { last: means.last().copied().unwrap_or(low), low, high, means }
    }
}

fn row(name: &str, told: &Told, show: impl Fn(f64) -> String) -> Vec<Cell> {
    let first = told.means.first().copied().unwrap_or(told.low);
    let numbers = [first, told.last, told.low, told.high].map(|value| Cell::from(show(value)));
    [Cell::from(name), Cell::from(curve(&told.means))].into_iter().chain(numbers).collect()
}

/// Single steps as they were measured.
pub(super) fn steps(view: &View, steps: &[StepPoint]) -> String {
    if steps.is_empty() {
        return "no such step is done\n".to_owned();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let row = |step: &StepPoint| {
        vec![
            Cell::from(count(step.step)),
            fixed(step.loss, 4).into(),
            fixed(step.gradient_norm, 4).into(),
            format!("{:.3e}", step.learning_rate).into(),
            count(step.tokens).into(),
            fixed(step.tokens_per_second, 0).into(),
            bytes(step.memory).into(),
            fixed(step.cores, 1).into(),
            duration(step.seconds_left.max(0.0).ceil() as u64).into(),
        ]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    let headings = [
        ">step",
        ">loss",
        ">gradient norm",
        ">learning rate",
        ">tokens",
        ">tokens/s",
        ">memory",
        ">cores",
        ">left",
    ];
    table(view, &headings, &rows)
}

fn extremes(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    (low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// A curve of at most [`WIDTH`] columns, each the mean of its part of the values, from the lowest to the highest.
fn curve(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = values.len().min(WIDTH);
    let part =
        |column: usize| &values[column * values.len() / columns..(column + 1) * values.len() / columns];
    #[allow(clippy::cast_precision_loss)]
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let means: Vec<f64> = (0..columns).map(|column| mean(part(column))).collect();
    let (low, high) = extremes(&means);
    let level = |value: &f64| {
        let way = if high > low { (value - low) / (high - low) } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let level = (way * 7.0).round() as usize;
        LEVELS[level.min(7)]
    };
    means.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::curve;

    #[test]
    fn a_curve_goes_from_the_lowest_to_the_highest() {
        assert_eq!(curve(&[3.0]), "▁");
        assert_eq!(curve(&[0.0, 7.0, 3.0]), "▁█▄");
        let falling: Vec<f64> = (0..640).map(|step| f64::from(640 - step)).collect();
        let shown: Vec<char> = curve(&falling).chars().collect();
        assert_eq!((shown.len(), shown[0], shown[31]), (32, '█', '▁'));
        assert!(shown.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}
