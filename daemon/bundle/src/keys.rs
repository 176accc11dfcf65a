//! Release keys: who signs bundles, and how those keys hand on to newer ones, after TUF's root role.

use std::collections::BTreeSet;
use std::path::Path;

use moat_contracts::Digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codec::{self, Fixed, base64, from_base64};
use crate::{BundleError, FORMAT, PRODUCT, disk};

/// What a signature over release keys begins with, so that it can stand for nothing else.
const KEYS_DOMAIN: &[u8] = b"moat release keys\n";
/// What a signature over a manifest begins with.
const MANIFEST_DOMAIN: &[u8] = b"moat bundle manifest\n";
/// More keys than any release team has people.
const MOST_KEYS: usize = 16;
/// The DER (RFC 8410) around an Ed25519 key, before its 32 bytes.
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PRIVATE_DER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The public half of a release key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(Fixed<32>);

impl PublicKey {
    /// What names the key: the SHA-256 of its 32 bytes.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.0.0)
    }

    /// As openssl writes it: SubjectPublicKeyInfo in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[&PUBLIC_DER[..], &self.0.0].concat()).to_string()
    }

    /// Reads what [`PublicKey::to_pem`] or openssl wrote; `None` where it is anything else.
    #[must_use]
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = from_pem("PUBLIC KEY", text)?;
        let key = der.strip_prefix(&PUBLIC_DER)?.try_into().ok()?;
        Some(Self(Fixed(key)))
    }

    fn made(&self, signature: &Fixed<64>, message: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0.0).verify(message, &signature.0).is_ok()
    }
}

/// A release key, which signs. Wiped when dropped, never printed.
pub struct SigningKey(Box<Zeroizing<[u8; 32]>>);

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`BundleError::Random`] without random bytes.
    pub fn create() -> Result<Self, BundleError> {
        let mut seed = Box::<Zeroizing<[u8; 32]>>::default();
        SystemRandom::new().fill(&mut seed[..]).map_err(|_| BundleError::Random)?;
        Ok(Self(seed))
    }

    /// As openssl writes it: PKCS#8 in PEM, under no passphrase.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; 48]);
        der[..16].copy_from_slice(&PRIVATE_DER);
        der[16..].copy_from_slice(&self.0[..]);
        pem("PRIVATE KEY", &der[..])
    }

    /// Reads what [`SigningKey::to_pem`] or openssl wrote; `None` where it is anything else.
    #[must_use]
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = Zeroizing::new(from_pem("PRIVATE KEY", text)?);
        let mut seed = Box::<Zeroizing<[u8; 32]>>::default();
        let bytes = der.strip_prefix(&PRIVATE_DER).filter(|bytes| bytes.len() == 32)?;
        seed.copy_from_slice(bytes);
        Some(Self(seed))
    }

    fn pair(&self) -> Result<Ed25519KeyPair, BundleError> {
        Ed25519KeyPair::from_seed_unchecked(&self.0[..]).map_err(|_| BundleError::Random)
    }

    /// The public half.
    ///
    /// # Errors
    /// [`BundleError::Random`] where the key is none, which no key made here is.
    pub fn public(&self) -> Result<PublicKey, BundleError> {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair()?.public_key().as_ref());
        Ok(PublicKey(Fixed(key)))
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, BundleError> {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair()?.sign(message).as_ref());
        Ok(Signature { key: self.public()?.id(), signature: Fixed(signature) })
    }

    /// Signs the bytes of a `manifest.json`, with the line `moat bundle manifest` before them.
    ///
    /// # Errors
    /// [`BundleError::Random`] where the key is none, which no key made here is.
    pub fn sign_manifest(&self, manifest: &[u8]) -> Result<Signature, BundleError> {
        self.sign(&[MANIFEST_DOMAIN, manifest].concat())
    }
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(base64(der));
    // With room for all of it: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() + 2 * label.len() + 64));
    for part in ["-----BEGIN ", label, "-----\n", &body, "\n-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

fn from_pem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    from_base64(body.strip_suffix(&format!("-----END {label}-----"))?.trim())
}

/// One key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The key's id.
    pub key: Digest,
    signature: Fixed<64>,
}

/// Puts a signature in its place, instead of an older one of the same key.
pub(crate) fn put(signatures: &mut Vec<Signature>, new: Signature) {
    signatures.retain(|signature| signature.key != new.key);
    signatures.push(new);
    signatures.sort_by_key(|signature| signature.key);
}

/// A key among release keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// [`PublicKey::id`].
    pub id: Digest,
    /// The key.
    pub public: PublicKey,
}

/// Who signs bundles: any `threshold` of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseKeys {
    /// The format of this document.
    pub format: u32,
    /// `moat`.
    pub product: String,
    /// From 1 on; newer keys have the next number.
    pub version: u64,
    /// How many of them it takes, at least two.
    pub threshold: usize,
    /// From when on they sign nothing any more, in Unix seconds.
    pub expires: Option<i64>,
    /// The keys, by id, ascending; more than it takes, since one may be lost.
    pub keys: Vec<Key>,
}

impl ReleaseKeys {
    fn name(&self) -> String {
        format!("release keys {}", self.version)
    }

    fn message(&self) -> Result<Vec<u8>, BundleError> {
        let text =
            serde_json::to_vec(self).map_err(|error| BundleError::form(&self.name(), error.to_string()))?;
        Ok([KEYS_DOMAIN, &text].concat())
    }

    fn find(&self, id: &Digest) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id == *id).map(|key| &key.public)
    }

    /// Whether a key is one of them.
    #[must_use]
    pub fn has(&self, id: &Digest) -> bool {
        self.find(id).is_some()
    }

    fn check(&self) -> Result<(), BundleError> {
        let name = self.name();
        let wrong = |why: &str| Err(BundleError::form(&name, why));
        codec::head_is(&name, self.format.into(), Some(&self.product))?;
        if self.version == 0 {
            return wrong("versions begin with 1");
        }
        if self.threshold < 2 || self.keys.len() <= self.threshold || self.keys.len() > MOST_KEYS {
            return wrong("it takes at least two keys, there are more than it takes, and at most 16");
        }
        if self.keys.iter().any(|key| key.id != key.public.id()) {
            return wrong("a key's id is not the SHA-256 of the key");
        }
        if !self.keys.is_sorted_by(|a, b| a.id < b.id) {
            return wrong("a key stands there twice or out of order");
        }
        Ok(())
    }

    /// Whether one of them made a signature over a manifest.
    pub(crate) fn made(&self, manifest: &[u8], signature: &Signature) -> Result<(), BundleError> {
        let signatures = std::slice::from_ref(signature);
        verified("the bundle", signatures, &[self], &[MANIFEST_DOMAIN, manifest].concat()).map(drop)
    }

    /// Who signed a manifest, at least as many as it takes, and nobody else.
    pub(crate) fn signers(
        &self,
        manifest: &[u8],
        signatures: &[Signature],
    ) -> Result<Vec<Digest>, BundleError> {
        let what = "the bundle";
        let signers = verified(what, signatures, &[self], &[MANIFEST_DOMAIN, manifest].concat())?;
        enough(what, self, &signers)?;
        Ok(signers.into_iter().collect())
    }
}

/// The keys whose signatures these are: each of a known key, once, and right.
fn verified(
    what: &str,
    signatures: &[Signature],
    known: &[&ReleaseKeys],
    message: &[u8],
) -> Result<BTreeSet<Digest>, BundleError> {
    if !signatures.is_sorted_by(|a, b| a.key < b.key) {
        return Err(BundleError::Twice { what: what.to_owned() });
    }
    for signature in signatures {
        let (what, key) = (what.to_owned(), signature.key);
        let Some(public) = known.iter().find_map(|keys| keys.find(&key)) else {
            return Err(BundleError::Foreign { what, key });
        };
        if !public.made(&signature.signature, message) {
            return Err(BundleError::Signature { what, key });
        }
    }
    Ok(signatures.iter().map(|signature| signature.key).collect())
}

fn enough(what: &str, keys: &ReleaseKeys, signers: &BTreeSet<Digest>) -> Result<(), BundleError> {
    let signed = signers.iter().filter(|signer| keys.has(signer)).count();
    if signed < keys.threshold {
        return Err(BundleError::TooFew { what: what.to_owned(), signed, threshold: keys.threshold });
    }
    Ok(())
}

/// Release keys with the signatures that put them in force: their own, and those of the keys before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedKeys {
    /// What is signed: its JSON without any space, with the line `moat release keys` before it.
    pub signed: ReleaseKeys,
    /// By key, ascending.
    pub signatures: Vec<Signature>,
}

impl SignedKeys {
    /// Release keys that nobody signed yet.
    ///
    /// # Errors
    /// [`BundleError::Form`] where the keys or the threshold cannot be.
    pub fn new(
        version: u64,
        threshold: usize,
        expires: Option<i64>,
        keys: &[PublicKey],
    ) -> Result<Self, BundleError> {
        let mut keys: Vec<_> = keys.iter().map(|public| Key { id: public.id(), public: *public }).collect();
        keys.sort_by_key(|key| key.id);
        let product = PRODUCT.to_owned();
        let signed = ReleaseKeys { format: FORMAT, product, version, threshold, expires, keys };
        signed.check()?;
        Ok(Self { signed, signatures: Vec::new() })
    }

    /// Reads a `release-keys.json`; who signed it is not judged.
    ///
    /// # Errors
    /// [`BundleError::Form`], [`BundleError::Format`] or [`BundleError::Product`].
    pub fn read(text: &[u8]) -> Result<Self, BundleError> {
        let keys: Self = codec::read("the release keys", text)?;
        keys.signed.check()?;
        Ok(keys)
    }

    /// The bytes of a `release-keys.json`.
    ///
    /// # Errors
    /// [`BundleError::Form`] where it cannot be written.
    pub fn write(&self) -> Result<Vec<u8>, BundleError> {
        codec::write("the release keys", self)
    }

    /// Puts them in the place of a file.
    ///
    /// # Errors
    /// [`BundleError::Io`] where the disk fails; the file is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), BundleError> {
        disk::replace(path, &self.write()?, 0o644)
    }

    /// Adds a key's signature; a key of the version before signs as well.
    ///
    /// # Errors
    /// [`BundleError::Form`] where they cannot be written.
    pub fn sign(&mut self, key: &SigningKey) -> Result<Digest, BundleError> {
        let signature = key.sign(&self.signed.message()?)?;
        let id = signature.key;
        put(&mut self.signatures, signature);
        Ok(id)
    }

    /// Whether enough of these very keys signed. Signatures of others, the keys before, are not judged.
    ///
    /// # Errors
    /// [`BundleError::TooFew`], [`BundleError::Signature`] and the like.
    pub fn check_alone(&self) -> Result<(), BundleError> {
        self.signed.check()?;
        let own: Vec<_> = self.signatures.iter().filter(|made| self.signed.has(&made.key)).cloned().collect();
        let name = self.signed.name();
        let signers = verified(&name, &own, &[&self.signed], &self.signed.message()?)?;
        enough(&name, &self.signed, &signers)
    }

    /// Whether these keys follow the ones before: the next version, signed by enough of both, and by nobody else.
    fn check_after(&self, before: Option<&ReleaseKeys>) -> Result<(), BundleError> {
        self.signed.check()?;
        let name = self.signed.name();
        let expected = before.map_or(1, |before| before.version + 1);
        if self.signed.version != expected {
            return Err(BundleError::form(&name, format!("release keys {expected} belong there")));
        }
        let known: Vec<_> = before.into_iter().chain([&self.signed]).collect();
        let signers = verified(&name, &self.signatures, &known, &self.signed.message()?)?;
        known.into_iter().try_for_each(|keys| enough(&name, keys, &signers))
    }
}

/// The newest keys of a whole history, which begins with version 1 and of which each follows the ones before.
///
/// # Errors
/// [`BundleError::Form`], [`BundleError::TooFew`], [`BundleError::Signature`] and the like.
pub fn newest(history: &[SignedKeys]) -> Result<&SignedKeys, BundleError> {
    let mut before = None;
    for keys in history {
        keys.check_after(before)?;
        before = Some(&keys.signed);
    }
    history.last().ok_or_else(|| BundleError::form("the bundle", "it carries no release keys"))
}
