use std::collections::BTreeMap;
use std::fs;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::UnshareFlags;

/// Each protection by name, and whether this machine granted it.
pub(crate) type Protections = BTreeMap<String, bool>;

/// Gives up what the daemon never needs: core dumps, being traced, new privileges, the network. Must run before the
/// first thread is started.
pub(crate) fn confine() -> Protections {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let granted = [
        ("no core dumps", rustix::process::setrlimit(Resource::Core, none).is_ok()),
        ("not traceable", not_traceable()),
        ("no new privileges", rustix::thread::set_no_new_privs(true).is_ok()),
        ("no network", leave_network()),
    ];
    granted.into_iter().map(|(name, had)| (name.to_owned(), had)).collect()
}

fn not_traceable() -> bool {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()
}

/// Moves into a network namespace of its own, which has no interface but a loopback that is down. A user without
/// CAP_SYS_ADMIN gets one through a user namespace in which only its own ids exist.
fn leave_network() -> bool {
    if unshare(UnshareFlags::NEWNET) {
        return true;
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // The maps can only be written by a process that is dumpable.
    let dumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).is_ok();
    let had = dumpable && unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
    let mapped = !had
        || fs::write("/proc/self/setgroups", "deny").is_ok()
            && fs::write("/proc/self/uid_map", format!("{0} {0} 1", user.as_raw())).is_ok()
            && fs::write("/proc/self/gid_map", format!("{0} {0} 1", group.as_raw())).is_ok();
    had && mapped && not_traceable()
}

fn unshare(flags: UnshareFlags) -> bool {
    #[allow(unsafe_code)]
    // SAFETY: no thread has been started and no file table is unshared, so nothing else sees the change.
    let result = unsafe { rustix::thread::unshare_unsafe(flags) };
    result.is_ok()
}
