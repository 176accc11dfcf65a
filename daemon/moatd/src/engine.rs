use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use moat_protocol::engine::FromEngine;
use moat_protocol::{FrameError, Hello};
use moat_settings::{EnginePlace, Settings};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::warn;

use crate::boundary;
use crate::failure::Failure;

/// What an engine is wanted for: where a service manager starts them, it keeps the two apart.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Trains and examines.
    Train,
    /// Answers and merges.
    Serve,
}

/// One `moat-engine` process with one job. Dropping it ends the process: a child is killed, and one that a service
/// manager started ends with its connection.
pub(crate) struct Engine {
    child: Option<Child>,
    /// Filled by a task of its own, since a frame must not be given up half read.
    input: mpsc::Receiver<Result<FromEngine, FrameError>>,
    /// Taken by whoever feeds the engine.
    output: Option<OwnedWriteHalf>,
}

/// Why an engine gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("the engine {place} cannot be started: {error}")]
    Start { place: String, error: std::io::Error },
    #[error("the engine ended before its job was done ({how}); what it had saved is kept")]
    Died { how: String },
    #[error("the engine could not be spoken to: {0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Failed(String),
    #[error("the engine answered something that was not asked")]
    Unexpected,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::internal(error)
    }
}

impl Engine {
    /// Gets an engine from where the settings say, and greets it.
    pub(crate) async fn start(settings: &Settings, work: Work) -> Result<Self, EngineError> {
        let (stream, child) = match boundary::place(settings) {
            EnginePlace::Program(program) => {
                let failed = |error| EngineError::Start { place: program.display().to_string(), error };
                let (stream, child) = spawn(&program, settings).map_err(failed)?;
                (stream, Some(child))
            }
            EnginePlace::Sockets(folder) => {
                let socket = folder.join(match work {
                    Work::Train => "train.sock",
                    Work::Serve => "serve.sock",
                });
                let failed = |error| EngineError::Start { place: socket.display().to_string(), error };
                (UnixStream::connect(&socket).await.map_err(failed)?, None)
            }
        };
        let (mut stream, output) = stream.into_split();
        let (sender, input) = mpsc::channel(64);
        let mut engine = Self { child, input, output: Some(output) };
        engine.job(&Hello::of("moatd")).await?;
        match moat_protocol::read::<Hello>(&mut stream).await {
            Ok(Some(hello)) => hello.expect("moat-engine")?,
            Ok(None) | Err(FrameError::Io(_) | FrameError::Torn) => return Err(engine.died().await),
            Err(error) => return Err(error.into()),
        }
        tokio::spawn(async move {
            while let Some(message) = moat_protocol::read(&mut stream).await.transpose() {
                let last = message.is_err();
                if sender.send(message).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(engine)
    }

    /// Sends the greeting or the job.
    pub(crate) async fn job(&mut self, message: &impl serde::Serialize) -> Result<(), EngineError> {
        let Some(output) = &mut self.output else { return Err(EngineError::Unexpected) };
        match moat_protocol::write(output, message).await {
            Ok(()) => Ok(()),
            Err(FrameError::Io(_)) => Err(self.died().await),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands over sockets that are connected with other engines, with one byte (unix(7), `SCM_RIGHTS`).
    pub(crate) async fn share(&mut self, sockets: Vec<StdStream>) -> Result<(), EngineError> {
        let Some(output) = &self.output else { return Err(EngineError::Unexpected) };
        let stream: &UnixStream = output.as_ref();
        let shared: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let sent = stream.async_io(Interest::WRITABLE, || {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(shared.len()))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&shared));
            sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        });
        match sent.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died().await),
        }
    }

    /// Hands the sending side to whoever feeds examples and asks for a stop.
    pub(crate) fn feeder(&mut self) -> Result<OwnedWriteHalf, EngineError> {
        self.output.take().ok_or(EngineError::Unexpected)
    }

    /// The engine's next word; may be given up on while waiting. Its failure, and its death, are errors.
    pub(crate) async fn next(&mut self) -> Result<FromEngine, EngineError> {
        loop {
            return match self.input.recv().await {
                Some(Ok(FromEngine::Confined(held))) => {
                    crate::boundary::confined("moat-engine", held);
                    continue;
                }
                Some(Ok(FromEngine::Canary(attempts))) => {
                    crate::boundary::tried("moat-engine", &attempts);
                    continue;
                }
                Some(Ok(FromEngine::Failed { reason })) => Err(EngineError::Failed(reason)),
                Some(Ok(message)) => Ok(message),
                None | Some(Err(FrameError::Io(_) | FrameError::Torn)) => Err(self.died().await),
                Some(Err(error)) => Err(error.into()),
            };
        }
    }

    /// The engine's last word, for jobs whose progress nobody needs.
    pub(crate) async fn result(&mut self) -> Result<FromEngine, EngineError> {
        loop {
            match self.next().await? {
                FromEngine::Progress(_) => {}
                last => return Ok(last),
            }
        }
    }

    async fn died(&mut self) -> EngineError {
        let Some(child) = &mut self.child else {
            let how = "its connection closed; `journalctl -u 'moat-engine-*'` says how".to_owned();
            return EngineError::Died { how };
        };
        match child.wait().await {
            Ok(status) => EngineError::Died { how: ending(status) },
            Err(error) => EngineError::Died { how: error.to_string() },
        }
    }
}

/// Starts the program: no arguments but its socket as standard input, no environment but what it needs.
fn spawn(program: &Path, settings: &Settings) -> std::io::Result<(UnixStream, Child)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(program);
    command
        .args(["--fd", "0"])
        .args(crate::boundary::arguments(settings))
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)));
    for name in ["MOAT_LOG", "RAYON_NUM_THREADS"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        && let Err(error) = rustix::process::setpriority_process(Some(pid), i32::from(settings.training.nice))
    {
        warn!("the engine's niceness cannot be set: {error}");
    }
    Ok((UnixStream::from_std(ours)?, child))
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "killed by signal 9; if nobody did that, the machine ran out of memory".to_owned(),
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "no exit code".to_owned(),
    }
}
