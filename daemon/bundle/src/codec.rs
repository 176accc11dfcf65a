//! Documents have one spelling each, so that a signature over their bytes is one over their meaning.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{BundleError, FORMAT, PRODUCT};

/// A document as it stands in a file: JSON, indented by two, one line end at its end.
pub(crate) fn write<T: Serialize>(what: &str, document: &T) -> Result<Vec<u8>, BundleError> {
    let mut text =
        serde_json::to_vec_pretty(document).map_err(|error| BundleError::form(what, error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// Reads what [`write()`] wrote, and no other spelling of it.
pub(crate) fn read<T: DeserializeOwned + Serialize>(what: &str, text: &[u8]) -> Result<T, BundleError> {
    let document: T =
        serde_json::from_slice(text).map_err(|error| BundleError::form(what, error.to_string()))?;
    if write(what, &document)? != text {
        return Err(BundleError::form(what, "it is not spelled as moat writes it"));
    }
    Ok(document)
}

/// What every document says of itself, whatever else a later format puts there.
#[derive(Deserialize)]
struct Head {
    format: u64,
    product: Option<String>,
}

/// Refuses a document of another format or product with its own reason, before anything else is read of it.
pub(crate) fn head(what: &str, text: &[u8]) -> Result<(), BundleError> {
    let head: Head =
        serde_json::from_slice(text).map_err(|error| BundleError::form(what, error.to_string()))?;
    head_is(what, head.format, head.product.as_deref())
}

/// The same for a document that is part of another one.
pub(crate) fn head_is(what: &str, format: u64, product: Option<&str>) -> Result<(), BundleError> {
    match product {
        Some(product) if product != PRODUCT => {
            Err(BundleError::Product { what: what.to_owned(), found: product.to_owned() })
        }
        _ if format != u64::from(FORMAT) => {
            Err(BundleError::Format { what: what.to_owned(), found: format, known: FORMAT })
        }
        _ => Ok(()),
    }
}

/// Bytes as padded base64 (RFC 4648).
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What [`base64()`] wrote; a second spelling of the same bytes is refused.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Bytes of a fixed length, in JSON as base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = from_base64(&text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom(format!("{N} bytes in base64 are expected")))
    }
}
