//! What the engine gives up before it touches data, as far as the machine grants it without root.
//!
//! It does not ask for a signal at its parent's death: Linux sends that when the *thread* that started the engine
//! ends, which a runtime's thread may do long before `moatd`. The end of the connection tells the same and is seen at
//! once by the thread that reads it.

use std::fs;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getegid, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{UnshareFlags, set_no_new_privs, unshare_unsafe};
use serde::Serialize;

/// What was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Protection {
    /// An empty network namespace of its own: not even loopback is up.
    pub(crate) no_network: bool,
    /// No program it starts can gain rights.
    pub(crate) no_new_privileges: bool,
    /// No core dump, and no other process of the same user may read its memory.
    pub(crate) no_core_dumps: bool,
}

impl Protection {
    /// Takes all that the machine grants. To be called before there is a second thread.
    pub(crate) fn take() -> Self {
        Self {
            no_network: no_network(),
            no_new_privileges: set_no_new_privs(true).is_ok(),
            no_core_dumps: setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_ok()
                && set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok(),
        }
    }

    /// In words, for the job's first report.
    pub(crate) fn words(self) -> String {
        let said = |had: bool, name: &str| format!("{name} {}", if had { "closed" } else { "OPEN" });
        [
            said(self.no_network, "network"),
            said(self.no_new_privileges, "new privileges"),
            said(self.no_core_dumps, "core dumps"),
        ]
        .join(", ")
    }
}

/// Leaves for an empty network namespace: with the right to do so (root), else inside a user namespace of its own
/// that knows the same user and group, so that files keep their owners.
fn no_network() -> bool {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if unshare(UnshareFlags::NEWNET).is_ok() {
        return true;
    }
    if unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).is_err() {
        return false;
    }
    // Only a process that gave up setgroups may map its group (user_namespaces(7)).
    let mapped = fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")));
    if mapped.is_err() {
        eprintln!("moat-engine: a user namespace was granted but not its ids, so files may not be writable");
    }
    true
}

#[allow(unsafe_code)]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the unsafe flag is FILES, which is never among these.
    unsafe { unshare_unsafe(flags) }
}

/// Tells glibc to keep freed memory: a training step frees and takes the same buffers again, and clearing fresh pages
/// for them costs up to a quarter of its time.
pub(crate) fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        // malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 32 MiB is the highest that the latter takes.
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) takes two ints, returns one, and is called before there is a second thread.
        unsafe {
            unsafe extern "C" {
                fn mallopt(parameter: i32, value: i32) -> i32;
            }
            mallopt(MMAP_THRESHOLD, 32 << 20);
            mallopt(TRIM_THRESHOLD, i32::MAX);
        }
    }
}
