//! Tests that need what the crate keeps to itself.

pub(crate) mod steps;
