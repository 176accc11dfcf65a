//! The admin port: which sockets, which certificate, what it shows.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moat_admin::{Authority, Certificates, Identity, Limits, Stay, serve, site};
use moat_settings::{AdminSettings, Settings};
use moat_vault::{SealedFolder, Vault};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::web::Web;

/// How often it is looked whether the certificate's files were replaced, and the vault opened.
const LOOK: Duration = Duration::from_secs(1);

/// How long a certificate of Moat's own is shown before a fresh one takes its place.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The listening sockets that systemd passed (sd_listen_fds(3)), or, outside systemd, the one that the settings name.
/// To be called before the network is given up: a socket stays where it was made.
pub(crate) fn sockets(settings: &Settings) -> Result<Vec<TcpListener>, String> {
    let passed = systemd::daemon::listen_fds().map_err(|error| format!("systemd's sockets: {error}"))?;
    let mut sockets = Vec::new();
    for fd in passed.iter() {
        let tcp =
            systemd::daemon::is_socket_inet(fd, None, None, systemd::daemon::Listening::IsListening, None);
        if !tcp.map_err(|error| format!("systemd's sockets: {error}"))? {
            return Err(
                "systemd passed a socket that is no listening TCP socket: see moatd.socket".to_owned()
            );
        }
        #[allow(unsafe_code)]
        // SAFETY: sd_listen_fds gave the descriptor to this process, and nothing else here takes it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        sockets.push(TcpListener::from(owned));
    }
    if sockets.is_empty() && !settings.admin.listen.is_empty() {
        let bound = TcpListener::bind(&settings.admin.listen);
        sockets.push(
            bound.map_err(|error| format!("{} cannot be listened on: {error}", settings.admin.listen))?,
        );
    }
    Ok(sockets)
}

/// Serves the port until the daemon ends.
pub(crate) fn open(
    daemon: &Arc<Daemon>,
    intake: &Intake,
    sockets: Vec<TcpListener>,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let settings = &daemon.settings.admin;
    let lasting = !settings.certificate.as_os_str().is_empty();
    let passing = passing().map_err(Failure::internal)?;
    if !lasting && daemon.safe().is_sealed() {
        // Whoever types a secret into a page that nobody vouches for has this to compare it with.
        info!(
            "while it is sealed the admin port's certificate has the SHA-256 fingerprint {}",
            passing.fingerprint()
        );
    }
    let certificates = Certificates::new(passing);
    let clients = Some(settings.client_authority.as_path()).filter(|path| !path.as_os_str().is_empty());
    let tls = certificates.tls(clients).map_err(Failure::internal)?;
    let mut tasks = vec![tokio::spawn(renew(daemon.clone(), certificates))];
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let stay = Stay { idle: minutes(settings.idle_minutes), whole: minutes(settings.session_hours * 60) };
    // One site behind all sockets: whoever is signed in by one is so by the others.
    let service = site(Arc::new(Web { daemon: daemon.clone(), intake: intake.clone() }), stay, lasting);
    for socket in sockets {
        if let Ok(address) = socket.local_addr() {
            info!("the admin port is {address}");
        }
        let (ending, service, tls) = (daemon.clone(), service.clone(), tls.clone());
        tasks.push(tokio::spawn(async move {
            let served = serve(socket, tls, Limits::default(), service, async move { ending.ending().await });
            if let Err(error) = served.await {
                warn!("the admin port is closed: {error}");
            }
        }));
    }
    Ok(tasks)
}

/// A certificate that nobody vouches for, for as long as the vault is sealed: no key of a lasting one is in the open.
fn passing() -> Result<Identity, moat_admin::AdminError> {
    Authority::new("a sealed Moat")?.issue(&["localhost".to_owned()])
}

/// Keeps the certificate that is shown the right one: the site's where the settings name one, read again when its files
/// change; else one of Moat's own authority, once the vault is open.
async fn renew(daemon: Arc<Daemon>, certificates: Arc<Certificates>) {
    let mut shown: Option<(SystemTime, Vec<Option<SystemTime>>)> = None;
    let mut said = String::new();
    loop {
        let (again, before) = (daemon.clone(), shown.clone());
        let wanted = tokio::task::spawn_blocking(move || wanted(&again, before));
        match wanted.await {
            Ok(Ok(Some((identity, stamp)))) => {
                certificates.replace(identity);
                shown = Some(stamp);
                said.clear();
            }
            Ok(Ok(None)) => {}
            Ok(Err(message)) if message != said => {
                warn!("the admin port keeps its certificate: {message}");
                said = message;
            }
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = daemon.ending() => return,
        }
    }
}

type Stamp = (SystemTime, Vec<Option<SystemTime>>);

/// The identity to show from now on, where it is not the one shown.
fn wanted(daemon: &Daemon, shown: Option<Stamp>) -> Result<Option<(Identity, Stamp)>, String> {
    let AdminSettings { certificate, key, .. } = &daemon.settings.admin;
    let now = SystemTime::now();
    if !certificate.as_os_str().is_empty() {
        let changed = |path: &PathBuf| fs::metadata(path).and_then(|facts| facts.modified()).ok();
        let stamps = vec![changed(certificate), changed(key)];
        if shown.is_some_and(|(_, before)| before == stamps) {
            return Ok(None);
        }
        let identity = Identity::read(certificate, key).map_err(|error| error.to_string())?;
        return Ok(Some((identity, (now, stamps))));
    }
    let old = shown.is_none_or(|(since, _)| now.duration_since(since).is_ok_and(|age| age > FRESH));
    let Ok(vault) = daemon.safe().vault() else { return Ok(None) };
    if !old {
        return Ok(None);
    }
    let authority = authority(&daemon.state.tls(), &vault)?;
    let mut names = daemon.settings.admin.names.clone();
    names.extend([machine(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
    let identity = authority.issue(&names).map_err(|error| error.to_string())?;
    Ok(Some((identity, (now, Vec::new()))))
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Moat's own authority as it is kept, sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    machine: String,
    certificate: String,
    key: Vec<u8>,
}

const OBJECT: &str = "admin authority";
const KEPT: &str = "authority";

/// Moat's own authority, made at the first start. Its certificate lies beside it in the open, for browsers.
fn authority(folder: &Path, vault: &Vault) -> Result<Authority, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let key = vault.derived(OBJECT).map_err(|error| said(&error))?;
    let sealed = SealedFolder::new(folder, key, OBJECT.to_owned());
    if sealed.place(KEPT).exists() {
        let reader = sealed.open(KEPT).map_err(|error| said(&error))?;
        let kept: Kept = serde_json::from_reader(reader).map_err(|error| said(&error))?;
        return Authority::restore(&kept.machine, &kept.certificate, &kept.key).map_err(|error| said(&error));
    }
    let made = Authority::new(&machine()).map_err(|error| said(&error))?;
    let (machine, certificate) = (made.machine().to_owned(), made.certificate().to_owned());
    let kept = Kept { machine, certificate, key: made.key() };
    let public = folder.join("authority.pem");
    fs::create_dir_all(folder).map_err(|error| said(&error))?;
    fs::write(&public, made.certificate()).map_err(|error| said(&error))?;
    let mut file = sealed.create(KEPT).map_err(|error| said(&error))?;
    serde_json::to_writer(&mut file, &kept).map_err(|error| said(&error))?;
    file.publish().map_err(|error| said(&error))?;
    info!("made a certificate authority for the admin port: {}", public.display());
    Ok(made)
}
