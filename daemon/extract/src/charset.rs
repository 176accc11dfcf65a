//! From bytes to characters: byte-order mark, then UTF-16 without one, then valid UTF-8, then the charset that the
//! document declares, then a guess from the bytes' statistics.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};

use moat_contracts::TextFault;

use crate::ExtractError;

/// Bytes at the start in which a charset may be declared (the HTML standard says 1024).
const DECLARED_WITHIN: usize = 1024;
/// Bytes at the start from which UTF-16 is told apart from binary data.
const SAMPLE: usize = 64 * 1024;
/// One control or replacement character in so many is too many for a text.
const MAX_ODD_SHARE: usize = 20;

pub(crate) struct Decoded {
    /// Starts without a byte-order mark; may hold U+FFFD where the charset has no character.
    pub(crate) text: String,
    pub(crate) charset: &'static str,
    /// First place where bytes had no character.
    pub(crate) fault: Option<TextFault>,
}

/// Decodes a document. `declares`: whether its format can declare a charset (HTML, XML, source code).
pub(crate) fn decode(bytes: &[u8], declares: bool) -> Result<Decoded, ExtractError> {
    let (encoding, bytes) = choose(bytes, declares)?;
    let (text, damaged) = encoding.decode_without_bom_handling(bytes);
    let mut odd = 0;
    let mut total = 0;
    for c in text.chars() {
        match c {
            '\0' => return Err(ExtractError::Binary),
            '\t' | '\n' | '\r' | '\u{8}' | '\u{b}' | '\u{c}' | '\u{1b}' => {}
            // One that the document itself holds is a character like others.
            '\u{fffd}' if damaged => odd += 1,
            c if c.is_control() => odd += 1,
            _ => {}
        }
        total += 1;
    }
    if odd * MAX_ODD_SHARE > total {
        return Err(ExtractError::Binary);
    }
    let fault = damaged.then(|| {
        let end = text.find('\u{fffd}').unwrap_or(text.len());
        let line = 1 + text[..end].bytes().filter(|&byte| byte == b'\n').count() as u64;
        TextFault { line, what: format!("bytes that are no {}, replaced by U+FFFD", encoding.name()) }
    });
    Ok(Decoded { text: text.into_owned(), charset: encoding.name(), fault })
}

/// The charset, and the bytes after a byte-order mark.
fn choose(bytes: &[u8], declares: bool) -> Result<(&'static Encoding, &[u8]), ExtractError> {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return Ok((encoding, &bytes[length..]));
    }
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    if sample.contains(&0) {
        return utf_16(sample).map(|encoding| (encoding, bytes)).ok_or(ExtractError::Binary);
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        if let Some(encoding) = declared(bytes).filter(|_| declares)
            && encoding.decode_without_bom_handling_and_without_replacement(bytes).is_some()
        {
            return Ok((encoding, bytes));
        }
        return Ok((guess(bytes, error.valid_up_to()), bytes));
    }
    // Seven-bit Japanese is valid UTF-8 to the eye: only its escape sequences show it.
    let shifted = bytes.windows(3).any(|three| matches!(three, [0x1b, b'$', b'@' | b'B']));
    if shifted && ISO_2022_JP.decode_without_bom_handling_and_without_replacement(bytes).is_some() {
        return Ok((ISO_2022_JP, bytes));
    }
    Ok((UTF_8, bytes))
}

/// UTF-16 without a mark: zero bytes on one side of the pairs only, and characters that people write.
fn utf_16(sample: &[u8]) -> Option<&'static Encoding> {
    let zeros = |side: usize| sample.iter().skip(side).step_by(2).filter(|&&byte| byte == 0).count();
    let encoding = match (zeros(0), zeros(1)) {
        (0, 1..) => UTF_16LE,
        (1.., 0) => UTF_16BE,
        _ => return None,
    };
    // The sample may end within a character.
    let (text, _) = encoding.decode_without_bom_handling(&sample[..sample.len() & !1]);
    let written = |c: &char| {
        c.is_alphanumeric()
            || c.is_whitespace()
            || c.is_ascii_punctuation()
            || matches!(c, '\u{a0}'..='\u{ff}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}')
    };
    let (total, odd) = (text.chars().count(), text.chars().filter(|c| !written(c)).count());
    (odd * MAX_ODD_SHARE <= total).then_some(encoding)
}

/// The charset named after the first usable `charset=`, `encoding=` or `coding:` near the document's start: an HTML
/// meta element, an XML declaration, or an editor's comment in source code.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(DECLARED_WITHIN)].to_ascii_lowercase();
    (0..head.len()).find_map(|at| {
        let after = head[at..].strip_prefix(b"charset").or_else(|| head[at..].strip_prefix(b"coding"))?;
        let after = after.trim_ascii_start();
        let value = after.strip_prefix(b"=").or_else(|| after.strip_prefix(b":"))?.trim_ascii_start();
        let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
        let is_label = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let length = value.iter().take_while(|byte| is_label(byte)).count();
        // A declared UTF-16 is disproved by the declaration's being readable.
        Encoding::for_label(&value[..length]).filter(|found| *found != UTF_16LE && *found != UTF_16BE)
    })
}

/// A charset from statistics. Text that is UTF-8 but for a few bytes stays UTF-8: one broken byte in a long file
/// must not turn all its accents into something else.
fn guess(bytes: &[u8], valid_up_to: usize) -> &'static Encoding {
    let beyond_ascii = |text: &str| text.chars().filter(|c| !c.is_ascii()).count();
    let (mut good, mut bad) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += beyond_ascii(chunk.valid());
        bad += usize::from(!chunk.invalid().is_empty());
    }
    // A file that was cut within its last character has nothing else against it.
    let cut = bad == 1 && bytes.len() - valid_up_to < 4 && good > 0;
    if cut || good >= 10 * bad {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Deny)
}
