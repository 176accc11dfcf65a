//! Each thing that a confined process must not be able to do is tried by one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it does"
)]

mod prison;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use moat_contracts::Protection;
use moat_firewall::{Files, Paths, Policy, Program};
use prison::{User, call, run, tell, told};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MOATD: Program<'_> = Program::Moatd { starts_engines: true, under_systemd: false };
const ENGINE: Program<'_> = Program::Engine { network: None };

fn main() {
    prison::main(
        &[
            ("what_is_not_allowed_is_refused", what_is_not_allowed_is_refused),
            ("a_user_without_rights_is_confined_as_well", a_user_without_rights_is_confined_as_well),
            ("moatd_starts_its_engine_and_nothing_else", moatd_starts_its_engine_and_nothing_else),
            ("no_core_is_dumped", no_core_is_dumped),
            ("an_unlisted_call_can_be_made_deadly", an_unlisted_call_can_be_made_deadly),
            ("an_engine_in_the_namespace_that_moatd_emptied_knows_it", an_engine_knows_its_network),
            ("what_is_demanded_and_not_had_is_named", what_is_demanded_and_not_had_is_named),
            ("the_policy_is_sound_on_every_architecture", the_policy_is_sound_on_every_architecture),
            ("a_faulty_policy_is_refused", a_faulty_policy_is_refused),
        ],
        child,
    );
}

/// A folder with something inside and something outside of what a child may use.
fn place() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in [("read", 0o755), ("write", 0o777), ("outside", 0o777)] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        fs::write(folder.path().join(name).join("file"), name).unwrap();
        fs::set_permissions(folder.path().join(name).join("file"), fs::Permissions::from_mode(0o666))
            .unwrap();
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn child(name: &str, arguments: &[String]) {
    PARENT.set(std::os::unix::process::parent_id()).unwrap();
    let policy = Policy::load(None).unwrap();
    let folder = PathBuf::from(arguments.first().cloned().unwrap_or_default());
    let mut paths = Paths {
        read: vec![folder.join("read")],
        write: vec![folder.join("write")],
        execute: vec![folder.join("engine")],
        ..Paths::default()
    };
    match name {
        "engine" | "moatd" => {
            let program = if name == "moatd" { MOATD } else { ENGINE };
            if name == "engine" {
                paths.execute.clear();
            }
            let had = moat_firewall::confine(program, &policy, Files::Known(&paths));
            for (protection, had) in had.iter() {
                println!("{protection}={}", had.map_or_else(str::to_owned, |()| "had".to_owned()));
            }
            println!("missing={:?}", had.missing);
            files(&folder);
            calls();
            programs(&folder);
        }
        "core" | "free core" => {
            if name == "core" {
                moat_firewall::confine(ENGINE, &policy, Files::Known(&paths));
            }
            std::process::abort();
        }
        "deadly" => {
            let text = fs::read_to_string(&arguments[1]).unwrap();
            let policy =
                Policy::parse(&text.replace("unlisted = \"refuse\"", "unlisted = \"kill\"")).unwrap();
            let had = moat_firewall::confine(ENGINE, &policy, Files::Known(&paths));
            assert!(had.had(Protection::Seccomp));
            println!("alive=yes");
            tell("mount", call(libc::SYS_mount, [0; 6]));
            println!("alive=still");
        }
        "network" => {
            let had = moat_firewall::confine(MOATD, &policy, Files::Known(&Paths::default()));
            let name = moat_firewall::network().unwrap();
            let inherits = |network| {
                let again = moat_firewall::confine(Program::Engine { network }, &policy, Files::Later);
                again.had(Protection::Network)
            };
            println!("moatd={}", had.had(Protection::Network));
            println!("told={}", inherits(Some(&name)));
            println!("lied to={}", inherits(Some("net:[1]")));
        }
        other => panic!("there is no child {other}"),
    }
}

fn files(folder: &Path) {
    tell("read inside", fs::read(folder.join("read/file")));
    tell("list inside", fs::read_dir(folder.join("read")));
    tell("write where it may only read", fs::write(folder.join("read/file"), "x"));
    tell("make where it may only read", fs::write(folder.join("read/new"), "x"));
    tell("write inside", fs::write(folder.join("write/new"), "x"));
    tell("rename inside", fs::rename(folder.join("write/new"), folder.join("write/newer")));
    tell("remove inside", fs::remove_file(folder.join("write/newer")));
    tell("read outside", fs::read(folder.join("outside/file")));
    tell("list outside", fs::read_dir(folder.join("outside")));
    tell("write outside", fs::write(folder.join("outside/file"), "x"));
    tell("rename outward", fs::rename(folder.join("write/file"), folder.join("outside/moved")));
    tell("read the machine's keys", fs::read("/etc/hostname"));
    tell("read its parent's memory", fs::File::open(format!("/proc/{}/mem", parent())));
    tell("open a disk", fs::File::open("/dev/vda"));
}

/// Asked before the process is confined, when it may no longer.
static PARENT: OnceLock<u32> = OnceLock::new();

fn parent() -> i64 {
    i64::from(*PARENT.get().unwrap())
}

fn calls() {
    let named = [
        ("socket inet", libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
        ("socket inet6", libc::SYS_socket, [10, 2, 0, 0, 0, 0]),
        ("socket netlink", libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
        ("socket packet", libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
        ("socket vsock", libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
        ("socket alg", libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
        ("socketpair tipc", libc::SYS_socketpair, [30, 1, 0, 0, 0, 0]),
        ("socket of datagrams", libc::SYS_socket, [1, 2, 0, 0, 0, 0]),
        ("socketpair of datagrams", libc::SYS_socketpair, [1, 2, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0, 0, 0, 0, 0, 0]),
        ("sendto an address", libc::SYS_sendto, [0, 0, 0, 0, 8, 16]),
        ("sendmsg", libc::SYS_sendmsg, [0, 0, 0, 0, 0, 0]),
        ("ptrace its parent", libc::SYS_ptrace, [16, parent(), 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [parent(), 0, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0; 6]),
        ("umount2", libc::SYS_umount2, [0; 6]),
        ("pivot_root", libc::SYS_pivot_root, [0; 6]),
        ("chroot", libc::SYS_chroot, [0; 6]),
        ("io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0; 6]),
        ("keyctl", libc::SYS_keyctl, [0; 6]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 6]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 6]),
        ("kexec_load", libc::SYS_kexec_load, [0; 6]),
        ("init_module", libc::SYS_init_module, [0; 6]),
        ("setns", libc::SYS_setns, [0; 6]),
        ("unshare a user namespace", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        ("clone a network namespace", libc::SYS_clone, [0x4000_0000 | 17, 0, 0, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [0; 6]),
        ("execveat", libc::SYS_execveat, [0; 6]),
        ("be traceable again", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
        ("writable and executable memory", libc::SYS_mmap, [0, 4096, 7, 0x22, -1, 0]),
        ("executable memory later", libc::SYS_mprotect, [0, 0, 5, 0, 0, 0]),
        ("type into a terminal", libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]),
        ("paste into a console", libc::SYS_ioctl, [0, 0x541C, 0, 0, 0, 0]),
        ("signal its parent", libc::SYS_kill, [parent(), 0, 0, 0, 0, 0]),
    ];
    for (name, number, arguments) in named {
        tell(name, call(number, arguments));
    }
    tell("clone3", call(libc::SYS_clone3, [0; 6]));
    // The x32 calls of the same machine have numbers of their own.
    tell("x32", call(0x4000_0000 | 39, [0; 6]));
    let thread = std::thread::Builder::new().spawn(|| 7).map(|thread| assert_eq!(thread.join().unwrap(), 7));
    tell("thread", thread);
    let network = fs::read_to_string("/proc/self/net/dev").unwrap();
    println!("interfaces={}", network.lines().skip(2).count());
    println!("trie={}", fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default().contains("|--"));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs")) {
        let (name, value) = line.split_once(':').unwrap();
        println!("{name}={}", value.trim());
    }
    println!("core={:?}", getrlimit(Resource::Core).maximum);
}

fn programs(folder: &Path) {
    let start = |program: &Path| -> io::Result<()> {
        let status = Command::new(program).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("it failed")) }
    };
    tell("start the engine", start(&folder.join("engine")));
    tell("start another program", start(Path::new("/bin/true")));
    let own = folder.join("write/own");
    tell("copy a program", fs::copy(folder.join("read/file"), &own));
    tell("start a program of its own making", start(&own));
}

/// What the kernel of this machine can do at all: Landlock's generation.
fn landlock() -> i64 {
    call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0, 0]).unwrap_or(0)
}

fn hold(told: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (what, result) in expected {
        assert_eq!(told.get(*what).map(String::as_str), Some(*result), "{what}: {told:#?}");
    }
}

const EPERM: &str = "1";
const EACCES: &str = "13";
const ENOSYS: &str = "38";

/// What every confined program is refused.
fn hold_refused(told: &BTreeMap<String, String>) {
    hold(
        told,
        &[
            ("dumps", "had"),
            ("tracing", "had"),
            ("privileges", "had"),
            ("network", "had"),
            ("capabilities", "had"),
            ("seccomp", "had"),
            ("interfaces", "1"),
            ("trie", "false"),
            ("clone3", ENOSYS),
            ("thread", "ok"),
            ("core", "Some(0)"),
            ("NoNewPrivs", "1"),
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
        ],
    );
    for what in [
        "socket inet",
        "socket inet6",
        "socket netlink",
        "socket packet",
        "socket vsock",
        "socket alg",
        "socketpair tipc",
        "socket of datagrams",
        "socketpair of datagrams",
        "connect",
        "sendto an address",
        "ptrace its parent",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "io_uring",
        "bpf",
        "keyctl",
        "userfaultfd",
        "perf_event_open",
        "kexec_load",
        "init_module",
        "setns",
        "unshare a user namespace",
        "clone a network namespace",
        "personality",
        "memfd_create",
        "execveat",
        "be traceable again",
        "writable and executable memory",
        "executable memory later",
        "type into a terminal",
        "paste into a console",
        "signal its parent",
    ] {
        hold(told, &[(what, EPERM)]);
    }
    if cfg!(target_arch = "x86_64") {
        assert_ne!(told["x32"], "ok");
    }
    if landlock() < 1 {
        println!("  without Landlock: this kernel has none, so files are not held");
        return;
    }
    hold(
        told,
        &[
            ("landlock", "had"),
            ("read inside", "ok"),
            ("list inside", "ok"),
            ("write where it may only read", EACCES),
            ("make where it may only read", EACCES),
            ("write inside", "ok"),
            ("rename inside", "ok"),
            ("remove inside", "ok"),
            ("read outside", EACCES),
            ("list outside", EACCES),
            ("write outside", EACCES),
            ("rename outward", EACCES),
            ("read the machine's keys", EACCES),
            ("read its parent's memory", EACCES),
        ],
    );
    assert_ne!(told["open a disk"], "ok");
    hold(told, &[("landlock-tcp", "had")][..usize::from(landlock() >= 4)]);
    hold(told, &[("landlock-scope", "had")][..usize::from(landlock() >= 6)]);
}

fn what_is_not_allowed_is_refused() {
    let place = place();
    let told = told(&run(User::Same, "engine", &[place.path()]));
    hold_refused(&told);
    hold(&told, &[("missing", "[]"), ("start another program", EPERM), ("start the engine", EPERM)]);
    hold(&told, &[("sendmsg", EPERM)]);
    if prison::is_root() {
        hold(&told, &[("CapBnd", "0000000000000000")]);
    }
}

fn a_user_without_rights_is_confined_as_well() {
    if !prison::is_root() {
        println!("  left out: the other tests run without rights already");
        return;
    }
    let place = place();
    let told = told(&run(User::Nobody, "engine", &[place.path()]));
    if told["network"] != "had" {
        println!("  left out: this machine grants its users no namespaces: {}", told["network"]);
        return;
    }
    hold_refused(&told);
}

fn moatd_starts_its_engine_and_nothing_else() {
    let place = place();
    fs::copy("/bin/true", place.path().join("engine")).unwrap();
    let told = told(&run(User::Same, "moatd", &[place.path()]));
    hold_refused(&told);
    hold(&told, &[("start the engine", "ok"), ("copy a program", "ok")]);
    if landlock() >= 1 {
        hold(&told, &[("start another program", EACCES), ("start a program of its own making", EACCES)]);
    }
}

fn no_core_is_dumped() {
    let hard = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard }).unwrap();
    let place = place();
    std::env::set_current_dir(place.path()).unwrap();
    let free = run(User::Same, "free core", &[place.path()]).status;
    let confined = run(User::Same, "core", &[place.path()]).status;
    std::env::set_current_dir("/").unwrap();
    println!("  unconfined it {}", if free.core_dumped() { "dumps" } else { "cannot dump here either" });
    assert!(confined.signal().is_some() && !confined.core_dumped(), "{confined}");
}

fn an_unlisted_call_can_be_made_deadly() {
    let place = place();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/sandbox.toml");
    let output = run(User::Same, "deadly", &[place.path(), &policy]);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alive=yes\n");
}

fn an_engine_knows_its_network() {
    let told = told(&run(User::Same, "network", &[]));
    hold(&told, &[("moatd", "true"), ("told", "true"), ("lied to", "false")]);
}

fn what_is_demanded_and_not_had_is_named() {
    let had = moat_firewall::Protections::default();
    assert_eq!(had.demand(&[]), Ok(()));
    let lacking = had.demand(&[Protection::LandlockTcp, Protection::Seccomp]).unwrap_err().to_string();
    assert!(
        lacking.contains("landlock-tcp")
            && lacking.contains("seccomp")
            && lacking.contains("boundary.require")
    );
}

fn the_policy_is_sound_on_every_architecture() {
    let policy = Policy::load(None).unwrap();
    for architecture in ["x86_64", "aarch64"] {
        policy.compiles(architecture).unwrap();
        for program in [MOATD, ENGINE] {
            let calls = policy.calls(program, architecture);
            for never in
                ["ptrace", "bpf", "mount", "io_uring_setup", "unshare", "setns", "userfaultfd", "openat2"]
            {
                assert!(!calls.contains(never), "{never}");
            }
        }
        assert!(policy.calls(ENGINE, architecture).is_subset(&policy.calls(MOATD, architecture)));
    }
}

fn a_faulty_policy_is_refused() {
    let text = include_str!("../../../config/sandbox.toml");
    let wrong = [
        (text.replace("\"brk\"", "\"brkk\""), "brkk"),
        (text.replace("[common]", "[comon]"), "comon"),
        (text.replace("\"refuse\"", "\"allow\""), "allow"),
    ];
    for (text, named) in wrong {
        let message = Policy::parse(&text).unwrap_err();
        assert!(message.contains(named), "{message}");
    }
    let missing = Policy::load(Some(Path::new("/nowhere/sandbox.toml"))).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/sandbox.toml"), "{missing}");
}
