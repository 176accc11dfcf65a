//! What only the inside of the crate can show: an installation that is cut off at each of its steps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod power;
pub(crate) mod steps;
