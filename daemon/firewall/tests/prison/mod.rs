//! Tests whose children are this very program: a child confines itself before it has a second thread, tries things, and
//! prints what came of them.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the child that the arguments name, or else every test whose name they hold.
pub(crate) fn main(tests: &[(&str, fn())], child: fn(&str, &[String])) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--child") {
        return child(&arguments[at + 1], &arguments[at + 2..]);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            println!("test {name}");
            test();
        }
    }
    println!("test result: ok");
}

/// What a child is run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Same,
    /// Nobody in particular, where root runs the tests.
    Nobody,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a child to its end.
pub(crate) fn run(user: User, name: &str, arguments: &[&Path]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", name]).args(arguments).stdin(Stdio::null());
    if user == User::Nobody {
        // Programs in a folder of root's are out of nobody's reach: it runs what is open already.
        let copy = arguments[0].join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        command = Command::new(copy);
        command.args(["--child", name]).args(arguments).stdin(Stdio::null()).uid(65534).gid(65534);
    }
    command.output().unwrap()
}

/// What a child that ended well printed: `what=result` a line.
pub(crate) fn told(output: &Output) -> BTreeMap<String, String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// Prints what came of something: `ok`, or the error's number.
pub(crate) fn tell<T>(what: &str, result: io::Result<T>) {
    match result {
        Ok(_) => println!("{what}=ok"),
        Err(error) => println!("{what}={}", error.raw_os_error().unwrap_or(-1)),
    }
}

/// A system call by its number.
#[allow(unsafe_code)]
pub(crate) fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the tests pass numbers that the kernel refuses, or null pointers, which it checks.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
