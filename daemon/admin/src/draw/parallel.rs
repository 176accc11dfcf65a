//! Parallel axes: one for each value, a thread across them for each run. A length in the drawing is a pixel, so that its
//! words are as large as the page's.

use maud::{Markup, html};

use super::curve::figure;

/// Between two axes at least, of a letter of their titles, above them, below them, and along them.
const APART: f64 = 150.0;
const LETTER: f64 = 7.5;
const ABOVE: f64 = 34.0;
const BELOW: f64 = 16.0;
const HIGH: f64 = 220.0;
/// Values that an axis names at most.
const NAMED: usize = 12;

/// One axis.
pub(crate) struct Axis {
    title: String,
    /// Places from the top, 0 to 1, with what stands there.
    marks: Vec<(f64, String)>,
}

/// One run's way across the axes.
pub(crate) struct Thread {
    /// What it is called, with its values.
    pub(crate) told: String,
    /// Its place on each axis; nothing where its value is not known.
    pub(crate) places: Vec<Option<f64>>,
    pub(crate) best: bool,
}

/// An axis of values that were chosen, each as far from the next: with each thread's place.
pub(crate) fn chosen(title: &str, values: &[&str]) -> (Axis, Vec<Option<f64>>) {
    let mut all: Vec<&str> = values.to_vec();
    all.sort_by(|a, b| match (number(a), number(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        _ => b.cmp(a),
    });
    all.dedup();
    let place = |at: usize| if all.len() == 1 { 0.5 } else { at as f64 / (all.len() - 1) as f64 };
    let of = |value: &&str| all.iter().position(|other| other == value).map(place);
    let every = all.len().div_ceil(NAMED).max(1);
    let marks = all.iter().enumerate().step_by(every).map(|(at, value)| (place(at), (*value).to_owned()));
    (Axis { title: title.to_owned(), marks: marks.collect() }, values.iter().map(of).collect())
}

fn number(text: &str) -> Option<f64> {
    text.replace('_', "").parse().ok()
}

/// An axis of what was measured, the better end above.
pub(crate) fn measured(
    title: &str,
    values: &[Option<f64>],
    less_is_better: bool,
) -> (Axis, Vec<Option<f64>>) {
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let place = |value: f64| {
        let way = if high > low { (value - low) / (high - low) } else { 0.5 };
        if less_is_better { way } else { 1.0 - way }
    };
    let ends: &[f64] = if !low.is_finite() {
        &[]
    } else if high > low {
        &[low, high]
    } else {
        &[low]
    };
    let marks = ends.iter().map(|value| (place(*value), figure(*value))).collect();
    let of = |value: &Option<f64>| value.filter(|value| value.is_finite()).map(place);
    (Axis { title: title.to_owned(), marks }, values.iter().map(of).collect())
}

/// Draws threads over axes, the best one last, over the others.
pub(crate) fn parallel(what: &str, axes: &[Axis], threads: &[Thread]) -> Markup {
    let letters = axes.iter().map(|axis| axis.title.chars().count() + 2).max().unwrap_or(0);
    let apart = APART.max(LETTER * letters as f64);
    let x = |axis: usize| apart * (axis as f64 + 0.5);
    let y = |place: f64| ABOVE + place * HIGH;
    let (wide, high) = (apart * axes.len() as f64, ABOVE + HIGH + BELOW);
    let line = |thread: &Thread| {
        let known = thread.places.iter().enumerate().filter_map(|(axis, place)| Some((axis, (*place)?)));
        known.map(|(axis, place)| format!("{:.1},{:.1}", x(axis), y(place))).collect::<Vec<_>>().join(" ")
    };
    let mut ordered: Vec<&Thread> = threads.iter().collect();
    ordered.sort_by_key(|thread| thread.best);
    html! {
        div.scroll role="group" aria-label=(what) tabindex="0" {
            svg.parallel width=(wide) height=(high) viewBox={ "0 0 " (wide) " " (high) } role="img" aria-label={ (what) ": " (threads.len()) " runs over " (axes.len()) " axes; the table has the values" } {
                @for thread in ordered {
                    polyline .best[thread.best] points=(line(thread)) { title { (thread.told) } }
                }
                @for (at, axis) in axes.iter().enumerate() {
                    line.axis x1=(x(at)) x2=(x(at)) y1=(ABOVE) y2=(ABOVE + HIGH) {}
                    text.title x=(x(at)) y="16" text-anchor="middle" { (axis.title) }
                    @for (place, label) in &axis.marks {
                        line.axis x1=(x(at) - 4.0) x2=(x(at) + 4.0) y1=(format!("{:.1}", y(*place))) y2=(format!("{:.1}", y(*place))) {}
                        text x=(x(at) + 8.0) y=(format!("{:.1}", y(*place) + 4.0)) { (label) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_their_order_and_the_better_end_above() {
        let (axis, places) = chosen("rank", &["8", "64", "16", "8"]);
        assert_eq!(places, [Some(1.0), Some(0.0), Some(0.5), Some(1.0)]);
        assert_eq!(axis.marks.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>(), ["64", "16", "8"]);
        assert_eq!(chosen("x", &["a"]).1, [Some(0.5)]);
        let many: Vec<String> = (0..64).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(chosen("x", &many).0.marks.len() <= NAMED);
        let (_, places) = measured("loss", &[Some(2.0), None, Some(4.0), Some(f64::NAN)], true);
        assert_eq!(places, [Some(0.0), None, Some(1.0), None]);
        assert_eq!(measured("edge", &[Some(2.0), Some(4.0)], false).1, [Some(1.0), Some(0.0)]);
        assert_eq!(measured("edge", &[Some(2.0)], false).1, [Some(0.5)]);
        assert!(measured("loss", &[None], true).0.marks.is_empty());
    }

    #[test]
    fn the_best_lies_above_the_others_and_what_is_told_is_text() {
        let (axis, places) = chosen("<b>", &["1", "2"]);
        let thread =
            |at: usize| Thread { told: format!("run <{at}>"), places: vec![places[at]], best: at == 0 };
        let drawn = parallel("Runs", &[axis], &[thread(0), thread(1)]).into_string();
        assert!(drawn.find("run &lt;1&gt;").unwrap() < drawn.find("run &lt;0&gt;").unwrap());
        assert!(!drawn.contains("<b>") && !drawn.contains("NaN"));
    }
}
