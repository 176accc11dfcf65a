use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use moat_contracts::Digest;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::{Template, TemplateError};

/// How one base reads and writes text.
#[derive(Debug)]
pub struct BaseText {
    /// Reads special tokens as what they are; for rendered chats.
    marked: Tokenizer,
    /// Reads special tokens in a text as ordinary letters; for everything that people wrote.
    plain: Tokenizer,
    hash: Digest,
    start: Option<u32>,
    end: u32,
    stops: Vec<u32>,
    special: Vec<String>,
    template: Option<Template>,
}

impl BaseText {
    /// Reads `tokenizer.json`, and what there is of `tokenizer_config.json`, `chat_template.jinja`,
    /// `generation_config.json` and `config.json`, from a folder in Hugging Face's layout.
    ///
    /// # Errors
    /// [`TemplateError`] names the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, TemplateError> {
        let path = folder.join("tokenizer.json");
        let bytes = read(&path)?;
        let damaged = |reason: String| TemplateError::Format { path: path.clone(), reason };
        let mut marked = Tokenizer::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
        // A file that carries its trainer's truncation or padding would cut or fill every text without a word.
        marked.with_truncation(None).map_err(|error| damaged(error.to_string()))?;
        marked.with_padding(None);
        marked.set_encode_special_tokens(false);
        let mut plain = marked.clone();
        plain.set_encode_special_tokens(true);

        let settings_path = folder.join("tokenizer_config.json");
        let settings = read_json(&settings_path)?;
        let mut variables = BTreeMap::new();
        for name in ["bos_token", "eos_token", "pad_token", "unk_token"] {
            let token = settings[name].as_str().or_else(|| settings[name]["content"].as_str());
            variables.extend(token.map(|token| (name.to_owned(), token.to_owned())));
        }
        let id = |name: &str| match variables.get(name) {
            None => Ok(None),
            Some(token) => marked
                .token_to_id(token)
                .map(Some)
                .ok_or_else(|| TemplateError::Special { path: settings_path.clone(), token: token.clone() }),
        };
        let mut stops = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            let value = read_json(&folder.join(file))?;
            let ids = &value["eos_token_id"];
            let list = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
            stops.extend(list.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
        }
        let end = id("eos_token")?.or(stops.first().copied()).ok_or(TemplateError::NoEnd)?;
        stops.push(end);
        stops.sort_unstable();
        stops.dedup();
        let start = match first_added(&marked)? {
            Some(start) => Some(start),
            None if settings["add_bos_token"].as_bool() == Some(true) => id("bos_token")?,
            None => None,
        };
        let mut special: Vec<String> = marked
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content)
            .collect();
        special.sort_unstable();
        let source = template_source(folder, &settings)?;
        let template = source.map(|source| Template::parse(&source, variables)).transpose()?;
        Ok(Self { marked, plain, hash: Digest::of(&bytes), start, end, stops, special, template })
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// Ids that the tokenizer may give: one more than the highest, added tokens included.
    pub fn size(&self) -> usize {
        self.marked.get_vocab(true).values().max().map_or(0, |highest| *highest as usize + 1)
    }

    /// The same for what people wrote: special tokens, which only a template prints, left out.
    pub fn plain_size(&self) -> usize {
        let special = self.marked.get_added_tokens_decoder();
        let plain = |id: &u32| special.get(id).is_none_or(|token| !token.special);
        self.marked
            .get_vocab(true)
            .into_values()
            .filter(plain)
            .max()
            .map_or(0, |highest| highest as usize + 1)
    }

    /// What the base wants before every text, if anything.
    pub fn start(&self) -> Option<u32> {
        self.start
    }

    /// What stands after every text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The id of a token by its name.
    pub(crate) fn token(&self, name: &str) -> Option<u32> {
        self.marked.token_to_id(name)
    }

    /// What [`BaseText::end`] is written as.
    pub(crate) fn end_text(&self) -> String {
        self.marked.id_to_token(self.end).unwrap_or_default()
    }

    /// Every token at which an answer stops, ascending; [`BaseText::end`] is one of them.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// The special tokens' texts, sorted.
    pub fn special(&self) -> &[String] {
        &self.special
    }

    /// The chat template, if the base has one.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// Tokens of a text that people wrote: what looks like a special token in it is read letter by letter, and
    /// neither start nor end is added.
    ///
    /// # Errors
    /// [`TemplateError::Encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TemplateError> {
        let encoding = self.plain.encode_fast(text, false);
        Ok(encoding.map_err(|error| TemplateError::Encode(error.to_string()))?.get_ids().to_vec())
    }

    /// As [`BaseText::encode`], each token with the bytes of the text that it stands for. Tokens that share a letter
    /// share its bytes.
    ///
    /// # Errors
    /// [`TemplateError::Encode`].
    pub fn encode_ranges(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, TemplateError> {
        ranges(&self.plain, text)
    }

    /// Tokens of a text in which special tokens are read as what they are: for the corpora that bases are made of,
    /// never for customers' text. Neither start nor end is added.
    ///
    /// # Errors
    /// [`TemplateError::Encode`].
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>, TemplateError> {
        let encoding = self.marked.encode_fast(text, false);
        Ok(encoding.map_err(|error| TemplateError::Encode(error.to_string()))?.get_ids().to_vec())
    }

    /// Tokens of a rendered chat with their byte ranges; special tokens are read as what they are.
    pub(crate) fn encode_marked(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, TemplateError> {
        ranges(&self.marked, text)
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`TemplateError::Decode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TemplateError> {
        self.marked.decode(tokens, true).map_err(|error| TemplateError::Decode(error.to_string()))
    }

    /// The text of tokens, special ones written out: for people, never for a model.
    ///
    /// # Errors
    /// [`TemplateError::Decode`].
    pub fn decode_marked(&self, tokens: &[u32]) -> Result<String, TemplateError> {
        self.marked.decode(tokens, false).map_err(|error| TemplateError::Decode(error.to_string()))
    }

    /// Turns tokens into text one by one.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { base: self, tokens: Vec::new(), from: 0, given: 0 }
    }
}

/// Text from tokens that come one by one: a letter whose bytes are spread over several tokens comes out whole.
#[derive(Debug)]
pub struct Pieces<'a> {
    base: &'a BaseText,
    tokens: Vec<u32>,
    /// Tokens before this one are only kept while the decoder may look back at them.
    from: usize,
    /// Tokens whose text was given out.
    given: usize,
}

impl Pieces<'_> {
    /// Takes one token and gives the text that is now complete; empty while a letter is unfinished.
    ///
    /// # Errors
    /// [`TemplateError::Decode`].
    pub fn push(&mut self, token: u32) -> Result<String, TemplateError> {
        self.tokens.push(token);
        self.complete(false)
    }

    /// The rest: an unfinished letter comes out as U+FFFD.
    ///
    /// # Errors
    /// [`TemplateError::Decode`].
    pub fn finish(mut self) -> Result<String, TemplateError> {
        self.complete(true)
    }

    /// Decodes from the last piece's start, since decoders treat a text's first token differently.
    fn complete(&mut self, last: bool) -> Result<String, TemplateError> {
        let before = self.base.decode(&self.tokens[self.from..self.given])?;
        let now = self.base.decode(&self.tokens[self.from..])?;
        if now.len() <= before.len() || (!last && now.ends_with('\u{fffd}')) {
            return Ok(String::new());
        }
        let piece = now.get(before.len()..).unwrap_or_default().to_owned();
        self.from = self.given;
        self.given = self.tokens.len();
        Ok(piece)
    }
}

fn ranges(tokenizer: &Tokenizer, text: &str) -> Result<Vec<(u32, Range<usize>)>, TemplateError> {
    let encoding = tokenizer.encode(text, false).map_err(|error| TemplateError::Encode(error.to_string()))?;
    let ranges = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
    Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
}

/// The token that the tokenizer itself puts before a text when it is asked for special tokens.
fn first_added(tokenizer: &Tokenizer) -> Result<Option<u32>, TemplateError> {
    let failed = |error: tokenizers::Error| TemplateError::Encode(error.to_string());
    let with = tokenizer.encode_fast("a", true).map_err(failed)?;
    let without = tokenizer.encode_fast("a", false).map_err(failed)?;
    let (with, without) = (with.get_ids(), without.get_ids());
    let before = with.windows(without.len().max(1)).position(|window| window == without).unwrap_or(0);
    Ok(with[..before].first().copied())
}

fn template_source(folder: &Path, settings: &Value) -> Result<Option<String>, TemplateError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let damaged = |_| TemplateError::Format { path: path.clone(), reason: "it is no UTF-8".to_owned() };
        return String::from_utf8(read(&path)?).map(Some).map_err(damaged);
    }
    let setting = &settings["chat_template"];
    let named = setting.as_array().and_then(|list| {
        let default = list.iter().find(|entry| entry["name"] == "default");
        default.and_then(|entry| entry["template"].as_str())
    });
    Ok(setting.as_str().or(named).map(str::to_owned))
}

fn read(path: &Path) -> Result<Vec<u8>, TemplateError> {
    std::fs::read(path).map_err(|source| TemplateError::Read { path: path.to_owned(), source })
}

/// A JSON file, or null where it is not there.
fn read_json(path: &Path) -> Result<Value, TemplateError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| TemplateError::Format { path: path.to_owned(), reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(TemplateError::Read { path: path.to_owned(), source }),
    }
}
