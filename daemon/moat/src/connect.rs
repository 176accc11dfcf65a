//! The conversation with moatd: one request, its updates, its final reply.

use std::io;
use std::path::{Path, PathBuf};

use moat_protocol::control::{Reply, Request};
use moat_protocol::{FrameError, Hello, read, write};
use tokio::net::UnixStream;

use crate::exit::{Exit, Failure};

/// The environment variable that names the socket.
const SOCKET_VARIABLE: &str = "MOAT_SOCKET";

/// The socket to call: named on the command line, else by the environment, else by the configuration.
pub(crate) fn socket(named: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let loaded = moat_settings::load(config).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    Ok(loaded.settings.socket())
}

/// A conversation that both sides have opened.
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects and greets.
    pub(crate) async fn open(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket).await;
        let mut stream = stream.map_err(|error| unreachable(socket, &error))?;
        write(&mut stream, &Hello::of("moat")).await.map_err(broken)?;
        let hello: Hello = read(&mut stream).await.map_err(broken)?.ok_or_else(gone)?;
        hello.expect("moatd").map_err(broken)?;
        Ok(Self { stream })
    }

    /// Sends the request.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Failure> {
        match write(&mut self.stream, request).await {
            // moatd may have answered and hung up already: its answer says more than the broken pipe.
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(broken),
        }
    }

    /// The next update, or the final reply.
    pub(crate) async fn next(&mut self) -> Result<Reply, Failure> {
        match read(&mut self.stream).await.map_err(broken)?.ok_or_else(gone)? {
            Reply::Failed { fault, message } => Err(Failure::new(fault.into(), message)),
            reply => Ok(reply),
        }
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::Unreachable,
            format!(
                "moatd is not reachable at {socket}: start it with `systemctl start moatd` or give --socket"
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::Denied,
            format!("this user may not call moatd at {socket}: add its uid to `control.uids` in moat.toml"),
        ),
        _ => Failure::new(
            Exit::Unreachable,
            format!("moatd is not reachable at {socket}: {error}; give the right one with --socket"),
        ),
    }
}

fn gone() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "moatd ended the conversation without a reply: its log says why (`journalctl -u moatd`)",
    )
}

fn broken(error: FrameError) -> Failure {
    match error {
        FrameError::Io(error)
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            gone()
        }
        FrameError::Torn => gone(),
        error => Failure::new(Exit::Internal, error.to_string()),
    }
}
