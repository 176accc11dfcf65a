//! One form for every text: NFC, `\n` line ends, nothing invisible.
//!
//! - `\r\n` and `\r` become `\n`; no other line end is made or removed, so line numbers stay the document's.
//! - Control characters other than tab and line feed go. Terminal colours (ESC `[` … letter) go as a whole, and a
//!   backspace takes the character before it, which undoes the overstriking of formatted manual pages.
//! - Soft hyphen, zero-width space, word joiner, byte-order marks, bidirectional controls, interlinear marks and tag
//!   characters go: they split words for a tokenizer, or hide text from a reader.
//! - The zero-width joiner and non-joiner stay between two characters beyond ASCII, where Indic and Persian words
//!   and emoji need them, and go elsewhere.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Longest parameter part of a terminal sequence that is taken for one.
const SEQUENCE: usize = 32;

/// The text in its one form. Doing it twice changes nothing.
pub(crate) fn clean(text: String) -> String {
    if text.bytes().all(|byte| matches!(byte, b'\n' | b'\t' | 0x20..=0x7e)) {
        return text;
    }
    // Composed first, so that characters which NFC turns into ASCII are judged as ASCII; and again, because what
    // goes may have stood between a letter and its accent.
    compose(visible(&compose(text)))
}

fn compose(text: String) -> String {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        IsNormalized::No | IsNormalized::Maybe => text.nfc().collect(),
    }
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    let mut joiner = None;
    while let Some(c) = rest.next() {
        let kept = match c {
            '\r' => {
                if rest.as_str().starts_with('\n') {
                    rest.next();
                }
                '\n'
            }
            '\u{1b}' => {
                if let Some(length) = sequence(rest.as_str()) {
                    rest = rest.as_str()[length..].chars();
                }
                continue;
            }
            '\u{8}' => {
                joiner = None;
                if !out.ends_with('\n') {
                    out.pop();
                }
                if out.ends_with(['\u{200c}', '\u{200d}']) {
                    out.pop();
                }
                continue;
            }
            '\u{200c}' | '\u{200d}' => {
                joiner = joiner.or(Some(c));
                continue;
            }
            '\n' | '\t' => c,
            c if c.is_control() || is_invisible(c) => continue,
            c => c,
        };
        if let Some(joiner) = joiner.take()
            && !kept.is_ascii()
            && out.chars().next_back().is_some_and(|before| !before.is_ascii())
        {
            out.push(joiner);
        }
        out.push(kept);
    }
    out
}

/// Bytes of the control sequence (ECMA-48, 5.4) that follows an ESC, if one does.
fn sequence(after_escape: &str) -> Option<usize> {
    let body = after_escape.strip_prefix('[')?;
    let parameters = body.bytes().take(SEQUENCE).take_while(|byte| matches!(byte, 0x20..=0x3f)).count();
    matches!(body.as_bytes().get(parameters), Some(0x40..=0x7e)).then_some(parameters + 2)
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn each_rule_of_the_page_holds() {
        for (from, to) in [
            ("a\r\nb\rc\n", "a\nb\nc\n"),
            ("cafe\u{301}", "café"),
            ("e\u{200b}\u{301}", "é"),
            ("so\u{ad}ft \u{202e}txt\u{202c}", "soft txt"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}plain", "red plain"),
            ("N\u{8}NA\u{8}A_\u{8}M\u{8}", "NA"),
            ("a\u{200d}b", "ab"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("👩\u{200d}💻", "👩\u{200d}💻"),
            ("न\u{200d}\u{200b}a", "नa"),
            ("page\u{c}\nnext", "page\nnext"),
            ("300 \u{212a}", "300 K"),
        ] {
            assert_eq!(clean(from.to_owned()), to, "{from:?}");
        }
    }
}
