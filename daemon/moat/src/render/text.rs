//! Numbers, sizes, times and foreign text, made readable.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A whole number with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count with its noun: `1 record`, `2 records`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Bytes to three digits: `512 B`, `4.50 KiB`, `16.0 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    #[allow(clippy::cast_precision_loss)]
    let mut size = number as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB"] {
        if size < 999.5 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{} {unit}", three_digits(size))
}

/// Parameters to three digits: `12.3 M`, `7.61 B`.
pub(crate) fn parameters(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    #[allow(clippy::cast_precision_loss)]
    let mut size = number as f64 / 1e3;
    let mut unit = "K";
    for larger in ["M", "B", "T"] {
        if size < 999.5 {
            break;
        }
        size /= 1e3;
        unit = larger;
    }
    format!("{} {unit}", three_digits(size))
}

fn three_digits(size: f64) -> String {
    let places = if size < 9.995 {
        2
    } else if size < 99.95 {
        1
    } else {
        0
    };
    format!("{size:.places$}")
}

/// Whole seconds in the two largest units: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (large, size, small, rest) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => ("min", seconds / 60, "s", seconds % 60),
        3600..86_400 => ("h", seconds / 3600, "min", seconds % 3600 / 60),
        _ => ("d", seconds / 86_400, "h", seconds % 86_400 / 3600),
    };
    if rest == 0 { format!("{size} {large}") } else { format!("{size} {large} {rest} {small}") }
}

/// A measure with at most four places, none that say nothing: `0.9131`, `12`, `1.5`.
pub(crate) fn measure(value: f64) -> String {
    let text = format!("{value:.4}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// A number with so many places, and no sign before a zero.
pub(crate) fn fixed(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|letter| matches!(letter, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

/// `3 EMAIL, 1 PHONE`: the largest first.
pub(crate) fn tally(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().filter(|(_, number)| **number > 0).collect();
    sorted.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let words: Vec<_> =
        sorted.into_iter().map(|(name, number)| format!("{} {}", count(*number), clean(name))).collect();
    words.join(", ")
}

/// Foreign text that can do nothing to a terminal: control characters, line breaks too, become visible escapes.
pub(crate) fn clean(text: &str) -> String {
    escaped(text, |_| false)
}

/// [`clean`] for text of several lines: line breaks and tabs stay.
pub(crate) fn clean_lines(text: &str) -> String {
    escaped(text, |letter| matches!(letter, '\n' | '\t'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for letter in text.chars() {
        // Marks that turn the direction of writing can make a path look like another one.
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if !stays(letter) && (letter.is_control() || turns) {
            // Writing to a String cannot fail.
            let _ = write!(cleaned, "{}", letter.escape_default());
        } else {
            cleaned.push(letter);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::{bytes, clean, clean_lines, count, duration, fixed, measure, parameters};

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 1023, 1024, 10_235, 1 << 24, 1_048_575, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "10.0 KiB", "16.0 MiB", "1.00 MiB", "16384 PiB"]);
        assert_eq!(
            [999, 7_615_616, 999_999, 70_553_706_496].map(parameters),
            ["999", "7.62 M", "1.00 M", "70.6 B"]
        );
        let times = [0, 59, 60, 200, 7500, 86_400, 360_000].map(duration);
        assert_eq!(times, ["0 s", "59 s", "1 min", "3 min 20 s", "2 h 5 min", "1 d", "4 d 4 h"]);
        assert_eq!([-0.0001, -0.0101, 1.0].map(|value| fixed(value, 2)), ["0.00", "-0.01", "1.00"]);
        assert_eq!([0.913_14, 12.0, 1.5, -0.000_01].map(measure), ["0.9131", "12", "1.5", "0"]);
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(clean("a\x1b[31mb\r\n\u{9b}c\u{202e}d"), "a\\u{1b}[31mb\\r\\n\\u{9b}c\\u{202e}d");
        assert_eq!(clean_lines("ä\tb\n\x07"), "ä\tb\n\\u{7}");
    }
}
