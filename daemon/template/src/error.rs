use std::path::PathBuf;

/// Why a base's text side cannot be used. Names files, tokens and positions, never text.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file does not follow its format.
    #[error("{path} is damaged or not in its format: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token that the configuration names has no id.
    #[error(
        "special token `{token}` of {path} is not in tokenizer.json: the files belong to different bases"
    )]
    Special {
        /// The file that names it.
        path: PathBuf,
        /// The token.
        token: String,
    },
    /// No end-of-text token: a model trained without one never stops.
    #[error(
        "the base names no end token: set `eos_token` in tokenizer_config.json or `eos_token_id` in generation_config.json"
    )]
    NoEnd,
    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode a text: {0}")]
    Encode(String),
    /// Tokens that the tokenizer does not know.
    #[error("the tokenizer cannot decode its tokens: {0}")]
    Decode(String),
    /// A chat for a base without a template.
    #[error(
        "the base has no chat template: leave chats out by `selection.kinds`, or take a base that has one"
    )]
    NoTemplate,
    /// The template does not parse, or cannot be rendered.
    #[error("the chat template fails{}: {reason}", line.map_or(String::new(), |line| format!(" in line {line}")))]
    Template {
        /// Its line, where it is known.
        line: Option<usize>,
        /// What sort of failure.
        reason: String,
    },
    /// The body of a chat record is not a list of messages.
    #[error("a chat is no JSON array of objects with the texts `role` and `content`")]
    Messages,
    /// A chat that nothing can be learnt from.
    #[error("a chat holds no message of the role `assistant` that is to be learnt")]
    NoAnswer,
    /// Answers that are not to be learnt, and marks that do not tell which they are.
    #[error(
        "the chat template marks more or fewer stretches than there are answers, so that single answers cannot be left out: take the chat's masks out, or a template without `generation` marks"
    )]
    Marks,
    /// The body of a preference record is no preference.
    #[error("a preference is no JSON object of `prompt`, `chosen` and `rejected`")]
    Preference,
    /// Two answers that are one.
    #[error("both answers of a preference are the same tokens")]
    Same,
    /// A message that would be read as the end of a turn.
    #[error("message {index} holds the base's special token `{token}`, which would change the chat's turns")]
    Injection {
        /// The message, from 0.
        index: usize,
        /// The token.
        token: String,
    },
    /// The prompt that the model will see when it answers is not how the trained text begins.
    #[error(
        "the chat template is not prefix-preserving: what precedes answer {index} differs between prompt and training, so a model trained through it would learn another chat than it is asked"
    )]
    Prefix {
        /// The message, from 0.
        index: usize,
    },
    /// An answer whose end is not marked.
    #[error(
        "the chat template ends an answer without any of the base's end tokens, so a model trained through it would never stop: set `eos_token_id` in generation_config.json to the token that ends a turn"
    )]
    NoStop,
}
