//! `moat-engine`: the process that holds weights and one job's data. It shuts itself off from the network, takes one
//! job from `moatd` over one AF_UNIX connection, does it, answers and exits. It only joins the crates that train,
//! evaluate and serve; it keeps no state, opens no other connection, and prints no text that it was given.

mod boundary;
mod faults;
mod jobs;
mod link;
mod memory;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use moat_firewall::Paths;
use moat_protocol::FrameError;
use moat_protocol::engine::FromEngine;
use moat_tensor::StoredType;

use crate::boundary::{Boundary, Demands};
use crate::link::Link;

const EXIT_CODES: &str = "Exit codes:
  0  the job was done, or stopped on request, and moatd was told
  1  the job failed, and moatd was told why
  2  the command line is wrong, or the machine lacks a protection that is required
  3  the connection to moatd ended or could not be had; nothing half-written stays under its final name";

/// Does one job for moatd: trains, evaluates, exports or answers. Started by moatd.
#[derive(Parser)]
#[command(name = "moat-engine", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Speak on this inherited AF_UNIX socket; 0 is standard input.
    #[arg(long, value_name = "N", conflicts_with = "connect")]
    fd: Option<i32>,
    /// Connect to the AF_UNIX socket at this path.
    #[arg(long, value_name = "PATH")]
    connect: Option<PathBuf>,
    /// Worker threads where the job leaves it open; 0 takes every core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    boundary: Demands,
    /// Print as JSON which protections this machine grants, and exit.
    #[arg(long)]
    probe: bool,
    /// Give a folder that holds config.json fresh random weights to be trained in full, and exit.
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    /// Decides the weights of --init.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "init")]
    seed: u64,
    /// How --init stores them; training in full keeps to it.
    #[arg(long, value_enum, default_value_t = Stored::F32, requires = "init")]
    stored: Stored,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    moat_train::settle_allocator();
    moat_train::watch_memory();
    // What leads to moatd is opened first: once confined, the engine can open no socket.
    let alone = arguments.probe || arguments.init.is_some();
    let link = match (arguments.fd, &arguments.connect) {
        _ if alone => None,
        (Some(fd), _) => Some(link::inherited(fd)),
        (None, Some(path)) => Some(link::connect(path)),
        (None, None) => return complain(2, "either --fd or --connect is needed; moatd gives one"),
    };
    let mut boundary = match Boundary::take(arguments.boundary) {
        Ok(boundary) => boundary,
        Err(reason) => return complain(2, &reason),
    };
    let Some(link) = link else {
        return alone_with(boundary, arguments.init, arguments.seed, arguments.stored);
    };
    faults::watch();
    let greeted = link.map_err(FrameError::from).and_then(Link::greet);
    let (mut link, job) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return complain(3, &error.to_string()),
    };
    let peers = match link.peers(&job) {
        Ok(peers) => peers,
        Err(error) => return complain(3, &format!("the other engines of the run: {error}")),
    };
    // Once confined, the engine may not read it.
    let allowed = memory::allowed();
    let closed = boundary.close(&job);
    if let Err(error) = link.listen() {
        return complain(3, &error.to_string());
    }
    link.send(&FromEngine::Confined(boundary.held()));
    let last = match closed {
        Ok(()) => {
            faults::caught(|| jobs::run(&mut link, job, peers, &boundary, (arguments.threads, allowed)))
        }
        Err(reason) => FromEngine::Failed { reason },
    };
    let failed = matches!(last, FromEngine::Failed { .. });
    link.finish(&last);
    if failed { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// What is done without moatd: fresh weights for a folder, or else the probe.
fn alone_with(mut boundary: Boundary, init: Option<PathBuf>, seed: u64, stored: Stored) -> ExitCode {
    let paths = Paths { write: init.iter().cloned().collect(), ..Paths::default() };
    if let Err(reason) = boundary.close_around(&paths) {
        return complain(2, &reason);
    }
    let Some(folder) = init else { return print(&boundary) };
    let stored = match stored {
        Stored::F32 => StoredType::F32,
        Stored::Bf16 => StoredType::Bf16,
    };
    match moat_train::initialise(&folder, seed, stored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &error.to_string()),
    }
}

fn print(boundary: &Boundary) -> ExitCode {
    let had: BTreeMap<_, _> = boundary.had().collect();
    let line = serde_json::to_string(&had).unwrap_or_default();
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn complain(code: u8, reason: &str) -> ExitCode {
    eprintln!("moat-engine: {reason}");
    ExitCode::from(code)
}
