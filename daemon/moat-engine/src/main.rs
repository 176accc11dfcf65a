//! `moat-engine`: the process that holds weights and one job's data. It shuts itself off from the network, takes one
//! job from `moatd` over one AF_UNIX connection, does it, answers and exits. It only joins the crates that train,
//! evaluate and serve; it keeps no state, opens no other connection, and prints no text that it was given.

mod faults;
mod jobs;
mod link;
mod protection;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use moat_protocol::engine::FromEngine;
use moat_tensor::StoredType;

use crate::link::Link;
use crate::protection::Protection;

const EXIT_CODES: &str = "Exit codes:
  0  the job was done, or stopped on request, and moatd was told
  1  the job failed, and moatd was told why
  2  the command line is wrong
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
    protection::keep_freed_memory();
    let protection = Protection::take();
    if arguments.probe {
        return print(&protection);
    }
    if let Some(folder) = &arguments.init {
        let stored = match arguments.stored {
            Stored::F32 => StoredType::F32,
            Stored::Bf16 => StoredType::Bf16,
        };
        return match moat_train::initialise(folder, arguments.seed, stored) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(1, &error.to_string()),
        };
    }
    faults::watch();
    let link = match (arguments.fd, &arguments.connect) {
        (Some(fd), _) => Link::inherited(fd),
        (None, Some(path)) => Link::connect(path),
        (None, None) => return complain(2, "either --fd or --connect is needed; moatd gives one"),
    };
    let mut link = match link {
        Ok(link) => link,
        Err(error) => return complain(3, &error.to_string()),
    };
    let last = faults::caught(|| jobs::run(&mut link, &protection, arguments.threads));
    let failed = matches!(last, FromEngine::Failed { .. });
    link.finish(&last);
    if failed { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

fn print(protection: &Protection) -> ExitCode {
    let line = serde_json::to_string(protection).unwrap_or_default();
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn complain(code: u8, reason: &str) -> ExitCode {
    eprintln!("moat-engine: {reason}");
    ExitCode::from(code)
}
