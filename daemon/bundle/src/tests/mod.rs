//! What only the inside of the crate can show.
pub(crate) mod steps;
