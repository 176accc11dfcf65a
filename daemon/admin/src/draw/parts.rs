//! Numbers, times and tables, as every page shows them: human in sight, exact in `title`.

use jiff::Timestamp;
use maud::{Markup, Render, html};

/// A word with a colour that says the same.
pub(crate) fn chip(tone: &str, words: &str) -> Markup {
    html! { span class={ "chip " (tone) } { (words) } }
}

/// A count, with commas between thousands.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count that may be large: three digits and a letter, the whole of it in `title`.
pub(crate) fn short(value: u64) -> Markup {
    match scaled(value, &["", "k", "M", "G", "T"]) {
        (text, "") => html! { (text) },
        (text, unit) => html! { span title=(count(value)) { (text) "\u{202f}" (unit) } },
    }
}

/// Bytes in units of a thousand.
pub(crate) fn bytes(value: u64) -> Markup {
    let (text, unit) = scaled(value, &["bytes", "kB", "MB", "GB", "TB"]);
    html! { span title={ (count(value)) " bytes" } { (text) "\u{202f}" (unit) } }
}

/// Three digits of a value in the largest unit of a thousand that it fills.
fn scaled<'a>(value: u64, units: &[&'a str]) -> (String, &'a str) {
    let mut rest = value as f64;
    for (at, unit) in units.iter().enumerate() {
        // What would round up to a thousand belongs to the next unit.
        if rest < 999.5 || at + 1 == units.len() {
            let text = match (at, rest) {
                (0, _) => count(value),
                (_, ..9.995) => format!("{rest:.2}"),
                (_, ..99.95) => format!("{rest:.1}"),
                _ => format!("{rest:.0}"),
            };
            return (text, unit);
        }
        rest /= 1000.0;
    }
    (count(value), "")
}

/// A moment in seconds since 1970. Without the script it is told in UTC.
pub(crate) fn time(seconds: i64) -> Markup {
    moment(Timestamp::from_second(seconds).ok())
}

/// A moment in milliseconds since 1970.
pub(crate) fn time_of_milliseconds(milliseconds: i64) -> Markup {
    moment(Timestamp::from_millisecond(milliseconds).ok())
}

fn moment(time: Option<Timestamp>) -> Markup {
    let Some(time) = time else { return html! { "at no known time" } };
    html! { time datetime=(time) { (time.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// How long something took or lasts.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}\u{202f}s"),
        60..3600 => format!("{}\u{202f}min", seconds / 60),
        3600..86_400 => format!("{}\u{202f}h {}\u{202f}min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}\u{202f}d {}\u{202f}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The beginning of a hash, the whole of it in `title`.
pub(crate) fn hash(hash: &impl ToString) -> Markup {
    let hash = hash.to_string();
    let begin: String = hash.chars().take(12).collect();
    html! { code title=(hash) { (begin) } }
}

/// A table that scrolls by itself where it is too wide, by keyboard too.
pub(crate) fn table(caption: &str, heads: &[Head], rows: impl Render) -> Markup {
    html! {
        div.scroll role="group" aria-label=(caption) tabindex="0" {
            table {
                caption.unseen { (caption) }
                thead { tr { @for head in heads { th scope="col" .n[head.number] { (head.title) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// As [`table`], for columns that are named by what is shown: title, and whether it holds numbers.
pub(crate) fn titled(caption: &str, heads: &[(&str, bool)], rows: impl Render) -> Markup {
    html! {
        div.scroll role="group" aria-label=(caption) tabindex="0" {
            table {
                caption.unseen { (caption) }
                thead { tr { @for (title, number) in heads { th scope="col" .n[*number] { (title) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// A column's head.
pub(crate) struct Head {
    title: &'static str,
    number: bool,
}

/// A column of words.
pub(crate) const fn words(title: &'static str) -> Head {
    Head { title, number: false }
}

/// A column of numbers, which stand below each other by their last digit.
pub(crate) const fn numbers(title: &'static str) -> Head {
    Head { title, number: true }
}

/// A bar whose parts are in proportion: title, count and tone of each.
pub(crate) fn proportions(what: &str, parts: &[(&str, u64, &str)]) -> Markup {
    let whole: u64 = parts.iter().map(|(_, count, _)| count).sum();
    let told: Vec<_> = parts.iter().map(|(title, value, _)| format!("{} {title}", count(*value))).collect();
    let share = |value: u64| value as f64 * 100.0 / whole as f64;
    html! {
        svg.proportions viewBox="0 0 100 4" preserveAspectRatio="none" role="img"
            aria-label={ (what) ": " (told.join(", ")) } {
            @if whole > 0 {
                @for (at, (_, value, tone)) in parts.iter().enumerate() {
                    @let before: u64 = parts[..at].iter().map(|(_, value, _)| value).sum();
                    rect class=(tone) x=(format!("{:.2}", share(before))) y="0" width=(format!("{:.2}", share(*value))) height="4" {}
                }
            }
        }
    }
}

/// A fact beside its name.
pub(crate) fn fact(name: &str, value: impl Render) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_in_sight_and_whole_beside_it() {
        for (value, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "<span title=\"1,000\">1.00\u{202f}k</span>"),
            (12_408, "<span title=\"12,408\">12.4\u{202f}k</span>"),
            (999_499, "<span title=\"999,499\">999\u{202f}k</span>"),
            (999_500, "<span title=\"999,500\">1.00\u{202f}M</span>"),
            (9_994_999, "<span title=\"9,994,999\">9.99\u{202f}M</span>"),
            (u64::MAX, "<span title=\"18,446,744,073,709,551,615\">18446744\u{202f}T</span>"),
        ] {
            assert_eq!(short(value).into_string(), shown);
        }
        assert_eq!(bytes(512).into_string(), "<span title=\"512 bytes\">512\u{202f}bytes</span>");
    }

    #[test]
    fn a_moment_says_its_zone_and_no_moment_breaks_a_page() {
        let shown = time(0).into_string();
        assert!(shown.contains("datetime=\"1970-01-01T00:00:00Z\"") && shown.contains("00:00:00 UTC"));
        assert!(time(i64::MAX).into_string().contains("no known time"));
        assert!(time_of_milliseconds(i64::MIN).into_string().contains("no known time"));
    }

    #[test]
    fn what_is_shown_is_text() {
        assert_eq!(html! { (count(1)) "<b>" }.into_string(), "1&lt;b&gt;");
        assert_eq!(chip("good", "<i>").into_string(), "<span class=\"chip good\">&lt;i&gt;</span>");
    }
}
