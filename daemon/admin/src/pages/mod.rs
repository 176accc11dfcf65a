//! The pages, a file for each: what it asks of the daemon, and how it draws the answer.

pub(crate) mod boundary;
pub(crate) mod door;
pub(crate) mod error;
pub(crate) mod overview;
