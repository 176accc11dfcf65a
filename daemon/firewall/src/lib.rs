//! What a process gives up before it touches data, and the canary that tries to get out nevertheless.
//!
//! [`confine`] takes core dumps, tracing, new privileges, capabilities, the network, files (Landlock) and system calls
//! (seccomp) from the calling process, says of each whether it was had, and why not; `config/sandbox.toml` says what is
//! left to each program. [`canary`] tries every known way out from inside and tells which are open. This crate never
//! gives a right back, never sends a byte of data, and never contacts a machine that exists: the addresses that it tries
//! are those set aside for documentation.

mod calls;
pub mod canary;
mod files;
mod policy;
mod process;
mod protections;

pub use files::Paths;
pub use policy::{Policy, PolicyError, Program, Unlisted};
pub use protections::{Lacking, Protections};

use moat_contracts::Protection;

/// When the files that a process needs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files<'a> {
    /// Now: confined at once.
    Known(&'a Paths),
    /// Later, by [`confine_files`].
    Later,
}

/// Gives up all that the machine lets a process give up. To be called before there is a second thread and before any data
/// is touched: namespaces and Landlock hold for the calling thread and those that it starts.
pub fn confine(program: Program<'_>, policy: &Policy, files: Files<'_>) -> Protections {
    let mut had = Protections::default();
    had.note(Protection::Dumps, process::no_dumps());
    had.note(Protection::Tracing, process::not_traceable());
    had.note(Protection::Privileges, process::no_new_privileges());
    let emptied = match program {
        Program::Engine { network } => network,
        Program::Moatd { .. } => None,
    };
    had.note(Protection::Network, process::no_network(emptied));
    had.note(Protection::Capabilities, process::no_capabilities());
    if let Files::Known(paths) = files {
        confine_files(program, policy, paths, &mut had);
    }
    had.note(Protection::Seccomp, calls::confine(policy, program));
    had
}

/// The name of the network namespace that this process is in, for a program that it starts.
pub fn network() -> Option<String> {
    let name = std::fs::read_link("/proc/self/ns/net").ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// Gives up all files but these and those of the program. To be called before there is a second thread.
pub fn confine_files(program: Program<'_>, policy: &Policy, paths: &Paths, had: &mut Protections) {
    let each = [
        (Protection::Landlock, 1, "5.13"),
        (Protection::LandlockTcp, 4, "6.7"),
        (Protection::LandlockScope, 6, "6.12"),
    ];
    match files::confine(policy, program, paths) {
        Ok(granted) => {
            for (protection, needs, linux) in each {
                let taken = granted.generation >= needs;
                let why = || format!("the kernel has no such Landlock: it came with Linux {linux}");
                had.note(protection, if taken { Ok(()) } else { Err(why()) });
            }
            had.missing = granted.missing;
        }
        Err(why) => each.into_iter().for_each(|(protection, ..)| had.note(protection, Err(why.clone()))),
    }
}
