//! The sources on real file systems, with real repositories and real watches.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case fails")]

mod browse;
mod common;
mod folder;
mod git;
mod model;
mod watch;
