use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moat_ledger::{Act, Ledger, LedgerError, Phase, Who};
use moat_protocol::control::Request;
use moat_vault::Vault;
use tracing::warn;

use crate::daemon::Daemon;
use crate::failure::Failure;

/// What a caller's request is in the ledger; nothing for one that touches neither data, weights, keys nor rights.
/// What the caller wrote freely (prompts, paths of documents, beginnings of names) is not repeated.
pub(crate) fn act(request: &Request, who: Who) -> Option<Act> {
    let act = |name: &str| Act::new(who.clone(), name, Phase::Intent);
    Some(match request {
        Request::Status => return None,
        Request::Scan => act("source.scan"),
        Request::Why { .. } => act("document.why"),
        Request::DatasetBuild { recipe } => act("dataset.build").on("recipe", recipe.hash()),
        Request::Datasets => act("dataset.list"),
        Request::Dataset { .. } => act("dataset.show"),
        Request::DatasetDiff { .. } => act("dataset.diff"),
        Request::BaseImport { .. } => act("base.import"),
        Request::Bases => act("base.list"),
        Request::RunStart { recipe } => act("run.start").on("recipe", recipe.hash()),
        Request::Runs => act("run.list"),
        Request::Run { .. } => act("run.show"),
        Request::RunWatch { .. } => act("run.watch"),
        Request::RunStop { .. } => act("run.stop"),
        Request::RunResume { .. } => act("run.resume"),
        Request::Export { .. } => act("export.write"),
        Request::Ask { .. } => act("model.ask"),
        Request::VaultInit { .. } => act("vault.init"),
        Request::VaultUnseal { .. } => act("vault.unseal"),
        Request::VaultSeal => act("vault.seal"),
        Request::VaultSlotAdd { .. } => act("vault.slot-add"),
        Request::VaultSlotRemove { id } => act("vault.slot-remove").on("slot", id),
        Request::VaultRotate => act("vault.rotate"),
        Request::Ledger { .. } => act("ledger.read"),
        Request::LedgerReceipt { index } => act("ledger.receipt").on("entry", index),
        Request::Shutdown => act("daemon.end"),
    })
}

/// Does what an act announces once it is in the ledger, and writes there how it ended. What cannot be announced is not
/// done.
pub(crate) fn recorded<T>(
    ledger: &Ledger,
    act: &Act,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let intent = ledger.append(act)?;
    let result = work();
    ended(ledger, act, intent, &result);
    result
}

/// Writes how an announced act ended.
pub(crate) fn ended<T>(ledger: &Ledger, act: &Act, intent: u64, result: &Result<T, Failure>) {
    let phase = if result.is_ok() { Phase::Done } else { Phase::Failed };
    if let Err(error) = ledger.append(&act.follow(phase, intent)) {
        warn!("entry {intent} of the ledger keeps no word of how it ended: {error}");
    }
}

/// Gives the ledger its signing key, which is derived from the vault and never rotates.
pub(crate) fn unseal(ledger: &Ledger, vault: &Vault) -> Result<(), Failure> {
    let seed = vault.derived("ledger signing key").map_err(Failure::internal)?;
    ledger.unseal(seed.expose()).map_err(Failure::internal)
}

/// Signs the ledger as it stands, where anything was added since, and copies the checkpoint to the witness.
pub(crate) fn checkpoint(ledger: &Ledger, witness: &Path) -> Result<(), LedgerError> {
    if ledger.public_key().is_none() {
        return Ok(());
    }
    if ledger.last_checkpoint().is_none_or(|checkpoint| checkpoint.size != ledger.size()) {
        ledger.checkpoint()?;
    }
    // Also where nothing is new: the witness's medium may have been away the last time.
    if !witness.as_os_str().is_empty() {
        ledger.copy_checkpoint(witness)?;
    }
    Ok(())
}

/// Signs the ledger every so often until the daemon ends.
pub(crate) async fn checkpoints(daemon: Arc<Daemon>) {
    let settings = &daemon.settings.ledger;
    let mut said = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(settings.checkpoint_seconds)) => {}
            () = daemon.ending() => return,
        }
        let again = daemon.clone();
        let signed = tokio::task::spawn_blocking(move || {
            checkpoint(&again.ledger, &again.settings.ledger.witness).map_err(|error| error.to_string())
        });
        match signed.await.map_err(|error| error.to_string()).and_then(|signed| signed) {
            Ok(()) => said = false,
            Err(error) if !said => {
                warn!("the ledger cannot be signed: {error}");
                said = true;
            }
            Err(_) => {}
        }
    }
}
