use std::ops::Range;

use serde::Deserialize;

use crate::{BaseText, TemplateError};

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Whether it is learnt, if it is an answer.
    #[serde(default = "learnt", rename = "train")]
    pub learnt: bool,
}

const fn learnt() -> bool {
    true
}

impl Message {
    /// A user's message.
    pub fn user(content: &str) -> Self {
        Self { role: "user".to_owned(), content: content.to_owned(), learnt: true }
    }

    /// The model's message.
    pub fn assistant(content: &str) -> Self {
        Self { role: "assistant".to_owned(), content: content.to_owned(), learnt: true }
    }

    /// Whether the model is to learn to say it.
    pub fn is_learnt(&self) -> bool {
        self.learnt && self.role == "assistant"
    }
}

/// Reads the body of a chat record: a JSON array of objects with `role` and `content`.
///
/// # Errors
/// [`TemplateError::Messages`], which does not quote the body.
pub fn messages(body: &str) -> Result<Vec<Message>, TemplateError> {
    serde_json::from_str(body).map_err(|_| TemplateError::Messages)
}

/// Leaves the last of a chat's answers that are learnt, and the others as context.
pub fn only_last(messages: &mut [Message]) {
    let last = messages.iter().rposition(Message::is_learnt);
    for (index, message) in messages.iter_mut().enumerate() {
        message.learnt = Some(index) == last;
    }
}

/// Two answers to one prompt: the body of a preference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Pair {
    /// Plain texts: what follows the prompt is learnt.
    Text {
        /// What both answers answer.
        prompt: String,
        /// The better answer.
        chosen: String,
        /// The worse one.
        rejected: String,
    },
    /// Messages: the assistant's after the prompt are learnt.
    Chat {
        /// What both answers answer.
        prompt: Vec<Message>,
        /// The better answer.
        chosen: Vec<Message>,
        /// The worse one.
        rejected: Vec<Message>,
    },
}

/// Reads the body of a preference record.
///
/// # Errors
/// [`TemplateError::Preference`], which does not quote the body.
pub fn pair(body: &str) -> Result<Pair, TemplateError> {
    serde_json::from_str(body).map_err(|_| TemplateError::Preference)
}

/// Which of a chat's answers can be learnt as they would be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Every one.
    All,
    /// Only the last: the template writes earlier answers differently once others follow (Qwen3 takes their
    /// thoughts out), so what precedes the last one is context, just as it is when the model is asked.
    Last,
}

/// A chat as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// All tokens, the template's included.
    pub tokens: Vec<u32>,
    /// `true` for each token that the model is to write: answers with the token that ends them.
    pub answer: Vec<bool>,
    /// Which answers are marked.
    pub turns: Turns,
}

impl BaseText {
    /// Both answers of a preference as training sees them, the chosen one first: the prompt with the answer, and which
    /// tokens belong to the answer, with the one that ends it.
    ///
    /// # Errors
    /// As [`BaseText::chat`]; [`TemplateError::Same`] where the base reads both answers alike.
    pub fn answers(&self, pair: &Pair) -> Result<[Chat; 2], TemplateError> {
        let [chosen, rejected] = match pair {
            Pair::Text { prompt, chosen, rejected } => {
                [chosen, rejected].map(|text| self.continued(prompt, text))
            }
            Pair::Chat { prompt, chosen, rejected } => [chosen, rejected].map(|answer| {
                let context = prompt.iter().map(|message| Message { learnt: false, ..message.clone() });
                self.chat(&context.chain(answer.iter().cloned()).collect::<Vec<_>>())
            }),
        };
        let (chosen, rejected) = (chosen?, rejected?);
        if chosen.tokens == rejected.tokens {
            return Err(TemplateError::Same);
        }
        Ok([chosen, rejected])
    }

    /// A text after a prompt, with the base's start and end tokens. A token in which both meet is the answer's.
    fn continued(&self, prompt: &str, answer: &str) -> Result<Chat, TemplateError> {
        let ranges = self.encode_ranges(&format!("{prompt}{answer}"))?;
        let start = self.start().into_iter().map(|token| (token, false));
        let text = ranges.into_iter().map(|(token, range)| (token, range.end > prompt.len()));
        let (tokens, answer) = start.chain(text).chain([(self.end(), true)]).unzip();
        Ok(Chat { tokens, answer, turns: Turns::All })
    }

    /// A chat as training sees it: its tokens, and which of them the model is to write. Answers that are not to be learnt
    /// are context.
    ///
    /// What the template marks by `{% generation %}` is taken; without marks, an answer is what stands between the
    /// prompt that the model would have seen and the end of its turn.
    ///
    /// # Errors
    /// [`TemplateError::NoTemplate`], [`TemplateError::NoAnswer`], [`TemplateError::Injection`],
    /// [`TemplateError::Prefix`] where even the last answer's prompt differs, [`TemplateError::NoStop`].
    pub fn chat(&self, messages: &[Message]) -> Result<Chat, TemplateError> {
        self.no_injection(messages)?;
        let last = messages.iter().rposition(Message::is_learnt);
        let last = last.ok_or(TemplateError::NoAnswer)?;
        // What follows the last answer teaches nothing, and may change how the template writes that answer.
        let messages = &messages[..=last];
        let template = self.template().ok_or(TemplateError::NoTemplate)?;
        let rendered = template.render(messages, false)?;
        let (spans, turns) = if template.is_marked() {
            (marked(&rendered.marked, messages)?, Turns::All)
        } else {
            self.unmarked_spans(messages, last, &rendered.text)?
        };
        if spans.is_empty() {
            return Err(TemplateError::NoAnswer);
        }
        let encoding = self.encode_marked(&rendered.text)?;
        let tokens: Vec<u32> = encoding.iter().map(|(token, _)| *token).collect();
        let mut answer = vec![false; tokens.len()];
        for span in spans {
            let inside = |range: &Range<usize>| span.start <= range.start && range.end <= span.end;
            let mut end = None;
            for (index, (token, range)) in encoding.iter().enumerate() {
                if inside(range) && range.start < range.end {
                    answer[index] = true;
                    end = Some((index, *token)).filter(|(_, token)| self.stops().contains(token)).or(end);
                }
            }
            // Whitespace after the end token is the template's, not the model's: it never comes to write it.
            let Some((end, _)) = end else { return Err(TemplateError::NoStop) };
            for (flag, (_, range)) in answer[end + 1..].iter_mut().zip(&encoding[end + 1..]) {
                *flag = *flag && !inside(range);
            }
        }
        Ok(Chat { tokens, answer, turns })
    }

    /// The tokens that a model is given to answer the last message.
    ///
    /// # Errors
    /// [`TemplateError::NoTemplate`], [`TemplateError::Injection`], or the template's own.
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>, TemplateError> {
        self.no_injection(messages)?;
        let rendered = self.template().ok_or(TemplateError::NoTemplate)?.render(messages, true)?;
        Ok(self.encode_marked(&rendered.text)?.into_iter().map(|(token, _)| token).collect())
    }

    /// Tries the template on a chat of two turns: the prompt is how the trained text begins, every answer ends with
    /// an end token and is found whole among the tokens to learn. Says which turns of longer chats can be learnt.
    ///
    /// # Errors
    /// As [`BaseText::chat`].
    pub fn check_template(&self) -> Result<Turns, TemplateError> {
        let sample = [
            Message::user("Which colour has the sky?"),
            Message::assistant("Blue, mostly."),
            Message::user("And the sea?"),
            Message::assistant("It mirrors the sky."),
        ];
        for length in [2, 4] {
            let chat = self.chat(&sample[..length])?;
            let prompt = self.chat_prompt(&sample[..length - 1])?;
            let learnt = chat.answer.iter().rposition(|learnt| *learnt).map_or(0, |end| end + 1);
            let asked = chat.tokens.starts_with(&prompt) && learnt > prompt.len();
            if !asked {
                return Err(TemplateError::Prefix { index: length - 1 });
            }
            let text = self.decode(&chat.tokens[prompt.len()..learnt])?;
            if !text.contains(&sample[length - 1].content) {
                return Err(TemplateError::NoAnswer);
            }
        }
        Ok(self.chat(&sample)?.turns)
    }

    fn unmarked_spans(
        &self,
        messages: &[crate::Message],
        last: usize,
        whole: &str,
    ) -> Result<(Vec<Range<usize>>, Turns), TemplateError> {
        let template = self.template().ok_or(TemplateError::NoTemplate)?;
        let end = self.end_text();
        let span = |index: usize| -> Result<Option<Range<usize>>, TemplateError> {
            let prompt = template.render(&messages[..index], true)?.text;
            let mut turn = template.render(&messages[..=index], false)?.text;
            // Phi-3 ends a chat, not a turn, by the end of text.
            if !whole.starts_with(&turn) && turn.ends_with(&end) {
                turn.truncate(turn.len() - end.len());
            }
            let kept = whole.starts_with(&turn) && turn.starts_with(&prompt);
            Ok(kept.then_some(prompt.len()..turn.len()))
        };
        let final_span = span(last)?.ok_or(TemplateError::Prefix { index: last })?;
        let mut spans = Vec::new();
        let answers = messages.iter().enumerate().filter(|(_, message)| message.is_learnt());
        for (index, _) in answers {
            match span(index)? {
                Some(span) => spans.push(span),
                None => return Ok((vec![final_span], Turns::Last)),
            }
        }
        Ok((spans, Turns::All))
    }

    fn no_injection(&self, messages: &[Message]) -> Result<(), TemplateError> {
        for (index, message) in messages.iter().enumerate() {
            let found = self.special().iter().find(|token| message.content.contains(token.as_str()));
            if let Some(token) = found {
                return Err(TemplateError::Injection { index, token: token.clone() });
            }
        }
        Ok(())
    }
}

/// Of what a template marks, what is to be learnt. Where an answer is not, marks and answers must be as many.
fn marked(spans: &[Range<usize>], messages: &[Message]) -> Result<Vec<Range<usize>>, TemplateError> {
    let answers: Vec<&Message> = messages.iter().filter(|message| message.role == "assistant").collect();
    if answers.iter().all(|answer| answer.learnt) {
        return Ok(spans.to_vec());
    }
    if spans.len() != answers.len() {
        return Err(TemplateError::Marks);
    }
    let learnt = spans.iter().zip(answers).filter(|(_, answer)| answer.learnt);
    Ok(learnt.map(|(span, _)| span.clone()).collect())
}
