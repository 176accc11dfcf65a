//! The canary finds every way closed inside, and every hole that is opened on purpose.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it does"
)]

mod prison;

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use moat_contracts::{Attempt, Outcome};
use moat_firewall::canary::{Counts, Ways, watch};
use moat_firewall::{Files, Paths, Policy, Program};
use prison::{User, run, told};

fn main() {
    prison::main(
        &[
            ("inside_every_way_is_closed", inside_every_way_is_closed),
            ("every_hole_is_found", every_hole_is_found),
            ("what_one_fence_leaves_open_is_found", what_one_fence_leaves_open_is_found),
            ("a_deadly_policy_is_not_tried", a_deadly_policy_is_not_tried),
            ("rounds_come_until_the_watch_ends", rounds_come_until_the_watch_ends),
        ],
        child,
    );
}

const SYSTEMD: Program<'_> = Program::Moatd { starts_engines: false, under_systemd: true };
const MOATD: Program<'_> = Program::Moatd { starts_engines: true, under_systemd: false };

/// Tries the ways in the arguments, or all that are known.
fn child(name: &str, arguments: &[String]) {
    let policy = Policy::load(None).unwrap();
    let mut ways = if arguments.is_empty() { Ways::known(&policy) } else { Ways::default() };
    for argument in arguments {
        match argument.split_once(' ').unwrap() {
            ("tcp", address) => ways.tcp.push(address.parse().unwrap()),
            ("udp", address) => ways.udp.push(address.parse().unwrap()),
            ("socket", path) => ways.sockets.push(PathBuf::from(path)),
            (_, name) => ways.hidden.push(name.to_owned()),
        }
    }
    let confine = |program| {
        let had = moat_firewall::confine(program, &policy, Files::Known(&Paths::default()));
        println!("lacking={:?}", had.iter().filter(|(_, had)| had.is_err()).collect::<Vec<_>>());
    };
    match name {
        "free" => {}
        "engine" => confine(Program::Engine { network: None }),
        "moatd" => confine(MOATD),
        "systemd" => confine(SYSTEMD),
        "landlock" => {
            let mut had = moat_firewall::Protections::default();
            moat_firewall::confine_files(SYSTEMD, &policy, &Paths::default(), &mut had);
        }
        other => panic!("there is no child {other}"),
    }
    for Attempt { way, outcome } in ways.try_all() {
        match outcome {
            Outcome::Closed(error) => println!("{way}=closed {error}"),
            Outcome::Open(detail) => println!("{way}=open: {detail}"),
        }
    }
}

fn open(told: &BTreeMap<String, String>) -> Vec<&str> {
    told.iter().filter(|(_, result)| result.starts_with("open")).map(|(way, _)| way.as_str()).collect()
}

fn inside_every_way_is_closed() {
    for name in ["engine", "moatd"] {
        let told = told(&run(User::Same, name, &[]));
        assert_eq!(open(&told), [""; 0], "{name}: {told:#?}");
        assert!(told.len() > 40, "{told:#?}");
        for way in
            ["tcp 192.0.2.1:443", "udp 192.0.2.1:53", "vsock", "netlink route", "io_uring", "name service"]
        {
            assert!(told[way].starts_with("closed"), "{way}: {}", told[way]);
        }
    }
}

/// Somebody at the other end of each way.
struct Outside {
    _kept: (TcpListener, UdpSocket, UnixListener, UnixDatagram, UnixListener, tempfile::TempDir),
    ways: Vec<String>,
}

fn outside() -> Outside {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolved = folder.path().join("io.systemd.Resolve");
    let log = folder.path().join("log");
    let hidden = format!("moat-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(hidden.as_bytes()).unwrap();
    let ways = vec![
        format!("tcp {}", tcp.local_addr().unwrap()),
        format!("udp {}", udp.local_addr().unwrap()),
        format!("socket {}", resolved.display()),
        format!("socket {}", log.display()),
        format!("abstract {hidden}"),
    ];
    let kept = (
        tcp,
        udp,
        UnixListener::bind(resolved).unwrap(),
        UnixDatagram::bind(log).unwrap(),
        UnixListener::bind_addr(&address).unwrap(),
        folder,
    );
    Outside { _kept: kept, ways }
}

impl Outside {
    fn tried_by(&self, child: &str) -> BTreeMap<String, String> {
        let ways: Vec<_> = self.ways.iter().map(Path::new).collect();
        told(&run(User::Same, child, &ways))
    }
}

fn every_hole_is_found() {
    let outside = outside();
    let free = outside.tried_by("free");
    assert_eq!(open(&free).len(), outside.ways.len(), "{free:#?}");
    for confined in ["engine", "moatd"] {
        let told = outside.tried_by(confined);
        assert_eq!((open(&told), told.len()), (vec![], outside.ways.len() + 1), "{confined}: {told:#?}");
    }
}

/// A service of systemd's may connect to sockets in the file system, which its unit has to hide; and Landlock alone
/// stops TCP but lets datagrams out. The canary sees both.
fn what_one_fence_leaves_open_is_found() {
    let outside = outside();
    let systemd = outside.tried_by("systemd");
    let found = open(&systemd);
    assert!(found.iter().all(|way| way.starts_with("socket ")), "{systemd:#?}");
    let landlock = outside.tried_by("landlock");
    if systemd["lacking"] == "[]" {
        assert!(landlock[&outside.ways[0]].starts_with("closed"), "{landlock:#?}");
        assert!(
            open(&landlock).contains(&outside.ways[1].as_str()) || landlock[&outside.ways[1]] == "closed 13"
        );
    }
    println!("  beside a unit that hides nothing: {found:?}");
}

fn a_deadly_policy_is_not_tried() {
    let text =
        include_str!("../../../config/sandbox.toml").replace("unlisted = \"refuse\"", "unlisted = \"kill\"");
    assert_eq!(Ways::known(&Policy::parse(&text).unwrap()), Ways::default());
}

fn rounds_come_until_the_watch_ends() {
    let outside = outside();
    let ways =
        Ways { tcp: vec![outside.ways[0].split_once(' ').unwrap().1.parse().unwrap()], ..Ways::default() };
    let (sender, rounds) = mpsc::channel();
    let watch = watch(ways, Duration::from_millis(1), move |attempts| drop(sender.send(attempts))).unwrap();
    let mut counts = Counts::default();
    for _ in 0..3 {
        counts.add(&rounds.recv().unwrap());
    }
    let count = &counts.ways()[&outside.ways[0]];
    assert_eq!((count.tried, count.open), (3, 3));
    drop(watch);
    // The sender goes with its thread.
    while rounds.recv().is_ok() {}
}
