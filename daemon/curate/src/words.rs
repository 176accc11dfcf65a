use unicode_segmentation::UnicodeSegmentation;

/// The words of a text by Unicode's segmentation (UAX #29), as hashes: what all counting works on.
#[derive(Default)]
pub struct Words {
    /// One hash for each word, of its lowercase form.
    pub hashes: Vec<u64>,
    /// Characters of each word.
    pub lengths: Vec<u32>,
    /// Words that hold a letter.
    pub alphabetic: usize,
    /// Words of scripts that put no spaces between words; each of their characters counts as a word.
    pub unspaced: usize,
    /// Characters of all words.
    pub characters: u64,
}

const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const JOINER: u8 = 4;
const SPACE: u8 = 8;
/// First byte of a letter from U+00C0 to U+027F.
const LATIN: u8 = 16;
const CONTINUATION: u8 = 32;
/// Anything that only the full segmentation decides.
const OTHER: u8 = 64;
const WORD: u8 = LETTER | DIGIT | JOINER | LATIN;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            b'_' => JOINER,
            b' ' | b'\t' | b'\n' | b'\r' => SPACE,
            0xC3..=0xC9 => LATIN,
            0x80..=0xBF => CONTINUATION,
            0xC0..=0xFF => OTHER,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

impl Words {
    /// Reads a text anew; what was held before is forgotten, its memory kept.
    pub fn read(&mut self, text: &str) {
        self.hashes.clear();
        self.lengths.clear();
        (self.alphabetic, self.unspaced, self.characters) = (0, 0, 0);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if CLASSES[usize::from(bytes[at])] == SPACE {
                at += 1;
                continue;
            }
            // A space always parts words, so each chunk can be read by itself.
            let start = at;
            let mut classes = 0;
            while at < bytes.len() {
                let class = CLASSES[usize::from(bytes[at])];
                if class == SPACE {
                    break;
                }
                classes |= class;
                // U+00D7 and U+00F7 are the two signs among the letters.
                if class == LATIN && bytes[at] == 0xC3 && matches!(bytes[at + 1], 0x97 | 0xB7) {
                    classes |= OTHER;
                }
                at += 1;
            }
            if classes & OTHER != 0 {
                text[start..at].unicode_words().for_each(|word| self.push_any(word));
            } else if classes & WORD != 0 {
                self.read_latin(&text[start..at]);
            }
        }
    }

    /// How many words there are.
    pub const fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The rules of UAX #29 for a chunk of ASCII and Latin letters without spaces.
    fn read_latin(&mut self, chunk: &str) {
        let bytes = chunk.as_bytes();
        let class = |at: usize| bytes.get(at).map_or(0, |&byte| CLASSES[usize::from(byte)]);
        let mut at = 0;
        while at < bytes.len() {
            if class(at) & WORD == 0 {
                at += 1;
                continue;
            }
            let start = at;
            let mut seen = 0;
            let mut last = 0;
            let mut hash = SEED;
            while at < bytes.len() {
                let now = class(at);
                if now & (WORD | CONTINUATION) != 0 {
                    seen |= now;
                    last = if now == CONTINUATION { LATIN } else { now };
                } else {
                    let next = class(at + 1);
                    let letters = last & (LETTER | LATIN) != 0
                        && next & (LETTER | LATIN) != 0
                        && matches!(bytes[at], b'.' | b'\'' | b':');
                    let digits =
                        last == DIGIT && next == DIGIT && matches!(bytes[at], b'.' | b'\'' | b',' | b';');
                    if !letters && !digits {
                        break;
                    }
                }
                hash = step(hash, bytes[at].to_ascii_lowercase());
                at += 1;
            }
            if seen & LATIN != 0 {
                self.push_any(&chunk[start..at]);
            } else if seen & (LETTER | DIGIT) != 0 {
                let length = at - start;
                self.push(finish(hash), length, seen & LETTER != 0);
            }
        }
    }

    fn push(&mut self, hash: u64, characters: usize, alphabetic: bool) {
        self.hashes.push(hash);
        self.lengths.push(u32::try_from(characters).unwrap_or(u32::MAX));
        self.alphabetic += usize::from(alphabetic);
        self.characters += characters as u64;
    }

    fn push_any(&mut self, word: &str) {
        let characters = word.chars().count();
        self.push(hash_word(word), characters, word.chars().any(char::is_alphabetic));
        self.unspaced += usize::from(word.chars().next().is_some_and(is_unspaced));
    }
}

const SEED: u64 = 0xCBF2_9CE4_8422_2325;

/// One step of FNV-1a, 64 bits.
const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01B3)
}

const fn finish(hash: u64) -> u64 {
    mix(hash)
}

/// Spreads a value over all 64 bits (the finaliser of SplitMix64).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The hash under which a word stands in [`Words::hashes`]: of its lowercase form.
pub(crate) fn hash_word(word: &str) -> u64 {
    let mut buffer = [0; 4];
    let mut hash = SEED;
    for character in word.chars() {
        if character.is_ascii() {
            hash = step(hash, character.to_ascii_lowercase() as u8);
        } else {
            for lower in character.to_lowercase() {
                hash = lower.encode_utf8(&mut buffer).bytes().fold(hash, step);
            }
        }
    }
    finish(hash)
}

/// Scripts whose words the standard segmentation cannot tell apart: Thai, Lao, Myanmar, Khmer, Tai, kana, Han and
/// its extensions.
const fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{1950}'..='\u{19DF}'
        | '\u{1A20}'..='\u{1AAF}' | '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{A9E0}'..='\u{A9FF}' | '\u{AA60}'..='\u{AADF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FF9F}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_segmentation::UnicodeSegmentation;

    use super::{Words, hash_word};

    fn agrees(text: &str) {
        let mut words = Words::default();
        words.read(text);
        // The standard joins a combining mark to a space before it; here a space always parts.
        let chunks = text.split([' ', '\t', '\n', '\r']);
        let expected: Vec<&str> = chunks.flat_map(UnicodeSegmentation::unicode_words).collect();
        let hashes: Vec<u64> = expected.iter().map(|word| hash_word(word)).collect();
        assert_eq!(words.hashes, hashes, "{text:?} {expected:?}");
        let lengths: Vec<u32> = expected.iter().map(|word| word.chars().count() as u32).collect();
        assert_eq!(words.lengths, lengths);
        let alphabetic = expected.iter().filter(|word| word.chars().any(char::is_alphabetic)).count();
        assert_eq!(words.alphabetic, alphabetic);
    }

    proptest! {
        #[test]
        fn the_short_way_finds_the_words_of_the_standard(text in "[a-cA1-2_.,:;'\" \n()äßÉ×÷ñ-]{0,40}") {
            agrees(&text);
        }

        #[test]
        fn any_text_has_the_words_of_the_standard(text in any::<String>()) {
            agrees(&text);
        }
    }

    #[test]
    fn case_does_not_count_and_scripts_without_spaces_are_noticed() {
        let mut words = Words::default();
        words.read("Straße STRASSE straße");
        assert_eq!(words.hashes[0], words.hashes[2]);
        assert_ne!(words.hashes[0], words.hashes[1]);
        words.read("本社は東京です。");
        assert_eq!((words.len(), words.unspaced), (7, 7));
        words.read("the office is in Berlin");
        assert_eq!((words.len(), words.unspaced, words.characters), (5, 0, 19));
    }
}
