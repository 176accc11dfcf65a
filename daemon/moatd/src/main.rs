//! `moatd`: catalog, curation, scheduler and the control socket, joined from the stages' crates. Wiring only.
//!
//! It never connects anywhere: it listens on one AF_UNIX socket, speaks to the engines that it started itself over
//! socket pairs, and gives up its network before it reads a byte of data.

mod answer;
mod api;
mod boundary;
mod control;
mod counts;
mod daemon;
mod description;
mod engine;
mod examples;
mod failure;
mod intake;
mod lineage;
mod pace;
mod people;
mod pipeline;
mod policy;
mod port;
mod record;
mod runs;
mod safe;
mod service;
mod sources;
mod state;
mod team;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use moat_protocol::control::Fault;
use moat_settings::{Settings, SourceKind, SourceSettings};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// Moat's daemon: watches the sources, curates, trains, and answers `moat`.
///
/// Exit codes: 0 ended on request; 1 failed while running; 2 wrong arguments or configuration, or a protection that the
/// configuration demands cannot be had.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: $MOAT_CONFIG, /etc/moat/moat.toml, or built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of catalog, bases and runs, in place of daemon.state
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder of control.sock, in place of daemon.runtime
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// A folder from which bases may be imported, in addition to boundary.imports; may be repeated
    #[arg(long, value_name = "DIR")]
    import: Vec<PathBuf>,
    /// A folder in which exports may be written, in addition to boundary.exports; may be repeated
    #[arg(long, value_name = "DIR")]
    export: Vec<PathBuf>,
    /// A folder source, in addition to the configured ones; may be repeated
    #[arg(long, value_name = "NAME=DIR", value_parser = named_folder)]
    source: Vec<(String, PathBuf)>,
}

fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("must be written NAME=DIR")?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), path))
}

/// The settings in force, or every fault of them.
fn settings(arguments: Arguments) -> Result<Settings, String> {
    let loaded = moat_settings::load(arguments.config.as_deref()).map_err(|error| error.to_string())?;
    let mut settings = loaded.settings;
    if let Some(state) = arguments.state {
        settings.daemon.state = std::path::absolute(state).map_err(|error| error.to_string())?;
    }
    if let Some(runtime) = arguments.runtime {
        settings.daemon.runtime = std::path::absolute(runtime).map_err(|error| error.to_string())?;
    }
    for (more, folders) in [
        (arguments.import, &mut settings.boundary.imports),
        (arguments.export, &mut settings.boundary.exports),
    ] {
        for folder in more {
            folders.push(std::path::absolute(folder).map_err(|error| error.to_string())?);
        }
    }
    for (name, path) in arguments.source {
        settings.source.push(SourceSettings {
            name,
            path,
            kind: SourceKind::Folder,
            ..SourceSettings::default()
        });
    }
    let faults = settings.faults();
    if faults.is_empty() {
        return Ok(settings);
    }
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect();
    Err(lines.join("\n"))
}

fn main() -> ExitCode {
    let level = tracing_subscriber::EnvFilter::try_from_env("MOAT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(level).with_target(false).with_writer(std::io::stderr).init();
    let settings = match settings(Arguments::parse()) {
        Ok(settings) => settings,
        Err(message) => {
            for line in message.lines() {
                error!("{line}");
            }
            return ExitCode::from(2);
        }
    };
    let sockets = match port::sockets(&settings) {
        Ok(sockets) => sockets,
        Err(message) => {
            error!("{message}");
            return ExitCode::from(2);
        }
    };
    let policy = match policy::text(&settings) {
        Ok(policy) => policy,
        Err(message) => {
            error!("{message}");
            return ExitCode::from(2);
        }
    };
    // Before any thread exists, since most of it is given up thread by thread.
    let boundary = match boundary::take(&settings) {
        Ok(boundary) => boundary,
        Err(message) => {
            error!("{message}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("threads cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(settings, policy, boundary, sockets)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{}", failure.message);
            // What asks for other than what is there is for a person to see to; starting again does not help.
            if failure.fault == Fault::Request { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(
    settings: Settings,
    policy: String,
    boundary: boundary::Boundary,
    sockets: Vec<std::net::TcpListener>,
) -> Result<(), failure::Failure> {
    let daemon = daemon::Daemon::open(settings, policy, boundary.protections())?;
    let _canary = boundary.watch(&daemon)?;
    let listener = control::bind(&daemon.settings)?;
    let intake = intake::start(&daemon)?;
    let runner = tokio::spawn(runs::run_all(daemon.clone()));
    let signer = tokio::spawn(record::checkpoints(daemon.clone()));
    let expiry = tokio::spawn(answer::statements::expire(daemon.clone()));
    let server = tokio::spawn(control::serve(listener, daemon.clone(), intake.clone()));
    let port = port::open(&daemon, &intake, sockets)?;
    info!("ready at {}", daemon.settings.socket().display());
    service::notify("READY=1");
    let watchdog = tokio::spawn(service::answer_watchdog());

    let mut terminate = signal(SignalKind::terminate()).map_err(failure::Failure::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure::Failure::internal)?;
    tokio::select! {
        _ = terminate.recv() => info!("asked to end by SIGTERM"),
        _ = interrupt.recv() => info!("asked to end by SIGINT"),
        () = daemon.ending() => info!("asked to end by moat"),
    }
    service::notify("STOPPING=1");
    daemon.end();
    // The run in hand writes its checkpoint; the intake finishes its batch.
    let (runner, intake, server) =
        tokio::join!(runner, tokio::task::spawn_blocking(move || intake.join()), server);
    watchdog.abort();
    for task in port {
        task.await.map_err(failure::Failure::internal)?;
    }
    runner.and(intake).and(server).and(signer.await).and(expiry.await).map_err(failure::Failure::internal)?;
    if let Err(error) = record::checkpoint(&daemon.ledger, &daemon.settings.ledger.witness) {
        warn!("the ledger's end is not signed: {error}");
    }
    control::unlink(&daemon.settings);
    info!("ended");
    Ok(())
}
