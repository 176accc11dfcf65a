//! How Moat's processes speak: length-prefixed JSON frames over AF_UNIX sockets, and the messages in them.
//!
//! Two conversations use the same frame: `moat` with `moatd` ([`control`]) and `moatd` with `moat-engine`
//! ([`engine`]). Both begin with a [`Hello`] from each side. This crate opens no socket; it reads and writes on
//! streams that it is given.

mod boundary;
mod comparison;
pub mod control;
mod data;
pub mod engine;
mod frame;
mod report;
mod rights;
mod source;

pub use frame::{FrameError, MAX_FRAME, read, read_blocking, write, write_blocking};

use serde::{Deserialize, Serialize};

/// Version of every message here; two sides that differ do not speak.
pub const VERSION: u32 = 3;

/// The first frame of either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The sender's program: `moat`, `moatd` or `moat-engine`.
    pub program: String,
}

impl Hello {
    /// This build's greeting.
    pub fn of(program: &str) -> Self {
        Self { version: VERSION, program: program.to_owned() }
    }

    /// Refuses a peer of another version or program.
    ///
    /// # Errors
    /// [`FrameError::Peer`] says who was expected and who answered.
    pub fn expect(&self, program: &str) -> Result<(), FrameError> {
        if self.version == VERSION && self.program == program {
            return Ok(());
        }
        Err(FrameError::Peer {
            expected: format!("{program} speaking protocol {VERSION}"),
            found: format!("{} speaking protocol {}", self.program, self.version),
        })
    }
}
