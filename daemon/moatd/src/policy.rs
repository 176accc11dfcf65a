//! The site's policy: what the configuration says about what may leave, what may come in, and what is trained on.
//! Once the site is set up, a configuration that says another policy than the one agreed to stops all work on data
//! until two people agree.

use std::fs;

use moat_catalog::{Batch, PolicyRow};
use moat_contracts::Digest;
use moat_settings::Settings;
use serde_json::json;

use crate::daemon::{Daemon, now};
use crate::failure::Failure;

/// The policy's canonical text. To be made before foreign files are given up: it holds the sum of the sandbox's.
pub(crate) fn text(settings: &Settings) -> Result<String, String> {
    let sandbox = &settings.boundary.sandbox;
    let sandbox = if sandbox.as_os_str().is_empty() {
        None
    } else {
        let unread = |error| format!("{} cannot be read: {error}", sandbox.display());
        Some(Digest::of(&fs::read(sandbox).map_err(unread)?))
    };
    let sources: Vec<_> = settings
        .source
        .iter()
        .map(|source| json!({ "name": source.name, "path": source.path, "branch": source.branch, "policy": source.policy }))
        .collect();
    let policy = json!({
        "version": 1,
        "boundary": settings.boundary,
        "sandbox": sandbox,
        "witness": settings.ledger.witness,
        "sources": sources,
        "curation": settings.curation,
    });
    Ok(format!("{policy:#}\n"))
}

/// Why no work on data is done, where the configuration's policy is not the one agreed to.
pub(crate) fn refusal(daemon: &Daemon) -> Result<Option<String>, Failure> {
    let Some(agreed) = daemon.state.catalog()?.policy()? else { return Ok(None) };
    let wanted = Digest::of(daemon.policy.as_bytes());
    Ok((agreed.hash != wanted).then(|| {
        "the configuration says another policy than the one that was agreed to, so no work on data is done: \
         `moat policy request` asks for it, and somebody else agrees; or put the configuration back"
            .to_owned()
    }))
}

/// Puts a policy in force.
pub(crate) fn enact(batch: &Batch<'_>, text: &str, statement: Option<[u8; 16]>) -> Result<(), Failure> {
    let hash = Digest::of(text.as_bytes());
    Ok(batch.add_policy(&PolicyRow { hash, text: text.to_owned(), statement, since: now() })?)
}
