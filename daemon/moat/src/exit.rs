//! How `moat` ends: the codes, and the failure that carries one.

use std::fmt;
use std::process::ExitCode;

use moat_protocol::control::Fault;

/// The table of exit codes, as `--help` shows it.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  the request could not be done as asked
    2  wrong usage, or a faulty configuration or recipe
    3  moatd is not reachable
    4  denied
    5  Moat failed: disk, engine, damaged state
    6  what was started ended badly, such as a failed run
    7  moat is sealed: open its vault first
  130  interrupted

With --json, standard output gets exactly one line, the reply; a failure is
{\"reply\":\"failed\",\"value\":{\"fault\":…,\"message\":…}}. Updates are lines of JSON on standard error.";

/// How `moat` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Request = 1,
    Usage = 2,
    Unreachable = 3,
    Denied = 4,
    Internal = 5,
    Failed = 6,
    Sealed = 7,
    Interrupted = 130,
}

impl Exit {
    /// The word that stands in JSON.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Request => "request",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Internal => "internal",
            Self::Failed => "failed",
            Self::Sealed => "sealed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Request => Self::Request,
            Fault::Denied => Self::Denied,
            Fault::Internal => Self::Internal,
            Fault::Failed => Self::Failed,
            Fault::Sealed => Self::Sealed,
        }
    }
}

/// Why `moat` could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One lowercase sentence with a remedy; several lines where there are several faults.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The failure as [`moat_protocol::control::Reply::Failed`] would be written.
    pub(crate) fn json(&self) -> serde_json::Value {
        let value = serde_json::json!({ "fault": self.exit.word(), "message": self.message });
        serde_json::json!({ "reply": "failed", "value": value })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
