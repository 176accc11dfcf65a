//! `moat`: the command line. It holds nothing itself: it asks moatd over a socket, and shows what moatd answers.

mod args;
mod bundle;
mod check;
mod connect;
mod exit;
mod ledger;
mod output;
mod progress;
mod render;
mod request;
mod restore;
mod secret;
mod verify;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use moat_protocol::control::{Reply, Request, RunState};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Arguments, Ledger, Run, Statement, Vault, Verb};
use crate::connect::Connection;
use crate::exit::{Exit, Failure};
use crate::output::{Output, notice};
use crate::progress::Progress;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let output = Output::new(arguments.json);
    match perform(&output, &arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => fail(&output, &failure),
    }
}

/// Help and version go to standard output and are no failure; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let message = first.strip_prefix("error: ").unwrap_or(first);
        return fail(&Output::new(true), &Failure::new(Exit::Usage, message));
    }
    // A closed pipe is the only way for this to fail, and there is no one left to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

fn fail(output: &Output, failure: &Failure) -> ExitCode {
    if output.json {
        if output.line(&failure.json()).is_err() {
            return Exit::Internal.into();
        }
    } else {
        notice(&format!("moat: {}\n", render::text::clean_lines(&failure.message)));
    }
    failure.exit.into()
}

fn perform(output: &Output, arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        Verb::Check(asked) => return check::check(output, asked, arguments.config.as_deref()),
        Verb::Verify { folder } => return verify::verify(output, folder),
        Verb::Restore { backup, state } => return restore::restore(output, backup, state),
        Verb::Bundle(verb) => return bundle::perform(output, verb),
        Verb::Ledger(Ledger::Verify { folder, key, witness }) => {
            return ledger::check(output, folder, key, witness.as_deref());
        }
        Verb::Ledger(Ledger::CheckReceipt { file, key }) => return ledger::check_receipt(output, file, key),
        _ => {}
    }
    if let Verb::Statement(Statement::Approve { id, .. }) = &arguments.verb {
        preview(output, arguments, id)?;
    }
    // Recipes and the prompt are read before the signals are taken over, so that Ctrl-C ends a waiting read.
    let Some(request) = request::request(&arguments.verb)? else { return Ok(Exit::Done) };
    let second = request::second(&arguments.verb)?;
    let socket = connect::socket(arguments.socket.as_deref(), arguments.config.as_deref())?;
    let failed = |error: std::io::Error| Failure::new(Exit::Internal, format!("moat cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut progress = Progress::new(output.json);
        let follow = matches!(
            &arguments.verb,
            Verb::Run(Run::Start { detach: false, .. } | Run::Resume { detach: false, .. })
        );
        let requests = (&request, second.as_ref());
        let reply = converse(&socket, requests, follow, &mut progress, &mut interrupt).await;
        progress.end();
        let reply = match reply? {
            Reply::Status(status) if matches!(&arguments.verb, Verb::Vault(Vault::Show)) => {
                Reply::Seal(status.seal)
            }
            reply => reply,
        };
        show(output, &request, &reply)?;
        Ok(Exit::Done)
    })
}

/// Shows a person what they are about to agree to, before they are asked for their password.
fn preview(output: &Output, arguments: &Arguments, id: &str) -> Result<(), Failure> {
    if output.json || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let socket = connect::socket(arguments.socket.as_deref(), arguments.config.as_deref())?;
    let failed = |error: std::io::Error| Failure::new(Exit::Internal, format!("moat cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut progress = Progress::new(false);
    let reply = runtime.block_on(ask(&socket, &Request::Statements, &mut progress))?;
    if let Reply::Statements(all) = reply {
        for statement in all.into_iter().filter(|statement| statement.id.starts_with(id)) {
            notice(&render::reply(&output.view, &Reply::Statement(Box::new(statement))));
        }
    }
    Ok(())
}

/// The final reply to a request, or to the second one where moatd knows nothing of the first; for a run that is to be
/// followed, the reply to watching it.
async fn converse(
    socket: &Path,
    (request, second): (&Request, Option<&Request>),
    follow: bool,
    progress: &mut Progress,
    interrupt: &mut Signal,
) -> Result<Reply, Failure> {
    let talk = async {
        let mut reply = ask(socket, request, progress).await;
        if let (Err(Failure { exit: Exit::Request, .. }), Some(second)) = (&reply, second) {
            reply = ask(socket, second, progress).await;
        }
        match reply? {
            Reply::Run(run) if follow => {
                progress.run = Some(run.name.clone());
                ask(socket, &Request::RunWatch { name: run.name }, progress).await
            }
            reply => Ok(reply),
        }
    };
    tokio::select! {
        reply = talk => return reply,
        _ = interrupt.recv() => {}
    }
    let message = match &progress.run {
        Some(run) => {
            let (watch, stop) = (format!("`moat run watch {run}`"), format!("`moat run stop {run}`"));
            format!("interrupted, but run {run} goes on: {watch} follows it, {stop} stops it")
        }
        None => "interrupted".to_owned(),
    };
    Err(Failure::new(Exit::Interrupted, message))
}

/// One request on a connection of its own, its updates shown.
async fn ask(socket: &Path, request: &Request, progress: &mut Progress) -> Result<Reply, Failure> {
    let mut connection = Connection::open(socket).await?;
    connection.send(request).await?;
    loop {
        match connection.next().await? {
            Reply::Update(update) => progress.update(&update)?,
            // moatd lets go of those who watch when it is told to end.
            Reply::Run(run) if matches!(request, Request::RunWatch { .. }) && run.state != RunState::Done => {
                let message =
                    format!("moatd ended before run {}, which goes on when moatd starts again", run.name);
                return Err(Failure::new(Exit::Unreachable, message));
            }
            reply => return Ok(reply),
        }
    }
}

fn show(output: &Output, request: &Request, reply: &Reply) -> Result<(), Failure> {
    if output.json {
        return output.line(reply);
    }
    output.page(&match (request, reply) {
        (Request::Shutdown, Reply::Done) => "moatd ends once its work in hand is safe\n".to_owned(),
        _ => render::reply(&output.view, reply),
    })
}
