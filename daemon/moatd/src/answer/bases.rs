use std::path::{Path, PathBuf};
use std::sync::Arc;

use moat_models::ImportedBase;
use moat_protocol::control::{Base, Reply};

use crate::daemon::Daemon;
use crate::failure::Failure;

/// Takes a base in from a folder.
pub(crate) async fn import(
    daemon: &Arc<Daemon>,
    folder: String,
    name: Option<String>,
) -> Result<Reply, Failure> {
    if !daemon.settings.may_import(Path::new(&folder)) {
        return Err(Failure::request(format!(
            "{folder} lies in no folder of boundary.imports: name one in the configuration, or start moatd with --import DIR"
        )));
    }
    let _alone = daemon.importing.lock().await;
    let daemon = daemon.clone();
    let imported = tokio::task::spawn_blocking(move || {
        moat_models::import(&PathBuf::from(folder), &daemon.state.bases(), name.as_deref())
    });
    let base = imported.await.map_err(Failure::internal)?.map_err(Failure::request)?;
    Ok(Reply::Base(shown(base)))
}

/// All bases.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let bases = moat_models::list(&daemon.state.bases()).map_err(Failure::internal)?;
    Ok(Reply::Bases(bases.into_iter().map(shown).collect()))
}

fn shown(base: ImportedBase) -> Base {
    Base {
        name: base.name,
        hash: base.hash,
        family: base.family,
        parameters: base.parameters,
        bytes: base.bytes,
        chat: base.chat,
    }
}
