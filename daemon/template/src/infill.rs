use crate::{BaseText, TemplateError};

/// The tokens by which a base was taught to fill in the middle (Bavarian et al., arXiv 2207.14255).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Infill {
    /// Stands before what comes before the middle.
    pub prefix: u32,
    /// Stands before what comes after it.
    pub suffix: u32,
    /// Stands before the middle.
    pub middle: u32,
    /// Ends the middle.
    pub end: u32,
    /// Whether the base knows the order in which the suffix comes first, too.
    pub suffix_first: bool,
}

/// What bases write: prefix, suffix, middle, the middle's end where it is not the text's, and whether the suffix may come
/// first. Qwen2.5-Coder, CodeGemma; StarCoder, Granite; SantaCoder; CodeLlama; DeepSeek-Coder.
const FORMS: [([&str; 3], Option<&str>, bool); 5] = [
    (["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"], None, true),
    (["<fim_prefix>", "<fim_suffix>", "<fim_middle>"], None, true),
    (["<fim-prefix>", "<fim-suffix>", "<fim-middle>"], None, true),
    (["\u{2581}<PRE>", "\u{2581}<SUF>", "\u{2581}<MID>"], Some("\u{2581}<EOT>"), true),
    (
        [
            "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
            "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
            "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
        ],
        None,
        false,
    ),
];

/// Letters of which one parts from what follows it in any tokenizer.
const ANCHORS: [&str; 4] = ["\n", ":", "a", "\u{263a}"];

impl BaseText {
    /// How the base fills in the middle, if it was taught to.
    pub fn infill(&self) -> Option<Infill> {
        FORMS.iter().find_map(|(names, end, suffix_first)| {
            let [prefix, suffix, middle] = names.map(|name| self.token(name));
            let (prefix, suffix, middle) = (prefix?, suffix?, middle?);
            let end = end.map_or(Some(self.end()), |end| self.token(end))?;
            Some(Infill { prefix, suffix, middle, end, suffix_first: *suffix_first })
        })
    }

    /// A text in three parts as the base is to learn it: all of it with the middle at the end, from the start token to the
    /// one that ends the middle. `suffix_first` puts the suffix before prefix and middle, which then stand together (the
    /// paper's second variant of SPM).
    ///
    /// # Errors
    /// [`TemplateError::Encode`].
    pub fn rearranged(
        &self,
        infill: &Infill,
        [prefix, middle, suffix]: [&str; 3],
        suffix_first: bool,
    ) -> Result<Vec<u32>, TemplateError> {
        let mut tokens: Vec<u32> = self.start().into_iter().chain([infill.prefix]).collect();
        if suffix_first {
            tokens.push(infill.suffix);
            tokens.extend(self.encode_inside(suffix)?);
            tokens.push(infill.middle);
            tokens.extend(self.encode_inside(prefix)?);
        } else {
            tokens.extend(self.encode_inside(prefix)?);
            tokens.push(infill.suffix);
            tokens.extend(self.encode_inside(suffix)?);
            tokens.push(infill.middle);
        }
        tokens.extend(self.encode_inside(middle)?);
        tokens.push(infill.end);
        Ok(tokens)
    }

    /// Tokens of a text as they stand within another: without the blank that some tokenizers put before every text.
    fn encode_inside(&self, text: &str) -> Result<Vec<u32>, TemplateError> {
        for anchor in ANCHORS {
            let ranges = self.encode_ranges(&format!("{anchor}{text}"))?;
            let inside = |end: usize| end > anchor.len();
            let first = ranges.iter().position(|(_, range)| inside(range.end)).unwrap_or(ranges.len());
            if ranges[first..].iter().all(|(_, range)| range.start >= anchor.len()) {
                return Ok(ranges[first..].iter().map(|(token, _)| *token).collect());
            }
        }
        self.encode(text)
    }
}
