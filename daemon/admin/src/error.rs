use std::path::PathBuf;

/// Why the admin port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A file of the site's certificate cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form: give the file that `admin.{key}` wants")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// The configuration's key.
        key: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that TLS 1.3 does not take.
    #[error("the certificate and the key of the admin port do not fit: {0}")]
    Identity(rustls::Error),
    /// The authority that clients' certificates are checked against cannot be used.
    #[error("`admin.client_authority` cannot be used: {0}")]
    ClientAuthority(String),
    /// Moat's own authority or certificate could not be made.
    #[error("moat's own certificate cannot be made: {0}")]
    Authority(#[from] rcgen::Error),
    /// The key of Moat's own authority is damaged.
    #[error("the kept key of moat's own certificate authority is damaged: remove it, and a new one is made")]
    AuthorityKey,
    /// The socket that was passed cannot be used.
    #[error("the admin socket cannot be listened on: {0}")]
    Socket(std::io::Error),
}
