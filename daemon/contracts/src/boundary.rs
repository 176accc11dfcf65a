use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that a process gives up before it touches data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Leaving a core dump.
    Dumps,
    /// Being read or traced by another process of the same user.
    Tracing,
    /// Gaining rights by starting a program.
    Privileges,
    /// Every capability of root's.
    Capabilities,
    /// The machine's network: an empty network namespace is all that is left.
    Network,
    /// Files other than those it needs.
    Landlock,
    /// Binding and connecting TCP ports, by Landlock (Linux 6.7).
    LandlockTcp,
    /// Signals and abstract sockets to processes outside its sandbox, by Landlock (Linux 6.12).
    LandlockScope,
    /// System calls other than those it needs.
    Seccomp,
}

impl Protection {
    /// All of them, in the order in which they are taken.
    pub const ALL: [Self; 9] = [
        Self::Dumps,
        Self::Tracing,
        Self::Privileges,
        Self::Network,
        Self::Capabilities,
        Self::Landlock,
        Self::LandlockTcp,
        Self::LandlockScope,
        Self::Seccomp,
    ];

    /// The word that stands in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dumps => "dumps",
            Self::Tracing => "tracing",
            Self::Privileges => "privileges",
            Self::Capabilities => "capabilities",
            Self::Network => "network",
            Self::Landlock => "landlock",
            Self::LandlockTcp => "landlock-tcp",
            Self::LandlockScope => "landlock-scope",
            Self::Seccomp => "seccomp",
        }
    }

    /// What it means, in a few words.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Dumps => "no core dumps",
            Self::Tracing => "not traceable",
            Self::Privileges => "no new privileges",
            Self::Capabilities => "no capabilities",
            Self::Network => "no network",
            Self::Landlock => "no files but its own",
            Self::LandlockTcp => "no TCP ports",
            Self::LandlockScope => "no signals or abstract sockets outward",
            Self::Seccomp => "no system calls but its own",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One protection of a process that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The protection.
    pub protection: Protection,
    /// Why it could not be had; none where it is in force.
    pub refused: Option<String>,
}

/// One way out of a process, tried from inside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The way, such as `tcp4 192.0.2.1:443` or `socket /run/dbus/system_bus_socket`.
    pub way: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of trying a way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The kernel refused with this error number before anything could leave.
    Closed(i32),
    /// Something left, or could have.
    Open(String),
}

impl Attempt {
    /// True where the way is open.
    pub const fn is_open(&self) -> bool {
        matches!(self.outcome, Outcome::Open(_))
    }
}
