//! The canary: tries from inside every way that is known to lead out of a process, and tells which are open.
//!
//! It connects and sends without data: to addresses set aside for documentation (RFC 5737, RFC 3849), to the loopback,
//! and to sockets of other programs on this machine. A way is closed where the kernel refused before a packet could
//! leave, such as with "no route"; it is open where a connection began, a datagram went, or an answer came.

mod network;
mod sockets;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;

use moat_contracts::{Attempt, Outcome};

pub use watch::{Count, Counts, EVERY, Watch, watch};

use crate::policy::{Policy, Unlisted};

/// The ways to try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// TCP ports to connect to.
    pub tcp: Vec<SocketAddr>,
    /// UDP ports to send an empty datagram to.
    pub udp: Vec<SocketAddr>,
    /// Sockets in the file system to connect to.
    pub sockets: Vec<PathBuf>,
    /// Abstract sockets to connect to, besides those that the kernel lists.
    pub hidden: Vec<String>,
    /// Whether to try what takes no address: raw sockets, other families, the name service, io_uring.
    pub others: bool,
    /// Whether the name service asks DNS last, so that "no such name" is DNS's answer.
    pub dns_last: bool,
}

impl Ways {
    /// Every way that is known. To be called before the process is confined, since it looks at the environment and at
    /// the configuration of the name service. None where the policy ends a process that calls what is not listed.
    pub fn known(policy: &Policy) -> Self {
        if policy.unlisted() == Unlisted::Kill {
            return Self::default();
        }
        let outside = policy.outside();
        let mut sockets = outside.sockets.clone();
        sockets.extend(sockets::of_the_environment());
        sockets.dedup();
        Self {
            tcp: network::TCP.to_vec(),
            udp: network::UDP.to_vec(),
            sockets,
            hidden: outside.hidden.clone(),
            others: true,
            dns_last: network::dns_last(),
        }
    }

    /// Tries each of them once. Ends at once where the process is confined; where it is not, the name service may take
    /// as long as the C library lets it.
    pub fn try_all(&self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut note = |way: String, outcome: Outcome| attempts.push(Attempt { way, outcome });
        for address in &self.tcp {
            note(format!("tcp {address}"), network::tcp(address));
        }
        for address in &self.udp {
            note(format!("udp {address}"), network::udp(address));
        }
        for path in &self.sockets {
            note(format!("socket {}", path.display()), sockets::file(path));
        }
        let mut hidden = self.hidden.clone();
        if self.others {
            hidden.extend(sockets::listed());
        }
        hidden.sort();
        hidden.dedup();
        for name in hidden {
            note(format!("abstract socket @{name}"), sockets::hidden(&name));
        }
        if self.others {
            for (name, family, kind, protocol) in network::FAMILIES {
                note((*name).to_owned(), network::family(*family, *kind, *protocol));
            }
            note("icmp 192.0.2.1".to_owned(), network::echo(rustix::net::SocketType::RAW));
            note("ping 192.0.2.1".to_owned(), network::echo(rustix::net::SocketType::DGRAM));
            note("io_uring".to_owned(), network::io_uring());
            note("name service".to_owned(), network::name_service(self.dns_last));
        }
        attempts
    }
}
