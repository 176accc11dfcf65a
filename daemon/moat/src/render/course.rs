use moat_protocol::control::{Course, StepPoint};

use super::View;
use super::table::{Cell, table};
use super::text::{bytes, count, fixed};

/// Columns of a curve.
const WIDTH: usize = 32;

/// What was measured over the steps: a curve each, where it began and ended, and its extremes. --json has every step.
pub(super) fn course(view: &View, course: &Course) -> String {
    let of = |value: fn(&StepPoint) -> f64| course.steps.iter().map(value).collect::<Vec<f64>>();
    let losses: Vec<f64> = course.validations.iter().map(|point| point.loss).collect();
    let places = |places| move |value: f64| fixed(value, places);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = |value: f64| count(value.round() as u64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = |value: f64| bytes(value as u64);
    let mut rows = vec![row("loss", &of(|step| step.loss), places(3))];
    if !losses.is_empty() {
        rows.push(row("validation loss", &losses, places(3)));
    }
    rows.push(row("gradient norm", &of(|step| step.gradient_norm), places(3)));
    rows.push(row("learning rate", &of(|step| step.learning_rate), |value| format!("{value:.1e}")));
    let told = |values: &[f64]| values.iter().any(|value| *value > 0.0);
    let rates = of(|step| step.tokens_per_second);
    if told(&rates) {
        rows.push(row("tokens a second", &rates, whole));
    }
    #[allow(clippy::cast_precision_loss)]
    let memory = of(|step| step.memory as f64);
    if told(&memory) {
        rows.push(row("memory", &memory, size));
    }
    table(view, &["over the steps", "", ">first", ">last", ">lowest", ">highest"], &rows)
}

fn row(name: &str, values: &[f64], show: impl Fn(f64) -> String) -> Vec<Cell> {
    let (low, high) = extremes(values);
    let ends = [values.first(), values.last()].map(|value| value.copied().unwrap_or(low));
    let numbers = ends.into_iter().chain([low, high]).map(|value| Cell::from(show(value)));
    [Cell::from(name), Cell::from(curve(values))].into_iter().chain(numbers).collect()
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
