use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use moat_contracts::Outcome;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::network::closed;

/// A socket in the file system.
pub(super) fn file(path: &Path) -> Outcome {
    match SocketAddrUnix::new(path) {
        Ok(address) => connect(&address),
        Err(error) => closed(error),
    }
}

/// A socket without a file.
pub(super) fn hidden(name: &str) -> Outcome {
    match SocketAddrUnix::new_abstract_name(name.as_bytes()) {
        Ok(address) => connect(&address),
        Err(error) => closed(error),
    }
}

fn connect(address: &SocketAddrUnix) -> Outcome {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut last = Errno::PROTOTYPE;
    for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
        let connected = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
            .and_then(|socket| rustix::net::connect(&socket, address));
        match connected {
            Ok(()) => return Outcome::Open("somebody listens there and may be spoken to".to_owned()),
            Err(Errno::AGAIN) => {
                return Outcome::Open("somebody listens there, busy at the moment".to_owned());
            }
            // It is a socket of another kind.
            Err(Errno::PROTOTYPE) => {}
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    closed(last)
}

/// Names of the abstract sockets that the kernel lists as listening in this network namespace (unix(7) in proc(5)).
pub(super) fn listed() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    let name = |line: &str| {
        let mut columns = line.split_whitespace();
        let listens = columns.nth(3) == Some("00010000");
        let name = columns.nth(3)?.strip_prefix('@')?;
        listens.then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Sockets of the user's session, as its environment names them.
pub(super) fn of_the_environment() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let text = |name: &str| env::var(name).unwrap_or_default();
    found.extend(env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
    let buses = text("DBUS_SESSION_BUS_ADDRESS");
    let parts = buses.split([';', ',']).filter_map(|part| part.strip_prefix("unix:path="));
    found.extend(parts.map(PathBuf::from));
    found.extend(text("DOCKER_HOST").strip_prefix("unix://").map(PathBuf::from));
    let user = rustix::process::geteuid().as_raw();
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    let session =
        ["bus", "systemd/private", "gnupg/S.gpg-agent", "podman/podman.sock", "keyring/ssh", "wayland-0"];
    found.extend(session.map(|name| runtime.join(name)));
    found
}
