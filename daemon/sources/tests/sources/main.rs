//! The sources on real file systems, with real repositories and real watches.

mod common;
mod folder;
mod git;
mod model;
mod watch;
