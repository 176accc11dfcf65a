//! Answers prompts: a base and, where given, the model tuned from it complete the same prompt, token by token, with the
//! keys and values of what came before kept.
//!
//! It holds one prompt and its answers for as long as the call lasts. It never trains, keeps no conversation, and
//! writes nothing.

mod answer;
mod error;
mod sample;

pub use answer::answer;
pub use error::ServeError;
