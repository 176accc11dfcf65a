//! Code rearranged so that its middle is learnt from both its sides (Bavarian et al., arXiv 2207.14255): each text, or each
//! stretch of one that fits in a row, is drawn by seed, record and place alone; where it is drawn, two places between
//! characters part it, and where the base knows both orders, a half comes in either.

use moat_contracts::{Digest, RecordId};
use moat_template::{BaseText, Infill, TemplateError};

/// Tokens of a row that a stretch leaves free: for the marks, and since parts have more tokens than the whole.
const SPARE: usize = 16;

/// What decides the drawing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawing {
    pub(crate) infill: Infill,
    pub(crate) share: f64,
    pub(crate) seed: u64,
    /// Tokens of a row.
    pub(crate) room: usize,
}

/// One stretch of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stretch {
    /// As it stands, and whether the text ends with it.
    Plain(String, bool),
    /// Rearranged, with the tokens of it.
    Rearranged(Vec<u32>),
}

impl Drawing {
    /// A text's stretches, in their order; neighbours that stay as they are make one.
    pub(crate) fn stretches(
        &self,
        base: &BaseText,
        record: RecordId,
        text: &str,
    ) -> Result<Vec<Stretch>, TemplateError> {
        let cuts = self.cuts(base, text)?;
        let mut found = Vec::new();
        let mut plain = 0;
        for (place, ends) in cuts.windows(2).enumerate() {
            let stretch = &text[ends[0]..ends[1]];
            let Some((parts, suffix_first)) = self.draw(record, place, stretch) else { continue };
            if plain < ends[0] {
                found.push(Stretch::Plain(text[plain..ends[0]].to_owned(), false));
            }
            found.push(Stretch::Rearranged(base.rearranged(&self.infill, parts, suffix_first)?));
            plain = ends[1];
        }
        if plain < text.len() || found.is_empty() {
            found.push(Stretch::Plain(text[plain..].to_owned(), true));
        }
        Ok(found)
    }

    /// Where stretches begin, then the text's end: between tokens, so that each fits in a row.
    fn cuts(&self, base: &BaseText, text: &str) -> Result<Vec<usize>, TemplateError> {
        let ranges = base.encode_ranges(text)?;
        let mut cuts = vec![0];
        if ranges.len() + SPARE > self.room {
            let each = self.room.saturating_sub(SPARE).max(SPARE);
            for (_, range) in ranges.iter().step_by(each).skip(1) {
                let cut = text.floor_char_boundary(range.start);
                if cuts.last().is_some_and(|last| *last < cut) {
                    cuts.push(cut);
                }
            }
        }
        if cuts.last() != Some(&text.len()) {
            cuts.push(text.len());
        }
        Ok(cuts)
    }

    /// Prefix, middle and suffix of a stretch that is drawn, and whether the suffix comes first.
    fn draw<'a>(&self, record: RecordId, place: usize, text: &'a str) -> Option<([&'a str; 3], bool)> {
        let place = (place as u64).to_le_bytes();
        let seed = self.seed.to_le_bytes();
        let drawn = Digest::of_parts(&[b"moat fim 1\0", &seed, record.0.as_bytes(), &place]);
        let (numbers, _) = drawn.as_bytes().as_chunks::<8>();
        let [share, first, second, order] = *numbers else { return None };
        // 53 bits, all that a number can tell apart.
        let share = (u64::from_le_bytes(share) >> 11) as f64 / (1_u64 << 53) as f64;
        if share >= self.share {
            return None;
        }
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
        let at = |number: [u8; 8]| places[(u64::from_le_bytes(number) % places.len() as u64) as usize];
        let (one, other) = (at(first), at(second));
        let (start, end) = (one.min(other), one.max(other));
        let suffix_first = self.infill.suffix_first && order[0] & 1 == 1;
        Some(([&text[..start], &text[start..end], &text[end..]], suffix_first))
    }
}
