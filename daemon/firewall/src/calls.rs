//! System calls: a list of names becomes a seccomp filter (seccomp(2)), in which some calls are allowed with harmless
//! arguments only.

use seccompiler::{BpfMap, BpfProgram, TargetArch, apply_filter_all_threads, compile_from_json};
use serde_json::{Value, json};

use crate::policy::{Policy, Program, Unlisted};

/// The clone flags that make namespaces (sched.h): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7E02_0000;
/// mman.h.
const WRITE_AND_EXECUTE: u64 = 6;
const EXECUTE: u64 = 4;
/// ioctls.h: TIOCSTI types into a terminal, TIOCLINUX pastes into a console.
const TYPING: [u64; 2] = [0x5412, 0x541C];
/// prctl.h: SET_NAME, GET_NAME, CAPBSET_READ, CAPBSET_DROP, SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS, CAP_AMBIENT.
const GIVING_UP: [u64; 7] = [15, 16, 23, 24, 38, 39, 47];
const SET_DUMPABLE: u64 = 4;

fn number(index: u8, operator: &Value, value: u64) -> Value {
    json!({"index": index, "type": "dword", "op": operator, "val": value})
}

/// socket(2): a stream, whatever flags come with it. Unlike a datagram socket it takes no address from sendmsg(2), whose
/// arguments no filter can look at.
const TYPE: u64 = 0xF;
const STREAM: u64 = 1;

/// What a call's arguments must be: one of these lists of conditions. Empty allows all.
fn narrowed(call: &str, program: Program<'_>) -> Vec<Value> {
    let equal = |index, value| number(index, &json!("eq"), value);
    let masked = |index, mask: u64, value| number(index, &json!({"masked_eq": mask}), value);
    let unlike = |index, value| number(index, &json!("ne"), value);
    let unix = libc::AF_UNIX.cast_unsigned().into();
    match call {
        "socket" if notifies(program) => vec![json!([equal(0, unix)])],
        "socket" | "socketpair" => vec![json!([equal(0, unix), masked(1, TYPE, STREAM)])],
        "sendto" => vec![json!([{"index": 4, "type": "qword", "op": "eq", "val": 0}])],
        "clone" => vec![json!([masked(0, NAMESPACES, 0)])],
        "mmap" => [0, 2, EXECUTE].map(|allowed| json!([masked(2, WRITE_AND_EXECUTE, allowed)])).to_vec(),
        "mprotect" => vec![json!([masked(2, EXECUTE, 0)])],
        "ioctl" => vec![json!(TYPING.map(|request| unlike(1, request)))],
        "prctl" => {
            let mut rules = GIVING_UP.map(|option| json!([equal(0, option)])).to_vec();
            rules.push(json!([equal(0, SET_DUMPABLE), equal(1, 0)]));
            rules
        }
        _ => Vec::new(),
    }
}

/// Whether it tells systemd how it stands, which is done by datagrams.
const fn notifies(program: Program<'_>) -> bool {
    matches!(program, Program::Moatd { under_systemd: true, .. })
}

/// The filters of a program, in the order in which they are to be applied.
pub(crate) fn filter(
    policy: &Policy,
    program: Program<'_>,
    architecture: &str,
) -> Result<[BpfProgram; 2], String> {
    let target = TargetArch::try_from(architecture).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for call in policy.calls(program, architecture) {
        match narrowed(call, program) {
            allowed if allowed.is_empty() => rules.push(json!({"syscall": call})),
            allowed => rules.extend(allowed.iter().map(|args| json!({"syscall": call, "args": args}))),
        }
    }
    let unlisted = match policy.unlisted() {
        Unlisted::Refuse => json!({"errno": libc::EPERM}),
        Unlisted::Kill => json!("kill_process"),
    };
    let both = json!({
        "unreadable": {
            "mismatch_action": "allow",
            "match_action": {"errno": libc::ENOSYS},
            "filter": [{"syscall": "clone3"}],
        },
        "listed": {"mismatch_action": unlisted, "match_action": "allow", "filter": rules},
    });
    let mut filters: BpfMap =
        compile_from_json(both.to_string().as_bytes(), target).map_err(|error| error.to_string())?;
    let mut take = |name| filters.remove(name).ok_or_else(|| format!("the filter `{name}` was not made"));
    Ok([take("unreadable")?, take("listed")?])
}

/// Confines the whole process to a program's calls.
pub(crate) fn confine(policy: &Policy, program: Program<'_>) -> Result<(), String> {
    for filter in filter(policy, program, std::env::consts::ARCH)? {
        apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}
