//! Curves, drawn by the server: the line in SVG, its words in HTML, so that neither is stretched with the other.

use maud::{Markup, html};

/// Width and height of the drawing's own units.
const WIDE: f64 = 1000.0;
const HIGH: f64 = 250.0;
/// Points of one line at most; more are joined to their means, within a band of what they were.
const POINTS: usize = 400;
/// Marks beside a line at most; of more the lowest of neighbours is shown.
const MARKS: usize = 200;
/// Stretches of a line at most that tell their values on hover.
const HOVERS: usize = 60;
/// How much of a smoothed point is what came before it.
const SMOOTH: f64 = 0.9;

/// A step of a curve, or neighbouring ones joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dot {
    /// The last of them.
    pub(crate) step: u64,
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Dot {
    /// One step.
    pub(crate) const fn at(step: u64, value: f64) -> Self {
        Self { step, mean: value, low: value, high: value }
    }

    fn is_sound(&self) -> bool {
        self.mean.is_finite() && self.low.is_finite() && self.high.is_finite()
    }
}

/// One curve over steps.
pub(crate) struct Curve<'a> {
    pub(crate) title: &'a str,
    /// What a value is measured in.
    pub(crate) unit: &'a str,
    /// In order of the steps.
    pub(crate) points: &'a [Dot],
    /// The value after the last step, where the last point stands for several.
    pub(crate) last: Option<f64>,
    /// Marks beside the line, such as what was measured now and then on data held back.
    pub(crate) marks: &'a [(u64, f64)],
    /// The last step that is expected, where it is known.
    pub(crate) until: Option<u64>,
    /// Whether the line is too restless to be read as it is.
    pub(crate) smooth: bool,
}

/// Draws a curve; says so where there is nothing to draw.
pub(crate) fn curve(curve: &Curve<'_>) -> Markup {
    let Curve { title, unit, points, last: value, marks, until, smooth } = curve;
    let sound: Vec<Dot> = points.iter().copied().filter(Dot::is_sound).collect();
    let beside = lowest(marks);
    let Some(end) = sound.last() else {
        return html! { figure.curve { figcaption { (title) } p.empty { "No step is done yet." } } };
    };
    let (last, value) = (end.step, value.filter(|value| value.is_finite()).unwrap_or(end.mean));
    let lows = sound.iter().map(|dot| dot.low).chain(beside.iter().map(|(_, value)| *value));
    let highs = sound.iter().map(|dot| dot.high).chain(beside.iter().map(|(_, value)| *value));
    let (low, high) = room(lows.fold(f64::INFINITY, f64::min), highs.fold(f64::NEG_INFINITY, f64::max));
    let frame = Frame { low, high, end: until.unwrap_or(last).max(last).max(BEGIN + 1) };
    let drawn = thinned(&sound);
    let joined = drawn.iter().any(|dot| dot.low < dot.high);
    let told =
        format!("{title}: {} at step {last}, between {} and {}", figure(value), figure(low), figure(high));
    html! {
        figure.curve {
            figcaption {
                (title) " " span.soft { (figure(value)) " " (unit) }
                @if let Some((step, value)) = beside.last() {
                    span.soft.marked title={ "after step " (step) } { (figure(*value)) " on the validation side" }
                }
            }
            (plot(&frame, &told, html! {
                @if joined { polygon.band points=(frame.band(&drawn)) {} }
                polyline .raw[*smooth] points=(frame.line(drawn.iter().map(|dot| (dot.step, dot.mean)))) {}
                @if *smooth { polyline points=(frame.line(smoothed(&drawn).into_iter())) {} }
                @for (step, value) in &beside { path.mark d={ "M" (frame.place(*step, *value)) "h0" } {} }
                (hovers(&frame, &drawn))
            }))
        }
    }
}

/// One of several runs whose curves lie over each other.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<Dot>,
}

/// Draws curves over each other; nothing where none has a point. The lines' colours are those of their places.
pub(crate) fn overlay(title: &str, unit: &str, lines: &[Line<'_>]) -> Markup {
    let sound =
        |line: &Line<'_>| thinned(&line.points.iter().copied().filter(Dot::is_sound).collect::<Vec<_>>());
    let drawn: Vec<_> = lines.iter().map(sound).collect();
    let all = || drawn.iter().flatten();
    let Some(end) = all().map(|dot| dot.step).max() else { return html! {} };
    let lowest = all().map(|dot| dot.mean).fold(f64::INFINITY, f64::min);
    let (low, high) = room(lowest, all().map(|dot| dot.mean).fold(f64::NEG_INFINITY, f64::max));
    let frame = Frame { low, high, end: end.max(BEGIN + 1) };
    let ends: Vec<_> = lines
        .iter()
        .zip(&drawn)
        .filter_map(|(line, dots)| Some(format!("{} {}", line.name, figure(dots.last()?.mean))))
        .collect();
    html! {
        figure.curve {
            figcaption { (title) " " span.soft { (unit) } }
            (plot(&frame, &format!("{title} at the end: {}", ends.join(", ")), html! {
                @for (number, dots) in drawn.iter().enumerate() {
                    polyline class={ "line-" (number) } points=(frame.line(dots.iter().map(|dot| (dot.step, dot.mean)))) {
                        title { (lines[number].name) @if let Some(dot) = dots.last() { ": " (figure(dot.mean)) " after step " (dot.step) } }
                    }
                }
            }))
        }
    }
}

/// Curves of one run begin together.
const BEGIN: u64 = 1;

/// The values between which a drawing lies, and its last step.
struct Frame {
    low: f64,
    high: f64,
    end: u64,
}

impl Frame {
    fn x(&self, step: u64) -> f64 {
        step.saturating_sub(BEGIN) as f64 / (self.end - BEGIN) as f64 * WIDE
    }

    fn place(&self, step: u64, value: f64) -> String {
        format!("{:.1},{:.1}", self.x(step), (self.high - value) / (self.high - self.low) * HIGH)
    }

    fn line(&self, points: impl Iterator<Item = (u64, f64)>) -> String {
        points.map(|(step, value)| self.place(step, value)).collect::<Vec<_>>().join(" ")
    }

    /// Around what the points stand for: the highest there, the lowest back.
    fn band(&self, dots: &[Dot]) -> String {
        let there = dots.iter().map(|dot| (dot.step, dot.high));
        self.line(there.chain(dots.iter().rev().map(|dot| (dot.step, dot.low))))
    }
}

fn plot(frame: &Frame, told: &str, lines: Markup) -> Markup {
    let Frame { low, high, end } = frame;
    html! {
        div.plot {
            div.ticks aria-hidden="true" { span { (figure(*high)) } span { (figure((low + high) / 2.0)) } span { (figure(*low)) } }
            svg viewBox={ "0 0 " (WIDE) " " (HIGH) } preserveAspectRatio="none" role="img" aria-label=(told) {
                @for at in [0.0, 0.5, 1.0] { line.rule x1="0" x2=(WIDE) y1=(at * HIGH) y2=(at * HIGH) {} }
                (lines)
            }
            div.steps aria-hidden="true" { span { (BEGIN) } span { "step " (end) } }
        }
    }
}

/// Stretches that tell their exact values on hover.
fn hovers(frame: &Frame, dots: &[Dot]) -> Markup {
    let dots = joined(dots, HOVERS);
    // Each begins where the one before it ends.
    let begins = std::iter::once(0.0).chain(dots.iter().map(|dot| frame.x(dot.step)));
    html! {
        @for (dot, begin) in dots.iter().zip(begins) {
            @let right = frame.x(dot.step);
            rect.hover x=(format!("{begin:.1}")) width=(format!("{:.1}", (right - begin).max(1.0))) height=(HIGH) {
                title {
                    "to step " (dot.step) ": " (figure(dot.mean))
                    @if dot.low < dot.high { ", from " (figure(dot.low)) " to " (figure(dot.high)) }
                }
            }
        }
    }
}

/// Marks few enough to be told apart, the lowest of neighbours each.
fn lowest(marks: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let sound: Vec<_> = marks.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let of = sound.len().div_ceil(MARKS).max(1);
    let least = |part: &[(u64, f64)]| part.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    sound.chunks(of).filter_map(least).collect()
}

/// A little room above and below, and some where all values are the same.
fn room(low: f64, high: f64) -> (f64, f64) {
    let gap = (high - low).max(high.abs() * 1e-3).max(1e-9) * 0.06;
    (low - gap, high + gap)
}

/// Few enough points to draw.
fn thinned(points: &[Dot]) -> Vec<Dot> {
    joined(points, POINTS)
}

/// So many points at most: neighbours with their mean, and the lowest and highest of them.
fn joined(points: &[Dot], most: usize) -> Vec<Dot> {
    let of = points.len().div_ceil(most).max(1);
    let join = |part: &[Dot]| {
        let sum: f64 = part.iter().map(|dot| dot.mean).sum();
        Dot {
            step: part[part.len() - 1].step,
            mean: sum / part.len() as f64,
            low: part.iter().map(|dot| dot.low).fold(f64::INFINITY, f64::min),
            high: part.iter().map(|dot| dot.high).fold(f64::NEG_INFINITY, f64::max),
        }
    };
    points.chunks(of).map(join).collect()
}

/// A running mean that forgets.
fn smoothed(points: &[Dot]) -> Vec<(u64, f64)> {
    let mut mean = points.first().map_or(0.0, |dot| dot.mean);
    let smooth = |dot: &Dot| {
        mean = SMOOTH * mean + (1.0 - SMOOTH) * dot.mean;
        (dot.step, mean)
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
            let points: Vec<_> = points.iter().map(|(step, value)| Dot::at(*step, *value)).collect();
            let shown = Curve {
                title: "Loss",
                unit: "nats",
                points: &points,
                last: Some(f64::NAN),
                marks: &[(3, f64::NAN)],
                until: None,
                smooth: true,
            };
            let over = overlay("Loss", "nats", &[Line { name: "<b>", points: points.clone() }]).into_string();
            assert!(!over.contains("NaN") && !over.contains("inf") && !over.contains("<b>"), "{over}");
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
    fn many_steps_are_drawn_by_few_points_that_keep_mean_and_extremes() {
        let mut points: Vec<_> = (1..=50_000).map(|step| Dot::at(step, (step % 7) as f64)).collect();
        points[31_007] = Dot::at(31_008, 60.0);
        let drawn = thinned(&points);
        assert!(drawn.len() <= POINTS && drawn[drawn.len() - 1].step == 50_000);
        assert!(drawn.iter().all(|dot| (dot.mean - 3.0).abs() < 0.6 && dot.low == 0.0));
        let highs: Vec<_> = drawn.iter().map(|dot| dot.high).filter(|high| *high != 6.0).collect();
        assert_eq!(highs, [60.0], "one step that stands out is still seen");
        assert_eq!(smoothed(&[Dot::at(1, 2.0), Dot::at(2, 2.0)]), [(1, 2.0), (2, 2.0)]);
        let marks: Vec<_> = (1..=5000).map(|step| (step, (step % 50) as f64)).collect();
        assert!(lowest(&marks).len() <= MARKS && lowest(&marks).iter().any(|(_, value)| *value == 0.0));
        let page = Curve {
            title: "",
            unit: "",
            points: &points,
            last: None,
            marks: &marks,
            until: None,
            smooth: true,
        };
        let page = curve(&page).into_string();
        assert!(page.contains("from 0 to 60.00") && page.len() < 60_000, "{}", page.len());
    }
}
