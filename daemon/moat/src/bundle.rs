//! `moat bundle`: offline bundles, made, signed, verified and installed without moatd.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use moat_bundle::{
    Bundle as Opened, BundleError, Machine, Manifest, Mark, Packager, Places, PublicKey, Record, Release,
    Signature, SignedKeys, SigningKey, Version,
};
use zeroize::Zeroizing;

use crate::args::{Bundle, BundleKey, Pack, Sign};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::render::bundle as render;
use crate::render::text::clean;

/// Does what a verb says.
pub(crate) fn perform(output: &Output, verb: &Bundle) -> Result<Exit, Failure> {
    match verb {
        Bundle::Key(BundleKey::Create { file }) => create_key(output, file),
        Bundle::Keys { public, threshold, version, expires, to } => {
            let keys = public.iter().map(|path| public_key(path)).collect::<Result<Vec<_>, _>>()?;
            let keys = SignedKeys::new(*version, *threshold, *expires, &keys).map_err(failure)?;
            write_new(to, &keys.write().map_err(failure)?, 0o644)?;
            tell_keys(output, to, &keys)
        }
        Bundle::Pack(asked) => pack(output, asked),
        Bundle::Sign(asked) => sign(output, asked),
        Bundle::Verify { bundle, keys } => verify(output, bundle, keys.as_deref()),
        Bundle::Install { bundle } => install(output, bundle),
    }
}

fn create_key(output: &Output, file: &Path) -> Result<Exit, Failure> {
    let key = SigningKey::create().map_err(failure)?;
    let public = key.public().map_err(failure)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    write_new(file, key.to_pem().as_bytes(), 0o600)?;
    write_new(Path::new(&beside), public.to_pem().as_bytes(), 0o644)?;
    let value = serde_json::json!({ "key": file, "public": beside.to_string_lossy(), "id": public.id() });
    reply(output, "bundle_key", &value, || render::key(&output.view, file, &public))
}

fn pack(output: &Output, asked: &Pack) -> Result<Exit, Failure> {
    let keys = asked.keys.iter().map(|path| release_keys(path)).collect::<Result<Vec<_>, _>>()?;
    let made = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds.parse().map_err(|_| {
            Failure::new(Exit::Usage, "SOURCE_DATE_EPOCH must be a number of seconds after 1970")
        })?,
        Err(_) => jiff::Timestamp::now().as_second(),
    };
    let release =
        Release { version: asked.version, number: asked.number, made, expires: asked.expires, keys };
    let manifest =
        shown(output, "packing", |progress| moat_bundle::pack(&asked.folder, release, &asked.to, progress))?;
    let value = serde_json::json!({ "bundle": asked.to, "manifest": manifest });
    reply(output, "bundle_packed", &value, || render::packed(&output.view, &asked.to, &manifest))
}

/// What can be signed.
enum Signable {
    Bundle,
    Manifest(Vec<u8>),
    Keys(SignedKeys),
}

fn signable(file: &Path) -> Result<Signable, Failure> {
    let mut first = [0];
    let read = fs::File::open(file).and_then(|mut file| io::Read::read_exact(&mut file, &mut first));
    read.map_err(|error| unread(file, &error))?;
    if first != *b"{" {
        return Ok(Signable::Bundle);
    }
    let text = fs::read(file).map_err(|error| unread(file, &error))?;
    // Each refuses the other's, and says why in its own words.
    match (SignedKeys::read(&text), Manifest::read(&text)) {
        (Ok(keys), _) => Ok(Signable::Keys(keys)),
        (_, Ok(_)) => Ok(Signable::Manifest(text)),
        (Err(keys), Err(manifest)) => Err(Failure::new(
            Exit::Usage,
            format!("{} is nothing to sign: {keys}; {manifest}", file.display()),
        )),
    }
}

fn sign(output: &Output, asked: &Sign) -> Result<Exit, Failure> {
    let key = asked.key.as_deref().map(private_key).transpose()?;
    let wrong = |words: &str| Failure::new(Exit::Usage, format!("{} {words}", asked.file.display()));
    let id = match (signable(&asked.file)?, &key) {
        (Signable::Bundle, key) => {
            let mark = match (key, &asked.signature) {
                (Some(key), _) => Mark::Key(key),
                (None, Some(made)) => Mark::Made(signature(made)?),
                (None, None) => return Err(wrong("is signed with --key or --signature: give one")),
            };
            if asked.to.is_some() {
                return Err(wrong("is signed in its place: leave --to out"));
            }
            shown(output, "signing", |progress| moat_bundle::add_signature(&asked.file, mark, progress))?
        }
        (Signable::Manifest(text), Some(key)) => {
            let Some(to) = &asked.to else {
                return Err(wrong("is a manifest: say with --to where its signature goes"));
            };
            let signature = key.sign_manifest(&text).map_err(failure)?;
            let text = serde_json::to_vec(&signature).map_err(|error| {
                Failure::new(Exit::Internal, format!("a signature cannot be written: {error}"))
            })?;
            write_new(to, &text, 0o644)?;
            signature.key
        }
        (Signable::Keys(mut keys), Some(key)) => {
            let id = keys.sign(key).map_err(failure)?;
            keys.save(&asked.file).map_err(failure)?;
            id
        }
        (_, None) => return Err(wrong("takes --key: a signature made elsewhere is for a bundle")),
    };
    let value = serde_json::json!({ "signed": asked.file, "key": id });
    let file = clean(&asked.file.display().to_string());
    reply(output, "bundle_signed", &value, || format!("{file}: signed with key {}\n", id.short()))
}

fn verify(output: &Output, path: &Path, keys: Option<&Path>) -> Result<Exit, Failure> {
    let places = Places::default();
    let (record, trusted) = match keys {
        Some(keys) => (Record::default(), own(release_keys(keys)?)?),
        None => {
            let known = moat_bundle::remember(&places)
                .and_then(|record| moat_bundle::trusted(&places, &record).map(|trusted| (record, trusted)));
            known.map_err(|error| match failure(error) {
                Failure { exit: Exit::Denied, message } => {
                    Failure::new(Exit::Denied, format!("{message}; run it as root, or give --keys"))
                }
                failure => failure,
            })?
        }
    };
    let machine = machine()?;
    let bundle = Opened::open(path).map_err(failure)?;
    let admitted = bundle.admit(&trusted).map_err(failure)?;
    shown(output, "verifying", |progress| bundle.contents(&admitted.manifest, &mut |_, _| Ok(()), progress))?;
    let standing = match keys {
        Some(_) => record.judge_dates(&admitted, machine.now).map(|()| None),
        None => record.judge(&admitted, &machine).map(Some),
    };
    let exit = if standing.is_ok() { Exit::Done } else { Exit::Request };
    let value = serde_json::json!({
        "bundle": path,
        "manifest": admitted.manifest,
        "sha256": admitted.digest,
        "signers": admitted.signers,
        "standing": standing.as_ref().ok().and_then(Option::as_ref).map(render::word),
        "refused": standing.as_ref().err().map(ToString::to_string),
    });
    reply(output, "bundle_verified", &value, || render::verified(&output.view, &admitted, &standing))?;
    Ok(exit)
}

fn install(output: &Output, path: &Path) -> Result<Exit, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Denied, "a bundle is installed by root: run it with sudo"));
    }
    let (places, machine, packager) = (Places::default(), machine()?, Packager::of_this_machine());
    let installed = shown(output, "verifying and staging", |progress| {
        let mut put = |package: &Path, manifest: &Manifest| packager.install(package, manifest.version);
        moat_bundle::install(path, &places, &machine, packager.packaging(), &mut put, progress)
    })?;
    let manifest = &installed.admitted.manifest;
    let value = serde_json::json!({
        "number": manifest.number,
        "version": manifest.version,
        "sha256": installed.admitted.digest,
        "standing": render::word(&installed.standing),
        "papers": installed.papers,
        "bases": installed.bases,
    });
    reply(output, "bundle_installed", &value, || render::installed(&output.view, &installed))
}

/// This machine, by its clock and by this program's own version, which its package has too.
fn machine() -> Result<Machine, Failure> {
    let version: Version =
        env!("CARGO_PKG_VERSION").parse().map_err(|error: String| Failure::new(Exit::Internal, error))?;
    let now = jiff::Timestamp::now().as_second();
    Ok(Machine { architecture: std::env::consts::ARCH.to_owned(), version, now })
}

fn tell_keys(output: &Output, to: &Path, keys: &SignedKeys) -> Result<Exit, Failure> {
    let value = serde_json::json!({ "file": to, "keys": keys.signed });
    reply(output, "bundle_keys", &value, || render::keys(&output.view, to, keys))
}

fn reply(
    output: &Output,
    word: &str,
    value: &serde_json::Value,
    page: impl FnOnce() -> String,
) -> Result<Exit, Failure> {
    if output.json {
        output.line(&serde_json::json!({ "reply": word, "value": value }))?;
    } else {
        output.page(&page())?;
    }
    Ok(Exit::Done)
}

/// Runs something that tells how many bytes are done.
fn shown<T>(
    output: &Output,
    phase: &str,
    act: impl FnOnce(moat_bundle::Progress<'_>) -> Result<T, BundleError>,
) -> Result<T, Failure> {
    let mut progress = Progress::new(output.json);
    let done = act(&mut |done, of| progress.bytes(phase, done, of));
    progress.end();
    done.map_err(failure)
}

fn private_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| unread(path, &error))?);
    SigningKey::from_pem(&text).ok_or_else(|| no_key(path, "private"))
}

fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let text = fs::read_to_string(path).map_err(|error| unread(path, &error))?;
    PublicKey::from_pem(&text).ok_or_else(|| no_key(path, "public"))
}

fn no_key(path: &Path, half: &'static str) -> Failure {
    failure(BundleError::Key { path: path.to_owned(), half })
}

fn release_keys(path: &Path) -> Result<SignedKeys, Failure> {
    let text = fs::read(path).map_err(|error| unread(path, &error))?;
    SignedKeys::read(&text).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))
}

/// Release keys that enough of themselves signed.
fn own(keys: SignedKeys) -> Result<SignedKeys, Failure> {
    keys.check_alone().map_err(failure)?;
    Ok(keys)
}

fn signature(path: &Path) -> Result<Signature, Failure> {
    let text = fs::read(path).map_err(|error| unread(path, &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{} is no signature: {error}", path.display())))
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Request, format!("{} cannot be read: {error}", path.display()))
}

/// Writes a file that was not there before.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    written().map_err(|error| {
        Failure::new(Exit::Request, format!("{} cannot be written: {error}", path.display()))
    })
}

fn failure(error: BundleError) -> Failure {
    let exit = match &error {
        BundleError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => Exit::Denied,
        BundleError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Exit::Request,
        BundleError::Io { .. } | BundleError::State { .. } | BundleError::Random => Exit::Internal,
        BundleError::Packager { .. } => Exit::Failed,
        BundleError::Key { .. } => Exit::Usage,
        _ => Exit::Request,
    };
    Failure::new(exit, error.to_string())
}
