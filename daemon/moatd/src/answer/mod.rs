//! One function for every verb: request in, reply out.

mod ask;
mod bases;
mod datasets;
mod export;
mod ledger;
mod runs;
mod status;
mod vault;
mod why;

use std::sync::Arc;

pub(crate) use status::canary;

use moat_protocol::control::{Reply, Request, Update};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;

/// Answers one request; updates go to the stream while it is being worked on.
pub(crate) async fn answer(
    daemon: &Arc<Daemon>,
    intake: &Intake,
    request: Request,
    stream: &mut UnixStream,
) -> Result<Reply, Failure> {
    let opens =
        matches!(request, Request::VaultInit { .. } | Request::VaultUnseal { .. } | Request::VaultSeal);
    let open = matches!(request, Request::Status | Request::Ledger { .. } | Request::Shutdown);
    if !opens && !open {
        daemon.safe().vault()?;
    }
    match request {
        Request::Status => Ok(status::status(daemon)),
        Request::Scan => {
            let curating = |update: &Update| matches!(update, Update::Curating { .. });
            while_telling(daemon, stream, curating, intake.scan()).await?;
            Ok(status::status(daemon))
        }
        Request::Why { path } => why::why(daemon, &path),
        Request::DatasetBuild { recipe } => {
            let building = |update: &Update| matches!(update, Update::Building { .. });
            while_telling(daemon, stream, building, datasets::build(daemon, *recipe)).await
        }
        Request::Datasets => datasets::list(daemon),
        Request::Dataset { id } => datasets::show(daemon, &id),
        Request::DatasetDiff { a, b } => datasets::diff(daemon, &a, &b),
        Request::BaseImport { folder, name } => bases::import(daemon, folder, name).await,
        Request::Bases => bases::list(daemon),
        Request::RunStart { recipe } => runs::start(daemon, *recipe),
        Request::Runs => runs::list(daemon),
        Request::Run { name } => runs::show(daemon, &name),
        Request::RunWatch { name } => runs::watch(daemon, &name, stream).await,
        Request::RunStop { name } => runs::stop(daemon, &name).await,
        Request::RunResume { name } => runs::resume(daemon, &name),
        Request::Export { run, folder } => export::export(daemon, &run, &folder).await,
        Request::Ask { run, prompt, chat, sampling } => ask::ask(daemon, run, prompt, chat, sampling).await,
        Request::VaultInit { with } => vault::init(daemon, intake, with).await,
        Request::VaultUnseal { with } => vault::unseal(daemon, intake, with).await,
        Request::VaultSeal => Ok(vault::seal(daemon)),
        Request::VaultSlotAdd { with } => vault::add_slot(daemon, with).await,
        Request::VaultSlotRemove { id } => vault::remove_slot(daemon, id).await,
        Request::VaultRotate => vault::rotate(daemon).await,
        Request::Ledger { act, before, most } => ledger::page(daemon, act, before, most),
        Request::LedgerReceipt { index } => ledger::receipt(daemon, index),
        Request::Shutdown => {
            daemon.end();
            Ok(Reply::Done)
        }
    }
}

/// Works on a request and meanwhile passes on the updates that concern it. A caller who hangs up is not waited for.
async fn while_telling<T>(
    daemon: &Daemon,
    stream: &mut UnixStream,
    concerns: impl Fn(&Update) -> bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut updates = daemon.updates.subscribe();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            update = updates.recv() => match update {
                Ok(update) if concerns(&update) => {
                    moat_protocol::write(stream, &Reply::Update(update)).await.map_err(Failure::internal)?;
                }
                // Missed updates are followed by newer ones.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return work.await,
            },
        }
    }
}
