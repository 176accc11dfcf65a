//! How a base reads and writes text: its tokenizer, its special tokens and its chat template, as a folder in
//! Hugging Face's layout holds them.
//!
//! Counting, training, measuring and answering all go through this one crate, so that a text is never cut into one
//! sequence of tokens here and into another there. It reads the folder's small files and nothing else: it never
//! touches weights, never holds a text longer than the call, and never puts one into an error.

mod base;
mod chat;
mod error;
mod infill;
mod template;

pub use base::{BaseText, Pieces};
pub use chat::{Chat, Message, Pair, Turns, messages, only_last, pair};
pub use error::TemplateError;
pub use infill::Infill;
pub use template::{Rendered, Template};
