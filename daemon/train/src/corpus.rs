use std::ops::Range;
use std::path::Path;

use moat_contracts::{
    Digest, Example, Kind, LearntTurns, Method, Objective, Recipe, RecordId, Split, TrainRecipe,
};
use moat_template::{BaseText, Chat, TemplateError, messages, only_last, pair};
use rayon::prelude::*;

use crate::TrainError;
use crate::infill::{Drawing, Stretch};

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
    pairs: bool,
    validation: Option<Box<Corpus>>,
    facts: Facts,
}

/// What is known of a corpus beside its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Chats among the examples.
    pub(crate) chats: u64,
    /// Stretches of code whose middle comes last.
    pub(crate) rearranged: u64,
    /// Answers whose end is trained, and answers.
    pub(crate) ended: (u64, u64),
    /// Examples of which no token is trained, the first with its record.
    pub(crate) masked: (u64, Option<RecordId>),
    /// Chats that the template cannot write as they are asked, and why the first cannot.
    pub(crate) refused: (u64, Option<(RecordId, String)>),
    /// What is wrong with the template, of which there is a chat.
    pub(crate) template: Option<String>,
    /// The example that people are shown: the first chat or rearranged code, or else the first text.
    pub(crate) sample: Range<usize>,
    /// The other answer, where it is a preference.
    pub(crate) rejected: Option<Range<usize>>,
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

    /// Examples; a preference is one.
    pub fn examples(&self) -> usize {
        self.spans.len() / if self.pairs { 2 } else { 1 }
    }

    /// Whether each two spans are the chosen and the rejected answer of a preference, one behind the other.
    pub(crate) fn is_pairs(&self) -> bool {
        self.pairs
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
            rearranged: 0,
            ended: (0, 0),
            masked: (0, None),
            refused: (0, None),
            template: None,
            sample: 0..examples.first().map_or(0, Vec::len),
            rejected: None,
            record: RecordId(fingerprint),
        };
        let (tokens, spans) = (Vec::new(), Vec::new());
        let mut corpus = Self { tokens, spans, fingerprint, pairs: false, validation: None, facts };
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
/// - A chat goes through the base's template, and the assistant's turns are trained, with the token that ends each: all of
///   them or the last, as the recipe says, but none that says of itself that it is not to be.
/// - A share of the code is rearranged where the recipe asks for it; a long text is several examples then.
/// - A preference is two examples, its prompt with each answer; only for an objective that compares them.
#[derive(Debug)]
pub struct Intake {
    base: BaseText,
    special: bool,
    recipe: TrainRecipe,
    drawing: Option<Drawing>,
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
    /// Where the second answer begins, of a preference.
    second: Option<usize>,
    chat: bool,
    /// Whether it is code whose middle comes last.
    rearranged: bool,
}

impl Side {
    /// Takes the tokens of an example, and of a chat its answers and how many of them end with a token that is trained.
    fn add(&mut self, record: RecordId, tokens: &[u32], ended: Option<(u64, u64)>) {
        self.add_whole(record, &[tokens], ended);
    }

    /// The same of a stretch of code.
    fn add_code(&mut self, record: RecordId, tokens: &[u32], rearranged: bool) {
        self.add(record, tokens, None);
        if let Some(found) = self.found.last_mut() {
            found.rearranged = rearranged;
        }
    }

    /// The same of an example in one part or two.
    fn add_whole(&mut self, record: RecordId, parts: &[&[u32]], ended: Option<(u64, u64)>) {
        let start = self.tokens.len();
        parts.iter().for_each(|part| self.tokens.extend_from_slice(part));
        let tokens = &self.tokens[start..];
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let (digest, span) = (Digest::of(&bytes), start..self.tokens.len());
        let second = (parts.len() > 1).then(|| start + parts[0].len());
        self.found.push(Found { record, digest, span, second, chat: ended.is_some(), rearranged: false });
        let (ends, answers) = ended.unwrap_or_default();
        self.ended = (self.ended.0 + ends, self.ended.1 + answers);
        let learnt = |part: &&[u32]| part.iter().skip(1).any(|token| *token & TRAINED != 0);
        if !parts.iter().all(learnt) {
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
        let special = self.found.iter().find(|found| found.chat || found.rearranged);
        let Some(shown) = special.or(self.found.first()) else {
            return match self.refused.1 {
                Some((record, reason)) => Err(TrainError::example(record, reason)),
                None => Ok(None),
            };
        };
        let facts = Facts {
            chats: self.found.iter().filter(|found| found.chat).count() as u64,
            rearranged: self.found.iter().filter(|found| found.rearranged).count() as u64,
            ended: self.ended,
            masked: self.masked,
            refused: self.refused,
            template: None,
            sample: shown.span.start..shown.second.unwrap_or(shown.span.end),
            rejected: shown.second.map(|second| second..shown.span.end),
            record: shown.record,
        };
        let mut parts = Vec::with_capacity(self.found.len() * 64);
        for Found { record, digest, .. } in &self.found {
            parts.extend_from_slice(record.0.as_bytes());
            parts.extend_from_slice(digest.as_bytes());
        }
        let pairs = self.found.iter().any(|found| found.second.is_some());
        let spans = self.found.into_iter().flat_map(|Found { span, second, .. }| {
            let first = span.start..second.unwrap_or(span.end);
            [Some(first), second.map(|second| second..span.end)].into_iter().flatten()
        });
        let (spans, fingerprint) = (spans.collect(), Digest::of(&parts));
        Ok(Some(Corpus { tokens: self.tokens, spans, fingerprint, pairs, validation: None, facts }))
    }
}

impl Intake {
    /// Reads the tokenizer and the template of the base in `folder`.
    ///
    /// # Errors
    /// [`TrainError::Base`] where they cannot be used.
    pub fn new(folder: &Path, method: Method) -> Result<Self, TrainError> {
        let train = TrainRecipe { method, ..TrainRecipe::default() };
        Self::for_recipe(folder, &Recipe { train, ..Recipe::default() })
    }

    /// The same for what a recipe learns, and as it says.
    ///
    /// # Errors
    /// [`TrainError::Base`] where they cannot be used.
    pub fn for_recipe(folder: &Path, recipe: &Recipe) -> Result<Self, TrainError> {
        let base = BaseText::load(folder)?;
        let (share, room) = (recipe.train.fim, recipe.train.sequence_length);
        let drawing = |infill| Drawing { infill, share, seed: recipe.seed, room };
        let drawing =
            (share > 0.0).then(|| base.infill().map(drawing).ok_or(TrainError::Infill)).transpose()?;
        Ok(Self {
            drawing,
            base,
            special: recipe.train.method == Method::Full,
            recipe: recipe.train.clone(),
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
                Tokenised::Code(parts) => {
                    parts.iter().for_each(|(tokens, drawn)| side.add_code(example.record, tokens, *drawn));
                }
                Tokenised::Chat(tokens, ended) => side.add(example.record, &tokens, Some(ended)),
                Tokenised::Pair(answers, ended) => {
                    side.add_whole(example.record, &[&answers[0], &answers[1]], ended);
                }
                Tokenised::Refused(reason) => side.refuse(example.record, reason),
            }
        }
        Ok(())
    }

    fn tokens_of(&self, example: &Example) -> Result<Tokenised, TrainError> {
        let refused = |error: TemplateError| TrainError::example(example.record, error.to_string());
        let pairs = self.recipe.objective == Objective::Dpo;
        if pairs != (example.kind == Kind::Preference) {
            let reason = if pairs { "the run learns from preferences alone" } else { "it is a preference" };
            return Err(TrainError::example(example.record, reason));
        }
        if pairs {
            let pair = pair(&example.body).map_err(refused)?;
            let chats = match self.base.answers(&pair) {
                Ok(chats) => chats,
                Err(error @ (TemplateError::Prefix { .. } | TemplateError::NoStop)) => {
                    return Ok(Tokenised::Refused(error.to_string()));
                }
                Err(error) => return Err(refused(error)),
            };
            let ends = chats.each_ref().map(|chat| ended(&chat.tokens, &chat.answer, self.base.stops()));
            let chat = matches!(pair, moat_template::Pair::Chat { .. });
            let ended = chat.then(|| (ends[0].0 + ends[1].0, ends[0].1 + ends[1].1));
            return Ok(Tokenised::Pair(Box::new(chats.map(|chat| marked(&chat))), ended));
        }
        if example.kind == Kind::Chat {
            let mut messages = messages(&example.body).map_err(refused)?;
            if self.recipe.turns == LearntTurns::Last {
                only_last(&mut messages);
            }
            let chat = match self.base.chat(&messages) {
                Ok(chat) => chat,
                // The template's fault, not the record's: told with the other proofs.
                Err(error @ (TemplateError::Prefix { .. } | TemplateError::NoStop)) => {
                    return Ok(Tokenised::Refused(error.to_string()));
                }
                Err(error) => return Err(refused(error)),
            };
            return Ok(Tokenised::Chat(marked(&chat), ended(&chat.tokens, &chat.answer, self.base.stops())));
        }
        let text = if self.special {
            self.base.encode_special(&example.body).map_err(refused)?
        } else {
            self.base.encode(&example.body).map_err(refused)?
        };
        // What is measured is as it was written, and so is what is chosen by.
        let drawing = self.drawing.filter(|_| example.kind == Kind::Code && example.split == Split::Train);
        // A text that was rearranged already would be twice.
        let drawing = drawing
            .filter(|_| !self.special || self.base.encode(&example.body).is_ok_and(|plain| plain == text));
        if let Some(drawing) = drawing {
            let stretches = drawing.stretches(&self.base, example.record, &example.body).map_err(refused)?;
            let tokens = stretches.into_iter().map(|stretch| match stretch {
                Stretch::Rearranged(tokens) => Ok((trained(tokens), true)),
                Stretch::Plain(text, ends) => {
                    let start = self.base.start().into_iter();
                    let end = ends.then_some(self.base.end());
                    let tokens = start.chain(self.base.encode(&text)?).chain(end);
                    Ok((trained(tokens), false))
                }
            });
            return Ok(Tokenised::Code(tokens.collect::<Result<_, TemplateError>>().map_err(refused)?));
        }
        let start = self.base.start().into_iter();
        Ok(Tokenised::Text(trained(start.chain(text).chain([self.base.end()]))))
    }
}

/// An example as tokens.
enum Tokenised {
    Text(Vec<u32>),
    /// Code in stretches, each with whether it was rearranged.
    Code(Vec<(Vec<u32>, bool)>),
    /// With the answers whose end is trained, and all answers.
    Chat(Vec<u32>, (u64, u64)),
    /// The chosen and the rejected answer of a preference, each after its prompt; of chats with what is told of a chat.
    Pair(Box<[Vec<u32>; 2]>, Option<(u64, u64)>),
    /// A chat that the template cannot write, and why.
    Refused(String),
}

/// Tokens that are all learnt.
fn trained(tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
    tokens.into_iter().map(|token| token | TRAINED).collect()
}

/// A chat's tokens, with [`TRAINED`] where the model is to write them.
fn marked(chat: &Chat) -> Vec<u32> {
    let marked = chat.tokens.iter().zip(&chat.answer);
    marked.map(|(token, answer)| if *answer { token | TRAINED } else { *token }).collect()
}

/// Of the stretches of tokens to learn, how many end with one at which an answer stops, and how many there are.
fn ended(tokens: &[u32], answer: &[bool], stops: &[u32]) -> (u64, u64) {
    let last = |place: &usize| answer[*place] && !answer.get(place + 1).copied().unwrap_or(false);
    let ends: Vec<usize> = (0..tokens.len()).filter(last).collect();
    (ends.iter().filter(|place| stops.contains(&tokens[**place])).count() as u64, ends.len() as u64)
}
