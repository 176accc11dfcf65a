use std::sync::{Arc, PoisonError};

use moat_protocol::control::{Key, NewSlot, Reply, Secret};
use moat_vault::{Kek, Share};
use tracing::info;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::safe::failure;

/// Keys that are wrapped again in one transaction.
const BATCH: usize = 4096;

/// Makes the vault.
pub(crate) async fn init(daemon: &Arc<Daemon>, intake: &Intake, with: NewSlot) -> Result<Reply, Failure> {
    let again = daemon.clone();
    let made = blocking(move || {
        let (kek, shares) = kek(with)?;
        again.safe().create(&kek)?;
        Ok(shares)
    });
    let shares = made.await?;
    opened(daemon, intake)?;
    info!("the vault was made");
    Ok(Reply::Shares(shares))
}

/// Opens the vault with a passphrase, or takes one share.
pub(crate) async fn unseal(daemon: &Arc<Daemon>, intake: &Intake, with: Key) -> Result<Reply, Failure> {
    let again = daemon.clone();
    let missing = blocking(move || match with {
        Key::Passphrase(mut text) => {
            again.safe().unseal(&Kek::passphrase(std::mem::take(&mut text.0).into()))?;
            Ok(0)
        }
        Key::Share(text) => {
            let share = Share::parse(&text.0).map_err(|error| Failure::request(error.to_string()))?;
            again.safe().give_share(share)
        }
    });
    if missing.await? == 0 {
        opened(daemon, intake)?;
        info!("unsealed on request");
    }
    Ok(Reply::Seal(daemon.safe().state()))
}

/// What goes on again once the vault is open.
fn opened(daemon: &Arc<Daemon>, intake: &Intake) -> Result<(), Failure> {
    daemon.opened()?;
    intake.wake();
    daemon.runs.notify_waiters();
    Ok(())
}

/// Wipes the keys from memory, now.
pub(crate) fn seal(daemon: &Arc<Daemon>) -> Reply {
    daemon.seal();
    info!("sealed on request");
    Reply::Seal(daemon.safe().state())
}

/// Adds a way to open the vault.
pub(crate) async fn add_slot(daemon: &Arc<Daemon>, with: NewSlot) -> Result<Reply, Failure> {
    let daemon = daemon.clone();
    blocking(move || {
        let (kek, shares) = kek(with)?;
        daemon.safe().vault()?.add_slot(&kek).map_err(failure)?;
        Ok(Reply::Shares(shares))
    })
    .await
}

/// Removes a way to open the vault.
pub(crate) async fn remove_slot(daemon: &Arc<Daemon>, id: u32) -> Result<Reply, Failure> {
    let daemon = daemon.clone();
    blocking(move || {
        daemon.safe().vault()?.remove_slot(id).map_err(failure)?;
        Ok(Reply::Seal(daemon.safe().state()))
    })
    .await
}

/// Moves every key to a new root. One that a kill cut off is finished.
pub(crate) async fn rotate(daemon: &Arc<Daemon>) -> Result<Reply, Failure> {
    let daemon = daemon.clone();
    blocking(move || {
        let _turn = daemon.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let vault = daemon.safe().vault()?;
        if vault.rotating().map_err(failure)?.is_none() {
            vault.begin_rotation().map_err(failure)?;
        }
        let catalog = daemon.state.catalog()?;
        loop {
            let batch = catalog.write()?;
            let moved = batch.rewrap(BATCH)?;
            batch.commit()?;
            if moved == 0 {
                break;
            }
        }
        // Under the write lock, so that nothing is wrapped meanwhile.
        let batch = catalog.write()?;
        vault.finish_rotation(batch.oldest_root()?).map_err(failure)?;
        batch.commit()?;
        Ok(Reply::Seal(daemon.safe().state()))
    })
    .await
}

fn kek(with: NewSlot) -> Result<(Kek, Vec<Secret>), Failure> {
    Ok(match with {
        NewSlot::Credential => (Kek::credential().map_err(failure)?, Vec::new()),
        NewSlot::Passphrase(mut text) => (Kek::passphrase(std::mem::take(&mut text.0).into()), Vec::new()),
        NewSlot::Shares { needed, of } => {
            let (kek, shares) = Kek::split(needed, of).map_err(failure)?;
            let shares = shares.iter().map(|share| Secret(share.to_text().to_string())).collect();
            (kek, shares)
        }
    })
}

/// A passphrase costs seconds and memory, which must not hold up the other callers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?
}
