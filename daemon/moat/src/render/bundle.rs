use std::path::Path;

use moat_bundle::{Admitted, BundleError, Installation, Manifest, PublicKey, SignedKeys, Standing};

use super::table::{Cell, pairs, table};
use super::text::{bytes, clean, counted};
use super::{Tone, View};

/// The word that stands in JSON.
pub(crate) const fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::First => "first",
        Standing::Newer(_) => "newer",
        Standing::Again(_) => "again",
    }
}

fn path(path: &Path) -> String {
    clean(&path.display().to_string())
}

/// A new key pair.
pub(crate) fn key(view: &View, file: &Path, public: &PublicKey) -> String {
    let pairs = pairs(
        view,
        &[
            ("private key", path(file)),
            ("public key", format!("{}.pub", path(file))),
            ("id", public.id().to_string()),
        ],
    );
    format!(
        "{pairs}\nNo passphrase protects the private key: whoever reads it signs. Keep it on a medium that its owner locks \
         away, and give the public key to whoever makes the release keys.\n"
    )
}

/// New release keys.
pub(crate) fn keys(view: &View, file: &Path, keys: &SignedKeys) -> String {
    let signed = &keys.signed;
    let ids: Vec<_> = signed.keys.iter().map(|key| key.id.short()).collect();
    let pairs = pairs(
        view,
        &[
            ("release keys", format!("version {}, {} of {}", signed.version, signed.threshold, ids.len())),
            ("keys", ids.join(", ")),
            ("expires", signed.expires.map(|expires| view.time(expires)).unwrap_or_default()),
        ],
    );
    let before = match signed.version {
        1 => String::new(),
        version => format!(", and as many of version {} as that takes", version - 1),
    };
    format!(
        "{pairs}\nThey are in force once {} of them{before} have signed: `moat bundle sign {} --key FILE`\n",
        signed.threshold,
        path(file)
    )
}

/// A bundle that nobody signed yet.
pub(crate) fn packed(view: &View, file: &Path, manifest: &Manifest) -> String {
    format!(
        "{}{}\n`moat bundle sign {} --key FILE` signs it, on each signer's machine\n",
        facts(view, manifest, &[]),
        sum(manifest),
        path(file)
    )
}

fn facts(view: &View, manifest: &Manifest, more: &[(&str, String)]) -> String {
    let head = format!("moat {}, release {}", manifest.version, manifest.number);
    let mut all = vec![
        ("bundle", view.paint(Tone::Strong, &head)),
        ("made", view.time(manifest.made)),
        ("expires", view.time(manifest.expires)),
        ("for", clean(&manifest.architectures.join(", "))),
    ];
    all.extend(more.iter().cloned());
    pairs(view, &all)
}

fn sum(manifest: &Manifest) -> String {
    format!("{}, {}", counted(manifest.files.len() as u64, "file"), bytes(manifest.bytes()))
}

/// A sound bundle, and whether this machine would take it.
pub(crate) fn verified(
    view: &View,
    admitted: &Admitted,
    standing: &Result<Option<Standing>, BundleError>,
) -> String {
    let Admitted { manifest, digest, signers, keys } = admitted;
    let signers: Vec<_> = signers.iter().map(moat_contracts::Digest::short).collect();
    let needed = format!("{} of {} needed", keys.signed.threshold, keys.signed.keys.len());
    let here = match standing {
        Ok(None) => String::new(),
        Ok(Some(standing)) => view.paint(Tone::Good, &told(standing)),
        Err(refused) => view.paint(Tone::Bad, &format!("REFUSED: {}", clean(&refused.to_string()))),
    };
    let more = [
        ("signed by", format!("{} (release keys {}, {needed})", signers.join(", "), keys.signed.version)),
        ("manifest", digest.to_string()),
        ("here", here),
    ];
    let row = |file: &moat_bundle::Member| {
        vec![
            Cell::from(clean(&file.path)),
            file.what.word().into(),
            bytes(file.bytes).into(),
            Cell::toned(file.sha256.short(), Tone::Faint),
        ]
    };
    let rows: Vec<_> = manifest.files.iter().map(row).collect();
    format!(
        "{}\n{}\nsound: {}, each as it was signed\n",
        facts(view, manifest, &more),
        table(view, &["file", "what", ">size", "sha256"], &rows),
        sum(manifest)
    )
}

fn told(standing: &Standing) -> String {
    match standing {
        Standing::First => "the first bundle here".to_owned(),
        Standing::Newer(known) => format!("newer than release {} ({})", known.number, known.version),
        Standing::Again(known) if known.whole => "installed already".to_owned(),
        Standing::Again(_) => "begun and not finished: install it again".to_owned(),
    }
}

/// What an installation did, and what comes next.
pub(crate) fn installed(view: &View, installed: &Installation) -> String {
    let manifest = &installed.admitted.manifest;
    let head = format!("moat {}, release {}", manifest.version, manifest.number);
    let mut page = format!(
        "{} is installed; licences and SBOM lie in {}\n",
        view.paint(Tone::Strong, &head),
        path(&installed.papers)
    );
    for base in &installed.bases {
        page.push_str(&format!("`moat base import {}` takes a base in\n", path(base)));
    }
    page.push_str("`moat status` shows how it runs\n");
    page
}
