use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use moat_protocol::control::{Reply, Request};
use moat_protocol::{FrameError, Hello};
use moat_settings::Settings;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::answer;
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::people::Caller;

/// How long the end of the daemon waits for answers that are being made.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Binds the control socket. The state folder's lock is held already, so a socket that is there is a dead one.
pub(crate) fn bind(settings: &Settings) -> Result<UnixListener, Failure> {
    let socket = settings.socket();
    let failed =
        |error: std::io::Error| Failure::internal(format!("{} cannot be bound: {error}", socket.display()));
    fs::create_dir_all(&settings.daemon.runtime).map_err(failed)?;
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    // Anyone may connect and be told that they may not: who calls is asked of the kernel, not of the file's mode.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// Removes the socket at the end.
pub(crate) fn unlink(settings: &Settings) {
    if let Err(error) = fs::remove_file(settings.socket()) {
        debug!("the control socket cannot be removed: {error}");
    }
}

/// Answers callers until the daemon ends, and then waits a while for those who have an answer coming: what they asked
/// for still gets its last word in the ledger.
pub(crate) async fn serve(listener: UnixListener, daemon: Arc<Daemon>, intake: Intake) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (daemon, intake) = (daemon.clone(), intake.clone());
                    conversations.spawn(async move {
                        if let Err(error) = conversation(stream, &daemon, &intake).await {
                            debug!("a caller's connection ended: {error}");
                        }
                    });
                }
                Err(error) => {
                    warn!("a caller could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = conversations.join_next() => {}
            () = daemon.ending() => break,
        }
    }
    drop(listener);
    let answered = async { while conversations.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, answered).await.is_err() {
        warn!("{} callers were left without an answer", conversations.len());
        conversations.shutdown().await;
    }
}

async fn conversation(
    mut stream: UnixStream,
    daemon: &Arc<Daemon>,
    intake: &Intake,
) -> Result<(), FrameError> {
    let caller = Caller::from(&stream.peer_cred()?);
    moat_protocol::write(&mut stream, &Hello::of("moatd")).await?;
    let Some(hello) = moat_protocol::read::<Hello>(&mut stream).await? else { return Ok(()) };
    hello.expect("moat")?;
    let Some(request) = moat_protocol::read::<Request>(&mut stream).await? else { return Ok(()) };
    let reply =
        answer::on_record(daemon, intake, &caller, request, &mut stream).await.unwrap_or_else(Reply::from);
    moat_protocol::write(&mut stream, &reply).await
}
