"""Compares the calls that strace saw with those that the sandbox's policy lists.

usage: calls.py POLICY TRACE...
"""

import platform
import re
import sys
import tomllib
from collections import Counter, defaultdict

# Listed although the tests' machine does not need them, and why.
EXPLAINED = {
    "clock_gettime": "where the kernel's clock page cannot be used",
    "clock_nanosleep": "a thread that waits for a time",
    "clone": "what the C library takes when clone3 is not there",
    "epoll_pwait": "epoll_wait of other machines",
    "exit": "the end of a thread",
    "faccessat": "access of other machines",
    "fchmodat": "chmod of other machines",
    "fdatasync": "SQLite where it is built with it",
    "getrusage": "the engine's peak memory",
    "mkdirat": "mkdir of other machines",
    "mlock": "keys are kept out of swap space",
    "mremap": "a large buffer that grows",
    "ppoll": "poll of other machines",
    "readlinkat": "readlink of other machines",
    "renameat2": "rename of other machines",
    "restart_syscall": "a wait that a stopped process goes on with",
    "rmdir": "a folder that was emptied",
    "rt_sigreturn": "the end of a signal's handler",
    "waitid": "a child's end where the kernel has no pidfd",
    "dup": "a program's start by the C library's other way",
    "dup3": "dup2 of other machines",
    "inotify_rm_watch": "a watched folder that is removed",
    "writev": "a log line in parts",
}
# What the canary tries, and the engine's own way into a namespace where it is in one already.
CANARY = ("unshare", "socket", "connect", "io_uring_setup", "uname")
SECTIONS = {
    "moatd": ["common", "moatd", "moatd-starts-engines", "moat-engine"],
    "moat-engine": ["common", "moat-engine", "moatd-starts-engines"],
}


def calls(section):
    return set(section.get("calls", [])) | set(section.get(platform.machine(), []))


def read(path, made, refused):
    """Attributes each line of a trace to the program that its process runs, from its seccomp filter on."""
    with open(path, errors="replace") as file:
        lines = file.read().splitlines()
    parent, program, confined = {}, {}, set()
    for line in lines:
        if match := re.match(r"(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (\d+)$", line):
            parent.setdefault(int(match[2]), int(match[1]))

    def top(pid, known):
        while pid not in known and pid in parent:
            pid = parent[pid]
        return pid

    for line in lines:
        if not (match := re.match(r"(\d+) +(\w+)\((.*)", line)):
            continue
        pid, call, rest = int(match[1]), match[2], match[3]
        if call == "execve" and (name := re.match(r'"[^"]*?([^"/]+)"', rest)):
            owner = program.get(top(pid, program))
            if owner in SECTIONS:
                made[owner][call] += 1
            program[pid] = name[1]
            confined.discard(pid)
            continue
        owner = program.get(top(pid, program))
        if owner not in SECTIONS:
            continue
        if owner == "moat-engine" or top(pid, confined) in confined:
            made[owner][call] += 1
            if " = -1 EPERM" in rest and call not in CANARY:
                refused[owner][f"{call}({rest.split(' = ')[0][:80]}"] += 1
        if call == "seccomp" and "SECCOMP_SET_MODE_FILTER" in rest:
            confined.add(pid)


def main():
    with open(sys.argv[1], "rb") as file:
        policy = tomllib.load(file)
    made, refused = defaultdict(Counter), defaultdict(Counter)
    for path in sys.argv[2:]:
        read(path, made, refused)
    needed = set().union(*made.values())
    wrong = 0
    for name, section in policy.items():
        if name == "moatd-under-systemd" or not isinstance(section, dict):
            continue
        for call in sorted(calls(section) - needed - set(EXPLAINED)):
            print(f"[{name}] {call}: listed, and no run made it")
            wrong += 1
    for program, list_of in refused.items():
        for what, times in list_of.most_common():
            print(f"{program}: refused {times} times: {what}")
    for program in made:
        of = set().union(*(calls(policy[name]) for name in SECTIONS[program]))
        print(f"{program}: {len(made[program])} different calls made, {len(of)} listed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
