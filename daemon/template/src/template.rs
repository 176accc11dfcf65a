use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::{Message, TemplateError};

/// Stand around what `{% generation %}` marks; noncharacters, which no text that was curated holds.
const BEGIN: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

const NAME: &str = "chat_template";

/// A base's chat template: Jinja with the conventions of Hugging Face (blocks take their line's whitespace with
/// them, Python's methods on strings, `raise_exception`, `tojson` without HTML escapes, `{% generation %}`).
///
/// There is no `strftime_now`: a template that asks for the day falls back to its own default, so that a chat gives
/// the same tokens every day.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    variables: BTreeMap<String, String>,
    marked: bool,
}

/// A rendered chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of what the template marks as generated, in order.
    pub marked: Vec<Range<usize>>,
}

impl Template {
    /// Parses a template. `variables` are the special tokens by the names of `tokenizer_config.json`, such as
    /// `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Template`] with the line that does not parse.
    pub fn parse(source: &str, variables: BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let (source, marked) = with_marks(source);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        });
        environment.add_template_owned(NAME, source).map_err(failed)?;
        Ok(Self { environment, variables, marked })
    }

    /// Whether the template says by `{% generation %}` what the model writes.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// Renders a chat; with `prompt` up to where the model goes on.
    ///
    /// # Errors
    /// [`TemplateError::Template`]; the reason is what the template itself raises, or a kind of failure.
    pub fn render(&self, messages: &[Message], prompt: bool) -> Result<Rendered, TemplateError> {
        let list: Value = messages
            .iter()
            .map(|message| {
                Value::from_pairs([
                    ("role", Value::from(message.role.as_str())),
                    ("content", Value::from(message.content.as_str())),
                ])
            })
            .collect();
        let named = self.variables.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let context = Value::from_pairs(named.chain([
            ("messages", list),
            ("add_generation_prompt", Value::from(prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]));
        let text = self.environment.get_template(NAME).and_then(|template| template.render(context));
        Ok(split_marks(&text.map_err(failed)?))
    }
}

/// Replaces `{% generation %}`, which Hugging Face adds to Jinja, by blocks that print the marks and trim the
/// whitespace around them as the tag does.
fn with_marks(source: &str) -> (String, bool) {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    let mut marked = false;
    while let Some(open) = rest.find("{%") {
        let Some(close) = rest[open..].find("%}").map(|length| open + length + 2) else { break };
        let inside = &rest[open + 2..close - 2];
        let (left, right) = (control(inside.chars().next()), control(inside.chars().next_back()));
        let word = inside.trim_matches(|sign: char| sign.is_whitespace() || "-+".contains(sign));
        output.push_str(&rest[..open]);
        match word {
            "generation" => {
                marked = true;
                output.push_str(&format!("{{%{left} if true %}}{{{{ '{BEGIN}' }}}}{{% if true {right}%}}"));
            }
            "endgeneration" => {
                output.push_str(&format!("{{%{left} endif %}}{{{{ '{END}' }}}}{{% endif {right}%}}"));
            }
            _ => output.push_str(&rest[open..close]),
        }
        rest = &rest[close..];
    }
    output.push_str(rest);
    (output, marked)
}

/// The whitespace control at one end of a tag.
fn control(sign: Option<char>) -> &'static str {
    match sign {
        Some('-') => "-",
        Some('+') => "+",
        _ => "",
    }
}

fn split_marks(text: &str) -> Rendered {
    let mut rendered = Rendered { text: String::with_capacity(text.len()), marked: Vec::new() };
    let mut begin = None;
    for letter in text.chars() {
        match letter {
            BEGIN => begin = Some(rendered.text.len()),
            END => rendered.marked.extend(begin.take().map(|begin| begin..rendered.text.len())),
            letter => rendered.text.push(letter),
        }
    }
    rendered
}

fn failed(error: Error) -> TemplateError {
    let kind = error.kind();
    // Only what the template itself raises is passed on: other details may quote the message being rendered.
    let reason = match error.detail() {
        Some(detail) if kind == ErrorKind::InvalidOperation || kind == ErrorKind::SyntaxError => {
            detail.to_owned()
        }
        _ => kind.to_string(),
    };
    TemplateError::Template { line: error.line(), reason }
}

/// `json.dumps(value, ensure_ascii=False)`, with `indent` where it is given.
fn to_json(value: Value, keywords: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = keywords.get("indent")?;
    let mut text = String::new();
    write_json(&value, indent, 0, &mut text)?;
    Ok(text)
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, text: &mut String) -> Result<(), Error> {
    let line = |text: &mut String, depth: usize| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => text.push_str("null"),
        ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => text.push_str(&value.to_string()),
        ValueKind::Map => {
            text.push('{');
            let mut empty = true;
            for key in value.try_iter()? {
                text.push_str(if empty { "" } else { comma });
                line(text, depth + 1);
                quote(&key.to_string(), text)?;
                text.push_str(": ");
                write_json(&value.get_item(&key)?, indent, depth + 1, text)?;
                empty = false;
            }
            if !empty {
                line(text, depth);
            }
            text.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            text.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                text.push_str(if empty { "" } else { comma });
                line(text, depth + 1);
                write_json(&item, indent, depth + 1, text)?;
                empty = false;
            }
            if !empty {
                line(text, depth);
            }
            text.push(']');
        }
        _ => quote(&value.to_string(), text)?,
    }
    Ok(())
}

fn quote(value: &str, text: &mut String) -> Result<(), Error> {
    let quoted = serde_json::to_string(value)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "a text is no JSON string"))?;
    text.push_str(&quoted);
    Ok(())
}
