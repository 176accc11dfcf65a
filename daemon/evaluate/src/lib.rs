//! Measures how well a base and a model tuned from it predict held-back records, and text unlike the company's.
//!
//! Each token is scored once, with the base's own tokenizer and the same context under both models. What comes out are
//! sums per record; what they mean, with its confidence, is `moat-edge`'s. Nothing is trained, generated or written.

mod error;
mod examine;
mod forgetting;
mod pair;
mod score;

pub use error::EvaluateError;
pub use examine::{Measured, examine};
pub use forgetting::{FORGETTING, passages};
