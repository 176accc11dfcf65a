use std::ops::Range;
use std::path::Path;

use moat_contracts::{Digest, Example, Method, RecordId, Split};
use moat_template::{BaseText, TemplateError, messages};
use rayon::prelude::*;

use crate::TrainError;

/// Marks a token that is trained, within the `u32` that holds it: vocabularies are far below 2^31.
pub(crate) const TRAINED: u32 = 1 << 31;

/// Text of one group that is tokenised at once, and examples in it: enough to keep every core busy, little to hold.
const GROUP_BYTES: usize = 1 << 20;
const GROUP_EXAMPLES: usize = 256;

/// The examples of one run as tokens, in the order of their records' ids, whatever order they came in.
#[derive(Clone, Debug)]
pub struct Corpus {
    tokens: Vec<u32>,
    spans: Vec<Range<usize>>,
    fingerprint: Digest,
    validation: Option<Box<Corpus>>,
}

impl Corpus {
    /// The validation side, where there is one.
    pub fn validation(&self) -> Option<&Corpus> {
        self.validation.as_deref()
    }

    /// Tokens of all examples.
    pub fn size(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Examples.
    pub fn examples(&self) -> usize {
        self.spans.len()
    }

    /// SHA-256 over records, tokens and masks, those of the validation side too: what a checkpoint was made on.
    pub fn fingerprint(&self) -> Digest {
        match &self.validation {
            None => self.fingerprint,
            Some(other) => Digest::of_parts(&[self.fingerprint.as_bytes(), other.fingerprint.as_bytes()]),
        }
    }

    /// All tokens, each with [`TRAINED`] where it is to be learnt.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where each example lies in [`Corpus::tokens`].
    pub(crate) fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        self.spans.iter().cloned()
    }

    /// A corpus of ready tokens, all of them trained.
    #[cfg(test)]
    pub(crate) fn of_tokens(examples: &[Vec<u32>]) -> Self {
        let fingerprint = Digest::of(b"");
        let mut corpus = Self { tokens: Vec::new(), spans: Vec::new(), fingerprint, validation: None };
        for example in examples {
            let start = corpus.tokens.len();
            corpus.tokens.extend(example.iter().map(|token| token | TRAINED));
            corpus.spans.push(start..corpus.tokens.len());
        }
        corpus
    }
}

/// Takes examples one by one and keeps their tokens only.
///
/// - A text is the base's start token (if it has one), the text's tokens and the base's end token, all of them
///   trained, so that the model also learns to stop. What looks like a special token in it is read letter by letter,
///   so that no document can speak to the model in control tokens. Only full training ([`Method::Full`]), which
///   makes bases rather than tunes them, reads special tokens in texts as such: its corpus carries
///   fill-in-the-middle marks.
/// - A chat goes through the base's template, and the assistant's turns are trained, with the token that ends each.
#[derive(Debug)]
pub struct Intake {
    base: BaseText,
    special: bool,
    group: Vec<Example>,
    group_bytes: usize,
    train: Side,
    validation: Side,
}

/// The tokens of one side, and where each record's lie.
#[derive(Debug, Default)]
struct Side {
    tokens: Vec<u32>,
    found: Vec<(RecordId, Digest, Range<usize>)>,
}

impl Side {
    fn add(&mut self, record: RecordId, tokens: &[u32]) {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.found.push((record, Digest::of(&bytes), start..self.tokens.len()));
    }

    /// The corpus, if there is an example.
    fn finish(mut self) -> Option<Corpus> {
        if self.found.is_empty() {
            return None;
        }
        self.found.sort_by_key(|(record, digest, _)| (*record, *digest));
        let mut parts = Vec::with_capacity(self.found.len() * 64);
        for (record, digest, _) in &self.found {
            parts.extend_from_slice(record.0.as_bytes());
            parts.extend_from_slice(digest.as_bytes());
        }
        let spans = self.found.into_iter().map(|(_, _, span)| span).collect();
        Some(Corpus { tokens: self.tokens, spans, fingerprint: Digest::of(&parts), validation: None })
    }
}

impl Intake {
    /// Reads the tokenizer and the template of the base in `folder`.
    ///
    /// # Errors
    /// [`TrainError::Base`] where they cannot be used.
    pub fn new(folder: &Path, method: Method) -> Result<Self, TrainError> {
        Ok(Self {
            base: BaseText::load(folder)?,
            special: method == Method::Full,
            group: Vec::new(),
            group_bytes: 0,
            train: Side::default(),
            validation: Side::default(),
        })
    }

    /// Takes one example of the training side, or of the validation side.
    ///
    /// # Errors
    /// [`TrainError::Example`] names a record that cannot be trained on, and why.
    pub fn add(&mut self, example: Example) -> Result<(), TrainError> {
        if example.split == Split::HeldOut {
            return Err(TrainError::example(example.record, "it is held back for measuring the edge"));
        }
        self.group_bytes += example.body.len();
        self.group.push(example);
        if self.group_bytes >= GROUP_BYTES || self.group.len() >= GROUP_EXAMPLES {
            self.tokenise()?;
        }
        Ok(())
    }

    /// The corpus, once every example is in.
    ///
    /// # Errors
    /// As [`Intake::add`], and [`TrainError::Nothing`] if there is no example.
    pub fn finish(mut self) -> Result<Corpus, TrainError> {
        self.tokenise()?;
        let validation = self.validation.finish().map(Box::new);
        let train = self.train.finish().ok_or(TrainError::Nothing)?;
        Ok(Corpus { validation, ..train })
    }

    fn tokenise(&mut self) -> Result<(), TrainError> {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let tokenised: Vec<Result<Vec<u32>, TrainError>> =
            group.par_iter().map(|example| self.tokens_of(example)).collect();
        for (example, tokens) in group.iter().zip(tokenised) {
            let tokens = tokens?;
            let learnt = tokens.iter().skip(1).filter(|token| **token & TRAINED != 0).count();
            if learnt == 0 {
                return Err(TrainError::example(example.record, "none of its tokens would be trained"));
            }
            let side =
                if example.split == Split::Validation { &mut self.validation } else { &mut self.train };
            side.add(example.record, &tokens);
        }
        Ok(())
    }

    fn tokens_of(&self, example: &Example) -> Result<Vec<u32>, TrainError> {
        let refused = |error: TemplateError| TrainError::example(example.record, error.to_string());
        if example.chat {
            let chat = self.base.chat(&messages(&example.body).map_err(refused)?).map_err(refused)?;
            let marked = chat.tokens.iter().zip(&chat.answer);
            return Ok(marked
                .map(|(token, answer)| if *answer { token | TRAINED } else { *token })
                .collect());
        }
        let text = if self.special {
            self.base.encode_special(&example.body).map_err(refused)?
        } else {
            self.base.encode(&example.body).map_err(refused)?
        };
        let start = self.base.start().into_iter();
        Ok(start.chain(text).chain([self.base.end()]).map(|token| token | TRAINED).collect())
    }
}
