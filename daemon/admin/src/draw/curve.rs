//! Curves, drawn by the server: the line in SVG, its words in HTML, so that neither is stretched with the other.

use maud::{Markup, html};

/// Width and height of the drawing's own units.
const WIDE: f64 = 1000.0;
const HIGH: f64 = 250.0;
/// Points of one line at most; more are joined to their means.
const POINTS: usize = 400;
/// How much of a smoothed point is what came before it.
const SMOOTH: f64 = 0.9;

/// One curve over steps.
pub(crate) struct Curve<'a> {
    pub(crate) title: &'a str,
    /// What a value is measured in.
    pub(crate) unit: &'a str,
    /// Step and value, in order of the steps.
    pub(crate) points: &'a [(u64, f64)],
    /// Marks beside the line, such as what was measured now and then on data held back.
    pub(crate) marks: &'a [(u64, f64)],
    /// The last step that is expected, where it is known.
    pub(crate) until: Option<u64>,
    /// Whether the line is too restless to be read as it is.
    pub(crate) smooth: bool,
}

/// Draws a curve; says so where there is nothing to draw.
pub(crate) fn curve(curve: &Curve<'_>) -> Markup {
    let Curve { title, unit, points, marks, until, smooth } = curve;
    let sound: Vec<_> = points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let beside: Vec<_> = marks.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let Some((last, value)) = sound.last().copied() else {
        return html! { figure.curve { figcaption { (title) } p.empty { "No step is done yet." } } };
    };
    let all = || sound.iter().chain(&beside).map(|(_, value)| *value);
    let (low, high) = room(all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    // Curves of one run begin together.
    let begin = 1;
    let end = until.unwrap_or(last).max(last).max(begin + 1);
    let x = |step: u64| (step.saturating_sub(begin)) as f64 / (end - begin) as f64 * WIDE;
    let y = |value: f64| (high - value) / (high - low) * HIGH;
    let line = |points: &[(u64, f64)]| {
        let places = points.iter().map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value)));
        places.collect::<Vec<_>>().join(" ")
    };
    let drawn = thinned(&sound);
    let told =
        format!("{title}: {} at step {last}, between {} and {}", figure(value), figure(low), figure(high));
    html! {
        figure.curve {
            figcaption { (title) " " span.soft { (figure(value)) " " (unit) } }
            div.plot {
                div.ticks aria-hidden="true" { span { (figure(high)) } span { (figure((low + high) / 2.0)) } span { (figure(low)) } }
                svg viewBox={ "0 0 " (WIDE) " " (HIGH) } preserveAspectRatio="none" role="img" aria-label=(told) {
                    @for at in [0.0, 0.5, 1.0] { line.rule x1="0" x2=(WIDE) y1=(at * HIGH) y2=(at * HIGH) {} }
                    polyline .raw[*smooth] points=(line(&drawn)) {}
                    @if *smooth { polyline points=(line(&smoothed(&drawn))) {} }
                    @for (step, value) in &beside { path.mark d={ "M" (format!("{:.1} {:.1}", x(*step), y(*value))) "h0" } {} }
                }
                div.steps aria-hidden="true" { span { (begin) } span { "step " (end) } }
            }
        }
    }
}

/// A little room above and below, and some where all values are the same.
fn room(low: f64, high: f64) -> (f64, f64) {
    let gap = (high - low).max(high.abs() * 1e-3).max(1e-9) * 0.06;
    (low - gap, high + gap)
}

/// Few enough points to draw: the means of neighbours.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let of = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(u64, f64)]| {
        let sum: f64 = part.iter().map(|(_, value)| value).sum();
        (part[part.len() - 1].0, sum / part.len() as f64)
    };
    points.chunks(of).map(mean).collect()
}

/// A running mean that forgets.
fn smoothed(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut mean = points.first().map_or(0.0, |(_, value)| *value);
    let smooth = |(step, value): &(u64, f64)| {
        mean = SMOOTH * mean + (1.0 - SMOOTH) * value;
        (*step, mean)
    };
    points.iter().map(smooth).collect()
}

/// A figure of four digits or so, whatever its size.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        1e5.. | ..1e-3 => format!("{value:.2e}"),
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_numbers_break_a_curve() {
        let draw = |points: &[(u64, f64)]| {
            let shown = Curve {
                title: "Loss",
                unit: "nats",
                points,
                marks: &[(3, f64::NAN)],
                until: None,
                smooth: true,
            };
            curve(&shown).into_string()
        };
        assert!(draw(&[]).contains("No step"));
        assert!(draw(&[(1, f64::NAN), (2, f64::INFINITY)]).contains("No step"));
        for points in [&[(1, 0.0)][..], &[(5, 2.0), (6, 2.0)], &[(1, -1e300), (2, 1e300)], &[(7, 1e-300)]] {
            let svg = draw(points);
            assert!(svg.contains("polyline") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn many_steps_are_drawn_by_few_points_and_keep_their_mean() {
        let points: Vec<_> = (1..=50_000).map(|step| (step, (step % 7) as f64)).collect();
        let drawn = thinned(&points);
        assert!(drawn.len() <= POINTS && drawn[drawn.len() - 1].0 == 50_000);
        assert!(drawn.iter().all(|(_, value)| (value - 3.0).abs() < 0.1));
        assert_eq!(smoothed(&[(1, 2.0), (2, 2.0)]), [(1, 2.0), (2, 2.0)]);
    }
}
