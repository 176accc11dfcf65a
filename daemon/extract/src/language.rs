//! Which natural language a text is in.

/// Letters below which a guess is worth nothing.
const MIN_LETTERS: usize = 100;
/// Bytes that are looked at; more do not change the answer.
const SAMPLE: usize = 4 * 1024;

/// ISO 639-3 code of the text's language; `None` where the text is short or the guess unsure.
pub(crate) fn natural(text: &str) -> Option<String> {
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    if sample.chars().filter(|c| c.is_alphabetic()).take(MIN_LETTERS).count() < MIN_LETTERS {
        return None;
    }
    let guess = whatlang::detect(sample)?;
    guess.is_reliable().then(|| guess.lang().code().to_owned())
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn long_texts_have_a_language_and_short_ones_none() {
        let english = "The customer called again about the delivery that had not arrived, and we promised to send \
                       another one before the end of the week.";
        let german = "Der Kunde hat noch einmal wegen der Lieferung angerufen, die nicht angekommen ist, und wir \
                      haben versprochen, bis zum Ende der Woche eine neue zu schicken.";
        assert_eq!(natural(english).as_deref(), Some("eng"));
        assert_eq!(natural(german).as_deref(), Some("deu"));
        assert_eq!(natural("short"), None);
        assert_eq!(natural(&"0123 456 ".repeat(100)), None);
    }
}
