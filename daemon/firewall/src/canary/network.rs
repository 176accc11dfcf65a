use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use moat_contracts::Outcome;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, ipproto};

/// Addresses of documentation networks, which are nobody's, and of the loopback.
const ABROAD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ABROAD_TOO: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
const ABROAD_SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HERE_SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

pub(super) const TCP: [SocketAddr; 5] = [
    SocketAddr::new(ABROAD, 443),
    SocketAddr::new(ABROAD_TOO, 22),
    SocketAddr::new(ABROAD_SIX, 443),
    SocketAddr::new(HERE, 9),
    SocketAddr::new(HERE_SIX, 9),
];
pub(super) const UDP: [SocketAddr; 4] = [
    SocketAddr::new(ABROAD, 53),
    SocketAddr::new(ABROAD_SIX, 53),
    SocketAddr::new(HERE, 53),
    SocketAddr::new(HERE_SIX, 53),
];

/// Families whose sockets lead past the network namespace, or need no address: having one is a way out. Numbers are
/// those of socket.h.
pub(super) const FAMILIES: &[(&str, u16, SocketType, u32)] = &[
    ("netlink route", 16, SocketType::RAW, 0),
    ("packet", 17, SocketType::RAW, 0),
    ("rds", 21, SocketType::SEQPACKET, 0),
    ("can", 29, SocketType::RAW, 1),
    ("tipc", 30, SocketType::STREAM, 0),
    ("bluetooth", 31, SocketType::STREAM, 3),
    ("alg", 38, SocketType::SEQPACKET, 0),
    ("vsock", 40, SocketType::STREAM, 0),
    ("qipcrtr", 42, SocketType::DGRAM, 0),
];

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

pub(super) fn closed(error: Errno) -> Outcome {
    Outcome::Closed(error.raw_os_error())
}

fn family_of(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Begins a connection without waiting for its end: what stops it here says so at once.
pub(super) fn tcp(address: &SocketAddr) -> Outcome {
    let socket = match rustix::net::socket_with(family_of(address), SocketType::STREAM, FLAGS, None) {
        Ok(socket) => socket,
        Err(error) => return closed(error),
    };
    match rustix::net::connect(&socket, address) {
        Ok(()) => Outcome::Open("a connection was made".to_owned()),
        Err(Errno::INPROGRESS) => Outcome::Open("a request to connect was sent".to_owned()),
        Err(Errno::CONNREFUSED) => Outcome::Open("the other side answered".to_owned()),
        Err(error) => closed(error),
    }
}

pub(super) fn udp(address: &SocketAddr) -> Outcome {
    let socket = match rustix::net::socket_with(family_of(address), SocketType::DGRAM, FLAGS, None) {
        Ok(socket) => socket,
        Err(error) => return closed(error),
    };
    match rustix::net::sendto(&socket, &[], SendFlags::empty(), address) {
        Ok(_) => Outcome::Open("a datagram was sent".to_owned()),
        Err(error) => closed(error),
    }
}

/// An ICMP echo request by a raw socket, or by one that the system allows to users (ping_group_range).
pub(super) fn echo(kind: SocketType) -> Outcome {
    let socket = match rustix::net::socket_with(AddressFamily::INET, kind, FLAGS, Some(ipproto::ICMP)) {
        Ok(socket) => socket,
        Err(error) => return closed(error),
    };
    // Type 8, code 0, the checksum of what follows, identifier 0, sequence 0 (RFC 792).
    let request = [8, 0, 0xF7, 0xFF, 0, 0, 0, 0];
    match rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(ABROAD, 0)) {
        Ok(_) => Outcome::Open("an echo request was sent".to_owned()),
        Err(error) => closed(error),
    }
}

pub(super) fn family(family: u16, kind: SocketType, protocol: u32) -> Outcome {
    let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
    match rustix::net::socket_with(AddressFamily::from_raw(family), kind, FLAGS, protocol) {
        Ok(_) => Outcome::Open("a socket was given".to_owned()),
        Err(error) => closed(error),
    }
}

/// A ring that could make system calls past the filter.
pub(super) fn io_uring() -> Outcome {
    // struct io_uring_params has 120 bytes (io_uring.h); zeros ask for nothing special.
    let mut parameters = [0_u64; 15];
    #[allow(unsafe_code)]
    // SAFETY: the kernel reads and writes the parameters' 120 bytes and nothing else.
    let file = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if file < 0 {
        return Outcome::Closed(std::io::Error::last_os_error().raw_os_error().unwrap_or_default());
    }
    #[allow(unsafe_code, clippy::cast_possible_truncation)]
    // SAFETY: the file was just opened and is nobody else's.
    unsafe {
        libc::close(file as i32);
    }
    Outcome::Open("a ring was given".to_owned())
}

/// Asks the C library for a name that cannot exist (RFC 6761). Bounded by the C library's own time limits.
pub(super) fn name_service(dns_last: bool) -> Outcome {
    const NAME: &CStr = c"canary.invalid.";
    let mut found = std::ptr::null_mut();
    #[allow(unsafe_code)]
    // SAFETY: the name ends with a zero; hints may be null; what is found is freed below.
    let code =
        unsafe { libc::getaddrinfo(NAME.as_ptr(), std::ptr::null(), std::ptr::null(), &raw mut found) };
    if !found.is_null() {
        #[allow(unsafe_code)]
        // SAFETY: getaddrinfo made this list.
        unsafe {
            libc::freeaddrinfo(found);
        }
    }
    match code {
        0 => Outcome::Open("a name was resolved".to_owned()),
        // Without DNS as the last to be asked, the word of another service hides how DNS fared.
        libc::EAI_NONAME | libc::EAI_NODATA if dns_last => Outcome::Open("a name server answered".to_owned()),
        code => Outcome::Closed(code),
    }
}

/// Whether `hosts` of nsswitch.conf(5) ends with DNS; the C library's own default does.
pub(super) fn dns_last() -> bool {
    let text = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    line.is_none_or(|line| line.split_whitespace().next_back() == Some("dns"))
}
