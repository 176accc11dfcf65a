//! Finds words in a text whatever their case and accents.

use std::ops::Range;

use memchr::memmem;
use unicode_normalization::UnicodeNormalization;

/// Terms of one search at most.
const TERMS: usize = 16;
/// Characters of what is searched for at most.
const LENGTH: usize = 500;

/// Why a search cannot be made. Never repeats what was to be found.
#[derive(Debug, thiserror::Error)]
pub enum FinderError {
    /// More than can be looked for at once.
    #[error("at most {TERMS} words or phrases of {LENGTH} characters together are looked for at once")]
    TooMuch,
    /// A quotation mark without its partner.
    #[error("a quotation mark has no partner: put a phrase in two of them")]
    Open,
}

/// What is looked for: every term must stand in the text, in any order and also inside longer words. Case, accents and
/// forms that Unicode holds to be the same (NFKD) make no difference; white space matches white space of any sort.
#[derive(Clone, Debug)]
pub struct Finder {
    terms: Vec<memmem::Finder<'static>>,
}

impl Finder {
    /// Reads words with white space between; several in quotation marks are one phrase. No words at all match every text.
    ///
    /// # Errors
    /// [`FinderError`] where it is too much, or a phrase has no end.
    pub fn new(words: &str) -> Result<Self, FinderError> {
        if words.chars().count() > LENGTH {
            return Err(FinderError::TooMuch);
        }
        let parts: Vec<&str> = words.split('"').collect();
        if parts.len().is_multiple_of(2) {
            return Err(FinderError::Open);
        }
        let mut terms = Vec::new();
        for (number, part) in parts.into_iter().enumerate() {
            let phrases: Vec<&str> =
                if number % 2 == 1 { vec![part.trim()] } else { part.split_whitespace().collect() };
            terms.extend(phrases.into_iter().map(folded).filter(|term| !term.is_empty()));
        }
        if terms.len() > TERMS {
            return Err(FinderError::TooMuch);
        }
        Ok(Self { terms: terms.iter().map(|term| memmem::Finder::new(term).into_owned()).collect() })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Where the first place of each term is, by position, in bytes of the text; `None` where one is not there.
    pub fn find(&self, text: &str) -> Option<Vec<Range<usize>>> {
        let whole = folded(text);
        let starts = self.terms.iter().map(|term| Some((term.find(whole.as_bytes())?, term.needle().len())));
        let places = starts.collect::<Option<Vec<_>>>()?;
        let mut found: Vec<_> =
            places.iter().map(|(start, length)| original(text, *start, *length)).collect();
        found.sort_unstable_by_key(|range| (range.start, range.end));
        Some(found)
    }
}

/// One character as it is compared: nothing for an accent.
fn fold(letter: char) -> impl Iterator<Item = char> {
    let lower = letter.to_lowercase().nfkd().flat_map(char::to_lowercase);
    let sharp = if letter == 'ß' || letter == 'ẞ' { "ss" } else { "" };
    let plain = lower.filter(move |letter| sharp.is_empty() && !matches!(letter, '\u{300}'..='\u{36f}'));
    sharp.chars().chain(plain).map(|letter| if letter.is_whitespace() { ' ' } else { letter })
}

fn folded(text: &str) -> String {
    if text.is_ascii() {
        let fold = |letter: char| if letter.is_whitespace() { ' ' } else { letter.to_ascii_lowercase() };
        return text.chars().map(fold).collect();
    }
    text.chars().flat_map(fold).collect()
}

/// Where a place of the folded text is in the text itself.
fn original(text: &str, start: usize, length: usize) -> Range<usize> {
    let (mut at, mut from, mut to) = (0, None, text.len());
    for (place, letter) in text.char_indices() {
        let size: usize = fold(letter).map(char::len_utf8).sum();
        if from.is_none() && at + size > start {
            from = Some(place);
        }
        // An accent belongs to the letter before it.
        if at >= start + length && size > 0 {
            to = place;
            break;
        }
        at += size;
    }
    from.unwrap_or(text.len())..to
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Finder, folded};

    fn found<'a>(words: &str, text: &'a str) -> Option<Vec<&'a str>> {
        let places = Finder::new(words).unwrap().find(text)?;
        Some(places.into_iter().map(|place| &text[place]).collect())
    }

    #[test]
    fn words_are_found_whatever_their_case_and_accents() {
        for (words, text, expected) in [
            ("pump VALVE", "The valve, the Pump.", Some(vec!["valve", "Pump"])),
            ("\"the pump\"", "The valve of the\npump", Some(vec!["the\npump"])),
            ("\"pump the\"", "The valve of the pump", None),
            ("pump gauge", "The pump", None),
            ("muller", "Frau Müller kommt", Some(vec!["Müller"])),
            ("MÜLLER", "Frau Mu\u{308}ller kommt", Some(vec!["Mu\u{308}ller"])),
            ("strasse", "Die Straße 5", Some(vec!["Straße"])),
            ("straße", "DIE STRASSE", Some(vec!["STRASSE"])),
            ("file", "the ﬁle", Some(vec!["ﬁle"])),
            ("ﬁle", "the file", Some(vec!["file"])),
            ("總部", "本公司總部設在", Some(vec!["總部"])),
            ("İ", "istanbul", Some(vec!["i"])),
            ("caf\u{e9}", "CAFE\u{301}!", Some(vec!["CAFE\u{301}"])),
            ("", "anything", Some(vec![])),
            ("\"\"  ", "anything", Some(vec![])),
            ("<script>", "a <SCRIPT>b", Some(vec!["<SCRIPT>"])),
        ] {
            assert_eq!(found(words, text), expected, "{words} in {text}");
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused_without_its_words() {
        for wrong in ["a \"b", &"x".repeat(501), &"secret ".repeat(17)] {
            let error = Finder::new(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Finder::new("").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_place_is_where_the_words_are(before in "\\PC{0,8}", word in "[a-zäöüßéA-ZÄ]{1,6}", after in "\\PC{0,8}") {
            let text = format!("{before} {word} {after}");
            let places = Finder::new(&word).unwrap().find(&text).unwrap();
            prop_assert!(folded(&text[places[0].clone()]).contains(&folded(&word)));
        }

        #[test]
        fn nothing_panics(words in "\\PC{0,20}", text in "\\PC{0,40}") {
            if let Ok(finder) = Finder::new(&words) && let Some(places) = finder.find(&text) {
                for place in places {
                    prop_assert!(text.get(place).is_some());
                }
            }
        }
    }
}
