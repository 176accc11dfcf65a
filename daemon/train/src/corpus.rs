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
    facts: Facts,
}

/// What is known of a corpus beside its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Chats among the examples.
    pub(crate) chats: u64,
    /// Answers whose end is trained, and answers.
    pub(crate) ended: (u64, u64),
    /// Examples of which no token is trained, the first with its record.
    pub(crate) masked: (u64, Option<RecordId>),
    /// Chats that the template cannot write as they are asked, and why the first cannot.
    pub(crate) refused: (u64, Option<(RecordId, String)>),
    /// What is wrong with the template, of which there is a chat.
    pub(crate) template: Option<String>,
    /// The example that people are shown: the first chat, or else the first text.
    pub(crate) sample: Range<usize>,
    /// Its record.
    pub(crate) record: RecordId,
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

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> u64 {
        let own = size_of_val(&*self.tokens) + size_of_val(&*self.spans);
        own as u64 + self.validation.as_ref().map_or(0, |side| side.bytes())
    }

    /// What is known beside the tokens.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
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
        let facts = Facts {
            chats: 0,
            ended: (0, 0),
            masked: (0, None),
            refused: (0, None),
            template: None,
            sample: 0..examples.first().map_or(0, Vec::len),
            record: RecordId(fingerprint),
        };
        let mut corpus = Self { tokens: Vec::new(), spans: Vec::new(), fingerprint, validation: None, facts };
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
    found: Vec<Found>,
    ended: (u64, u64),
    masked: (u64, Option<RecordId>),
    refused: (u64, Option<(RecordId, String)>),
}

/// One example of a side.
#[derive(Debug)]
struct Found {
    record: RecordId,
    digest: Digest,
    span: Range<usize>,
    chat: bool,
}

impl Side {
    /// Takes the tokens of an example, and of a chat its answers and how many of them end with a token that is trained.
    fn add(&mut self, record: RecordId, tokens: &[u32], ended: Option<(u64, u64)>) {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        let (digest, span) = (Digest::of(&bytes), start..self.tokens.len());
        self.found.push(Found { record, digest, span, chat: ended.is_some() });
        let (ends, answers) = ended.unwrap_or_default();
        self.ended = (self.ended.0 + ends, self.ended.1 + answers);
        if !tokens.iter().skip(1).any(|token| *token & TRAINED != 0) {
            self.masked.0 += 1;
            self.masked.1.get_or_insert(record);
        }
    }

    /// Notes a chat that the template cannot write.
    fn refuse(&mut self, record: RecordId, reason: String) {
        self.refused.0 += 1;
        self.refused.1.get_or_insert((record, reason));
    }

    /// The corpus, if there is an example.
    fn finish(mut self) -> Result<Option<Corpus>, TrainError> {
        self.found.sort_by_key(|found| (found.record, found.digest));
        let Some(shown) = self.found.iter().find(|found| found.chat).or(self.found.first()) else {
            return match self.refused.1 {
                Some((record, reason)) => Err(TrainError::example(record, reason)),
                None => Ok(None),
            };
        };
        let facts = Facts {
            chats: self.found.iter().filter(|found| found.chat).count() as u64,
            ended: self.ended,
            masked: self.masked,
            refused: self.refused,
            template: None,
            sample: shown.span.clone(),
            record: shown.record,
        };
        let mut parts = Vec::with_capacity(self.found.len() * 64);
        for Found { record, digest, .. } in &self.found {
            parts.extend_from_slice(record.0.as_bytes());
            parts.extend_from_slice(digest.as_bytes());
        }
        let spans = self.found.into_iter().map(|found| found.span).collect();
        let fingerprint = Digest::of(&parts);
        Ok(Some(Corpus { tokens: self.tokens, spans, fingerprint, validation: None, facts }))
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
    /// [`TrainError::Example`] names a record that cannot be tokenised, and why. What the proofs find is told by them.
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
    /// As [`Intake::add`], and [`TrainError::Nothing`] if there is no example; a chat's own fault if there is no other.
    pub fn finish(mut self) -> Result<Corpus, TrainError> {
        self.tokenise()?;
        let validation = self.validation.finish()?.map(Box::new);
        let mut train = self.train.finish()?.ok_or(TrainError::Nothing)?;
        // A template that marks its answers itself is not held against its prompts, chat by chat.
        let checked = (train.facts.chats > 0).then(|| self.base.check_template().err()).flatten();
        let fault =
            checked.filter(|error| matches!(error, TemplateError::Prefix { .. } | TemplateError::NoStop));
        train.facts.template = fault.map(|error| error.to_string());
        Ok(Corpus { validation, ..train })
    }

    fn tokenise(&mut self) -> Result<(), TrainError> {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let tokenised: Vec<Result<Tokenised, TrainError>> =
            group.par_iter().map(|example| self.tokens_of(example)).collect();
        for (example, tokenised) in group.iter().zip(tokenised) {
            let side =
                if example.split == Split::Validation { &mut self.validation } else { &mut self.train };
            match tokenised? {
                Tokenised::Text(tokens) => side.add(example.record, &tokens, None),
                Tokenised::Chat(tokens, ended) => side.add(example.record, &tokens, Some(ended)),
                Tokenised::Refused(reason) => side.refuse(example.record, reason),
            }
        }
        Ok(())
    }

    fn tokens_of(&self, example: &Example) -> Result<Tokenised, TrainError> {
        let refused = |error: TemplateError| TrainError::example(example.record, error.to_string());
        if example.chat {
            let chat = match self.base.chat(&messages(&example.body).map_err(refused)?) {
                Ok(chat) => chat,
                // The template's fault, not the record's: told with the other proofs.
                Err(error @ (TemplateError::Prefix { .. } | TemplateError::NoStop)) => {
                    return Ok(Tokenised::Refused(error.to_string()));
                }
                Err(error) => return Err(refused(error)),
            };
            let marked = chat.tokens.iter().zip(&chat.answer);
            let tokens =
                marked.map(|(token, answer)| if *answer { token | TRAINED } else { *token }).collect();
            return Ok(Tokenised::Chat(tokens, ended(&chat.tokens, &chat.answer, self.base.stops())));
        }
        let text = if self.special {
            self.base.encode_special(&example.body).map_err(refused)?
        } else {
            self.base.encode(&example.body).map_err(refused)?
        };
        let start = self.base.start().into_iter();
        let all = start.chain(text).chain([self.base.end()]);
        Ok(Tokenised::Text(all.map(|token| token | TRAINED).collect()))
    }
}

/// An example as tokens.
enum Tokenised {
    Text(Vec<u32>),
    /// With the answers whose end is trained, and all answers.
    Chat(Vec<u32>, (u64, u64)),
    /// A chat that the template cannot write, and why.
    Refused(String),
}

/// Of the stretches of tokens to learn, how many end with one at which an answer stops, and how many there are.
fn ended(tokens: &[u32], answer: &[bool], stops: &[u32]) -> (u64, u64) {
    let last = |place: &usize| answer[*place] && !answer.get(place + 1).copied().unwrap_or(false);
    let ends: Vec<usize> = (0..tokens.len()).filter(last).collect();
    (ends.iter().filter(|place| stops.contains(&tokens[**place])).count() as u64, ends.len() as u64)
}
