use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use moat_contracts::Digest;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use crate::AdminError;

/// A certificate chain with its key, ready to answer a handshake.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Joins a chain, leaf first, with the leaf's key.
    ///
    /// # Errors
    /// [`AdminError::Identity`] where they do not belong together.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, AdminError> {
        let key = provider::sign::any_supported_type(key).map_err(AdminError::Identity)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(AdminError::Identity)?;
        Ok(Self(Arc::new(certified)))
    }

    /// Reads the site's own certificate chain and key, both in PEM form.
    ///
    /// # Errors
    /// [`AdminError`] names the file and what is wrong with it.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, AdminError> {
        let certificates = certificates(chain, "certificate")?;
        let pem = read(key)?;
        let missing = || AdminError::Pem { path: key.to_owned(), what: "private key", key: "key" };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| missing())?;
        Self::new(certificates, &key)
    }

    /// SHA-256 of the leaf's DER bytes: what browsers call its fingerprint.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.0.cert.first().map_or(&[][..], |leaf| leaf.as_ref()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {} certificates", self.0.cert.len())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AdminError> {
    std::fs::read(path).map_err(|source| AdminError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, AdminError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let missing = || AdminError::Pem { path: PathBuf::from(path), what: "certificate", key };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(missing)
}

/// The identity that handshakes are answered with. Replacing it leaves open connections alone.
#[derive(Debug)]
pub struct Certificates(RwLock<Identity>);

impl Certificates {
    /// Begins with an identity.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(identity)))
    }

    /// Answers all handshakes from now on with another identity.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// TLS 1.3 alone, with HTTP/2 and HTTP/1.1; where an authority is given, only clients with a certificate of it.
    ///
    /// # Errors
    /// [`AdminError::ClientAuthority`], or what cannot be read.
    pub fn tls(self: &Arc<Self>, clients: Option<&Path>) -> Result<Arc<ServerConfig>, AdminError> {
        let provider = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(AdminError::Identity)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, "client_authority")? {
                    let refused = |error: rustls::Error| AdminError::ClientAuthority(error.to_string());
                    roots.add(certificate).map_err(refused)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| AdminError::ClientAuthority(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}
