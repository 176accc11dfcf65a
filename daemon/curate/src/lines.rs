use crate::table::Table;
use crate::words::mix;

/// A line of at most so many characters is short (FineWeb).
const SHORT: usize = 30;

/// What lines, paragraphs and characters of a text are like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// All characters, line breaks too.
    pub characters: u64,
    /// Letters and digits.
    pub alphanumeric: u64,
    /// White space.
    pub space: u64,
    /// Replacement characters and control characters.
    pub broken: u64,
    /// `#` characters.
    pub hashes: u64,
    /// Ellipses, as one character or as three dots.
    pub ellipses: u64,
    /// Lines that are not blank.
    pub lines: u64,
    /// Line breaks.
    pub breaks: u64,
    /// Lines that begin with a bullet.
    pub bulleted: u64,
    /// Lines that end with an ellipsis.
    pub elliptic: u64,
    /// Lines that end with a sentence's punctuation.
    pub punctuated: u64,
    /// Short lines.
    pub short: u64,
    /// Characters of the longest line.
    pub longest: u64,
    /// Lines that stood before.
    pub duplicate_lines: u64,
    /// Characters in them.
    pub duplicate_line_characters: u64,
    /// Paragraphs: runs of lines that are not blank.
    pub paragraphs: u64,
    /// Paragraphs that stood before.
    pub duplicate_paragraphs: u64,
    /// Characters in them.
    pub duplicate_paragraph_characters: u64,
    /// Times that the customary filler text begins.
    pub filler: u64,
}

/// Memory that is kept from text to text.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Table,
    paragraphs: Table,
}

#[derive(Default)]
struct Paragraph {
    hash: u64,
    characters: u64,
    worded: bool,
}

/// Measures a text in one walk over its lines.
pub(crate) fn measure(text: &str, scratch: &mut Scratch) -> Lines {
    let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    scratch.lines.clear(breaks + 1);
    scratch.paragraphs.clear(breaks + 1);
    let mut found = Lines { breaks: breaks as u64, characters: breaks as u64, ..Lines::default() };
    found.space = found.characters;
    let mut paragraph = Paragraph::default();
    for line in text.split('\n') {
        let (characters, alphanumeric) = found.add_characters(line);
        let line = line.trim();
        if line.is_empty() {
            found.end_paragraph(&mut paragraph, &mut scratch.paragraphs);
            continue;
        }
        found.lines += 1;
        found.longest = found.longest.max(characters);
        found.short += u64::from(characters as usize <= SHORT);
        found.bulleted += u64::from(line.starts_with(['•', '-', '*', '‣', '▪', '●', '◦', '–', '·', '+']));
        found.elliptic += u64::from(line.ends_with("...") || line.ends_with('…'));
        found.punctuated += u64::from(ends_sentence(line));
        let hash = hash_bytes(line.as_bytes());
        // Rules of dashes and closing braces say nothing about repetition.
        if alphanumeric > 0 && scratch.lines.count(hash).1 > 0 {
            found.duplicate_lines += 1;
            found.duplicate_line_characters += characters;
        }
        paragraph.hash = mix(paragraph.hash.rotate_left(17) ^ hash);
        paragraph.characters += characters;
        paragraph.worded |= alphanumeric > 0;
    }
    found.end_paragraph(&mut paragraph, &mut scratch.paragraphs);
    found.ellipses = memchr::memmem::find_iter(text.as_bytes(), "…").count() as u64
        + memchr::memmem::find_iter(text.as_bytes(), "...").count() as u64;
    found.filler = ["lorem ipsum", "Lorem ipsum", "Lorem Ipsum", "LOREM IPSUM"]
        .iter()
        .map(|filler| memchr::memmem::find_iter(text.as_bytes(), filler).count() as u64)
        .sum();
    found
}

impl Lines {
    /// Counts a line's characters; gives how many, and how many of them are letters or digits.
    fn add_characters(&mut self, line: &str) -> (u64, u64) {
        let (mut characters, mut alphanumeric, mut space, mut broken) = (0u64, 0u64, 0u64, 0u64);
        if line.is_ascii() {
            let count = |holds: fn(u8) -> bool| line.bytes().map(|byte| u64::from(holds(byte))).sum::<u64>();
            characters = line.len() as u64;
            alphanumeric = count(|byte| byte.is_ascii_alphanumeric());
            space = count(|byte| byte == b' ' || (0x09..=0x0D).contains(&byte));
            broken = count(|byte| (byte < b' ' && !(0x09..=0x0D).contains(&byte)) || byte == 0x7F);
        } else {
            for character in line.chars() {
                characters += 1;
                alphanumeric += u64::from(character.is_alphanumeric());
                let is_space = character.is_whitespace();
                space += u64::from(is_space);
                broken += u64::from(character == '\u{FFFD}' || (character.is_control() && !is_space));
            }
        }
        self.hashes += memchr::memchr_iter(b'#', line.as_bytes()).count() as u64;
        self.characters += characters;
        self.alphanumeric += alphanumeric;
        self.space += space;
        self.broken += broken;
        (characters, alphanumeric)
    }

    fn end_paragraph(&mut self, paragraph: &mut Paragraph, table: &mut Table) {
        let Paragraph { hash, characters, worded } = std::mem::take(paragraph);
        if characters == 0 {
            return;
        }
        self.paragraphs += 1;
        if worded && table.count(hash).1 > 0 {
            self.duplicate_paragraphs += 1;
            self.duplicate_paragraph_characters += characters;
        }
    }
}

/// Whether a line ends as sentences do, in any script, a closing quote or bracket left aside.
fn ends_sentence(line: &str) -> bool {
    let end = line.trim_end_matches(['"', '\'', '“', '”', '’', '»', ')', ']', '」', '』', '）', '*', '_']);
    end.ends_with([
        '.', '!', '?', ':', ';', '…', '。', '！', '？', '：', '；', '।', '؟', '۔', '։', '።', '\u{104B}', '។',
    ])
}

/// A 64-bit hash of bytes, eight at a time.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash ^ u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::{Lines, Scratch, measure};

    fn of(text: &str) -> Lines {
        measure(text, &mut Scratch::default())
    }

    #[test]
    fn lines_and_characters_are_counted_as_a_person_would() {
        let found = of("# Head\n\n- one…\n- two...\nA sentence ends.\nEr sagte: „Grüße!“\n\u{FFFD}\u{1}x\n");
        assert_eq!((found.lines, found.breaks, found.paragraphs), (6, 7, 2));
        assert_eq!((found.bulleted, found.elliptic, found.hashes, found.ellipses), (2, 2, 1, 2));
        assert_eq!((found.broken, found.short, found.longest), (2, 6, 18));
        assert_eq!(found.characters, 7 + 6 + 6 + 8 + 16 + 18 + 3);
    }

    #[test]
    fn what_stood_before_counts_and_lines_without_words_do_not() {
        let found = of("one two\n---\n\nthree\n---\n\none two\n---\n\none two");
        assert_eq!((found.duplicate_lines, found.duplicate_line_characters), (2, 14));
        assert_eq!((found.paragraphs, found.duplicate_paragraphs), (4, 1));
        assert_eq!(found.duplicate_paragraph_characters, 10);
    }

    #[test]
    fn sentences_end_in_many_scripts() {
        let text = "He left.\nShe said \"no.\"\n彼は去った。\nक्या हुआ।\nno end";
        assert_eq!((of(text).punctuated, of(text).lines), (4, 5));
    }
}
