//! What any Linux lets a process give up: dumps, being traced, new privileges, capabilities, the network.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getegid, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, unshare_unsafe,
};

/// No core dump, whatever the process dies of.
pub(crate) fn no_dumps() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    match setrlimit(Resource::Core, none) {
        // Whoever started the process may have done it, and forbidden the call.
        Err(_) if getrlimit(Resource::Core) == none => Ok(()),
        set => set.map_err(said),
    }
}

/// No process of the same user may read this one's memory.
pub(crate) fn not_traceable() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(said)
}

/// No program that is started can gain rights.
pub(crate) fn no_new_privileges() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(said)
}

/// Gives up every capability, also for programs that are started later.
pub(crate) fn no_capabilities() -> Result<(), String> {
    clear_ambient_capability_set().map_err(said)?;
    for capability in CapabilitySet::all().iter() {
        // An error means a capability that this kernel does not know.
        if capability_is_in_bounding_set(capability) == Ok(true) {
            // Removing asks for CAP_SETPCAP; without it there is nothing that could be gained, for the lack of new
            // privileges.
            match remove_capability_from_bounding_set(capability) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(said(error)),
            }
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if capabilities(None).map_err(said)? == none {
        return Ok(());
    }
    set_capabilities(None, none).map_err(said)
}

/// Leaves, unless this process is already in the namespace that was emptied before it started, for an empty network namespace, in which not even the loopback is up: with the right to do so, else inside
/// a user namespace of its own that knows the same user and group, so that files keep their owners. Where neither is
/// granted, being in a network without an address but the loopback's is as good, or being refused its sockets.
pub(crate) fn no_network(emptied: Option<&str>) -> Result<(), String> {
    if emptied.is_some() && emptied == crate::network().as_deref() {
        return Ok(());
    }
    if unshare(UnshareFlags::NEWNET).is_ok() {
        return Ok(());
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // The ids can only be written by a process that is dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(said)?;
    let left = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
    let mapped = match left {
        // Only a process that gave up setgroups may map its group (user_namespaces(7)).
        Ok(()) => fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1"))),
        Err(_) => Ok(()),
    };
    not_traceable()?;
    match (left, mapped) {
        (Ok(()), Ok(())) => Ok(()),
        (Ok(()), Err(error)) => Err(format!(
            "a user namespace was granted but not its ids, so files may not be writable: {error}"
        )),
        (Err(_), _) if only_loopback().is_ok_and(|only| only) || no_sockets() => Ok(()),
        (Err(error), _) => Err(format!("no network namespace is granted: {error}")),
    }
}

/// True where the network has no address but the loopback's.
fn only_loopback() -> io::Result<bool> {
    let there = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    };
    // The leaves of the routing trie are `|-- ADDRESS`; each address that the machine has is one.
    let four = there("/proc/self/net/fib_trie")?;
    let mut leaves = four.lines().filter_map(|line| line.trim_start().strip_prefix("|-- "));
    let six = there("/proc/self/net/if_inet6")?;
    Ok(leaves.all(|address| address.starts_with("127."))
        && six.lines().all(|line| line.split_whitespace().next_back() == Some("lo")))
}

/// True where no socket of the internet's is given.
fn no_sockets() -> bool {
    let refused = |family| rustix::net::socket(family, SocketType::DGRAM, None).is_err();
    refused(AddressFamily::INET) && refused(AddressFamily::INET6)
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    #[allow(unsafe_code)]
    // SAFETY: the unsafe flag is FILES, which is never among these.
    unsafe {
        unshare_unsafe(flags)
    }
}

fn said(error: Errno) -> String {
    io::Error::from(error).to_string()
}
