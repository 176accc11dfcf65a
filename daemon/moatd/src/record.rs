use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use moat_ledger::{Act, Filter, Ledger, LedgerError, Phase, Who};
use moat_protocol::control::{Reply, Request};
use moat_vault::Vault;
use tracing::warn;

use crate::daemon::{Daemon, now};
use crate::failure::Failure;

/// What a caller's request is in the ledger; nothing for one that touches neither data, weights, keys nor rights.
/// What the caller wrote freely (prompts, paths of documents, beginnings of names) is not repeated.
pub(crate) fn act(request: &Request, who: Who) -> Option<Act> {
    let act = |name: &str| Act::new(who.clone(), name, Phase::Intent);
    Some(match request {
        Request::Api | Request::Status => return None,
        Request::Scan => act("source.scan"),
        Request::Sources => return None,
        Request::SourceList { .. } => act("source.list"),
        Request::SourceTest { .. } => act("source.test"),
        Request::SourceFaults { .. } => act("source.faults"),
        Request::SourcePause { .. } => act("source.pause"),
        Request::SourceResume { .. } => act("source.resume"),
        Request::SourceFolders { .. } => act("source.folders"),
        Request::SourceTry { .. } => act("source.try"),
        Request::SourceAdd { .. } => act("source.add"),
        Request::SourceRemove { .. } => act("source.remove"),
        Request::Why { .. } => act("document.why"),
        Request::DatasetBuild { recipe } => act("dataset.build").on("recipe", recipe.hash()),
        Request::Datasets => act("dataset.list"),
        Request::Dataset { .. } => act("dataset.show"),
        Request::DatasetDiff { .. } => act("dataset.diff"),
        Request::DatasetFacts { .. } => act("dataset.facts"),
        Request::RecordSearch { .. } => act("record.search"),
        Request::Record { .. } => act("record.show"),
        Request::Reviews { .. } => act("record.reviews"),
        Request::Review { judgement, .. } => act("record.review").detail("judgement", judgement.word()),
        Request::Tryout { most, seed, .. } => act("rules.try").detail("most", most).detail("seed", seed),
        Request::BaseImport { .. } => act("base.import"),
        Request::Bases => act("base.list"),
        Request::RunStart { recipe } => act("run.start").on("recipe", recipe.hash()),
        Request::RunPreview { recipe } => act("run.preview").on("recipe", recipe.hash()),
        Request::RunPlan { recipe } => act("run.plan").on("recipe", recipe.hash()),
        Request::RunCompare { .. } => act("run.compare"),
        Request::SweepStart { sweep } => act("sweep.start").on("recipe", sweep.recipe.hash()),
        Request::Sweeps => act("sweep.list"),
        Request::Sweep { .. } => act("sweep.show"),
        Request::SweepWatch { .. } => act("sweep.watch"),
        Request::SweepStop { .. } => act("sweep.stop"),
        Request::SweepResume { .. } => act("sweep.resume"),
        Request::Runs => act("run.list"),
        Request::Run { .. } => act("run.show"),
        Request::RunSteps { .. } => act("run.steps"),
        Request::RunWatch { .. } => act("run.watch"),
        Request::RunStop { .. } => act("run.stop"),
        Request::RunResume { .. } => act("run.resume"),
        Request::Export { .. } => act("export.request"),
        Request::RunCard { .. } => act("run.card"),
        Request::RunSample { .. } => act("run.sample"),
        Request::Ask { .. } => act("model.ask"),
        Request::VaultInit { .. } => act("vault.init"),
        Request::VaultUnseal { .. } => act("vault.unseal"),
        Request::VaultSeal => act("vault.seal"),
        Request::VaultSlotAdd { .. } => act("vault.slot-add"),
        Request::VaultSlotRemove { id } => act("vault.slot-remove").on("slot", id),
        Request::VaultRotate => act("vault.rotate"),
        Request::SetUp { .. } => act("site.set-up"),
        Request::Invite => act("site.invite"),
        Request::Enlist { .. } => act("site.enlist"),
        Request::EnlistConfirm { .. } => act("site.confirm"),
        Request::Accounts => act("account.list"),
        Request::AccountCreate { .. } => act("account.create"),
        Request::AccountRoles { .. } => act("role.request"),
        Request::AccountDisable { .. } => act("account.disable"),
        Request::AccountReset { .. } => act("account.reset"),
        Request::PolicyRequest { .. } => act("policy.request"),
        Request::Statements => act("statement.list"),
        Request::Approve { .. } => act("statement.approve"),
        Request::Withdraw { .. } => act("statement.withdraw"),
        Request::ApiKeys => act("key.list"),
        Request::ApiKeyCreate { .. } => act("key.create"),
        Request::ApiKeyRevoke { .. } => act("key.revoke"),
        Request::Ledger { .. } => act("ledger.read"),
        Request::LedgerReceipt { index } => act("ledger.receipt").on("entry", index),
        Request::Backup { .. } => act("backup.create"),
        Request::Shutdown => act("daemon.end"),
    })
}

/// What the end of an act tells beyond its beginning: of whom and of what, now that it is known.
pub(crate) fn told(mut act: Act, reply: &Reply) -> Act {
    let statement = match reply {
        Reply::Statement(statement) => Some(statement),
        Reply::Exported(exported) => Some(&exported.statement),
        _ => None,
    };
    if let Some(said) = statement {
        act = act.on("statement", &said.id).on("sha256", &said.hash).detail("kind", &said.kind);
        act = act.detail("bytes", said.bytes).detail("destination", &said.destination);
        act = act.detail("requester", &said.requester).detail("expires", said.expires);
        if let Some(recipient) = &said.recipient {
            act = act.detail("recipient", recipient);
        }
        if let Some(approver) = &said.approver {
            act = act.detail("approver", approver);
        }
        if let Some(asked) = &said.source {
            act = act.on("source", &asked.definition.name);
        }
        return act;
    }
    match reply {
        Reply::SourceListing(shown) => act.on("source", &shown.source).detail("entries", shown.entries.len()),
        Reply::SourceTrial(found) => act.on("source", &found.source).detail("problems", found.problems.len()),
        Reply::SourceFolders(shown) => act.detail("folders", shown.folders.len()),
        Reply::SourceRemoved(gone) => act.on("source", &gone.source).detail("documents", gone.documents),
        Reply::SourceFaults(found) => {
            act.on("source", &found.source).detail("documents", found.documents.len())
        }
        Reply::Sources(changed) => match changed.first_key_value() {
            Some((source, _)) => act.on("source", source),
            None => act,
        },
        Reply::Made(made) => {
            let names: Vec<_> = made.iter().map(|account| account.name.as_str()).collect();
            act.on("account", names.join(","))
        }
        Reply::Accounts(changed) if changed.len() == 1 => act.on("account", &changed[0].name),
        Reply::ApiKeys(changed) if changed.len() == 1 => act.on("key", &changed[0].id),
        Reply::BackedUp(made) => act.on("backup", made.hash).detail("bytes", made.bytes),
        Reply::Preview(shown) if shown.preview.example.is_empty() => act.on("dataset", shown.dataset),
        Reply::Preview(shown) => act.on("dataset", shown.dataset).on("record", shown.preview.record),
        Reply::Sweep(sweep) => act.on("sweep", &sweep.name).detail("runs", sweep.of),
        Reply::Records(found) => act.detail("looked", found.looked).detail("found", found.found.len()),
        Reply::Record(shown) => act.on("record", shown.record),
        Reply::Reviewed(decided) => act.on("record", decided.record).detail("records", decided.records),
        Reply::Tryout(tried) => act.on("rules", tried.tried).detail("judged", tried.judged),
        Reply::Sample(shown) => act.on("run", &shown.run).on("record", shown.record),
        Reply::Answer(completions) => {
            let bytes: usize = completions.iter().map(|completion| completion.text.len()).sum();
            act.detail("bytes", bytes)
        }
        _ => act,
    }
}

/// Refusals that each get an entry in a minute.
const REFUSALS: u32 = 60;

/// Refusals in the ledger: a caller who may do nothing must not fill the disk with being told so.
#[derive(Default)]
pub(crate) struct Refusals {
    /// Minutes since 1970, and entries written in that one.
    minute: (i64, u32),
    /// Refusals that got no entry.
    untold: u64,
}

/// Writes that an act was not allowed; of very many in one minute the number only.
pub(crate) fn refused(daemon: &Daemon, act: &Act) -> Result<(), Failure> {
    let mut refusals = daemon.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    let minute = now() / 60;
    if refusals.minute.0 != minute {
        refusals.minute = (minute, 0);
    }
    if refusals.minute.1 >= REFUSALS {
        refusals.untold += 1;
        return Ok(());
    }
    refusals.minute.1 += 1;
    let mut act = act.refused();
    if refusals.untold > 0 {
        act = act.detail("untold", refusals.untold);
    }
    daemon.ledger.append(&act)?;
    refusals.untold = 0;
    Ok(())
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

/// Whether the ledger tells that accounts were made.
pub(crate) fn was_set_up(ledger: &Ledger) -> Result<bool, Failure> {
    let filter = Filter { act: Some("site.set-up".to_owned()), ..Filter::default() };
    let page = ledger.entries(&filter, None, usize::MAX).map_err(Failure::internal)?;
    Ok(page.entries.iter().any(|entry| entry.phase == Phase::Done))
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
