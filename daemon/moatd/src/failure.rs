use std::fmt::Display;

use moat_protocol::control::{Fault, Reply};

/// Why a request or a stage of a run could not be done: whose fault, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) message: String,
}

impl Failure {
    /// The request names something that is not there, or cannot be done as asked.
    pub(crate) fn request(message: impl Display) -> Self {
        Self { fault: Fault::Request, message: message.to_string() }
    }

    /// The vault is sealed.
    pub(crate) fn sealed(message: impl Display) -> Self {
        Self { fault: Fault::Sealed, message: message.to_string() }
    }

    /// The caller may not.
    pub(crate) fn denied(message: impl Display) -> Self {
        Self { fault: Fault::Denied, message: message.to_string() }
    }

    /// Moat failed.
    pub(crate) fn internal(message: impl Display) -> Self {
        Self { fault: Fault::Internal, message: message.to_string() }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed { fault: failure.fault, message: failure.message }
    }
}

impl From<moat_catalog::CatalogError> for Failure {
    fn from(error: moat_catalog::CatalogError) -> Self {
        match error {
            moat_catalog::CatalogError::Vault(moat_vault::VaultError::Sealed) => Self::sealed(error),
            _ => Self::internal(error),
        }
    }
}

impl From<moat_ledger::LedgerError> for Failure {
    fn from(error: moat_ledger::LedgerError) -> Self {
        Self::internal(format!("the act cannot be recorded in the ledger, so it is not done: {error}"))
    }
}
