use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// The data key of one run: whatever an engine writes into the run's folder is sealed under it. Serialised as 64
/// lowercase hexadecimal digits, never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RunKey(Box<Zeroizing<[u8; 32]>>);

impl RunKey {
    /// A key from its raw bytes; the caller wipes what it copied from.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut key = Box::<Zeroizing<[u8; 32]>>::default();
        key.copy_from_slice(bytes);
        Self(key)
    }

    /// The raw bytes, to open and seal with.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunKey(hidden)")
    }
}

impl Serialize for RunKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = Zeroizing::new(String::with_capacity(64));
        for byte in self.expose() {
            for half in [byte >> 4, byte & 15] {
                digits.extend(char::from_digit(half.into(), 16));
            }
        }
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for RunKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// A folder within a run's folder, named by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPart {
    /// What an interrupted training goes on from.
    Checkpoint,
    /// The adapter that was trained, in PEFT's format.
    Adapter,
    /// The model that was trained in full, or merged for an export, in Hugging Face's layout.
    Model,
    /// The papers of an export that waits for two people.
    Export,
}

impl RunPart {
    /// The folder's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Adapter => "adapter",
            Self::Model => "model",
            Self::Export => "export",
        }
    }

    /// What its files are sealed for: `RUN/PART`, followed by `/NAME` for each of them.
    #[must_use]
    pub fn object(self, run: &str) -> String {
        format!("{run}/{}", self.word())
    }
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = RunKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of 64 lowercase hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, digits: &str) -> Result<RunKey, E> {
        // Serde's own message for a wrong value would quote it.
        let wrong = || E::custom("a key has 64 lowercase hexadecimal digits");
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(wrong()),
        };
        let digits = digits.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut key = Box::<Zeroizing<[u8; 32]>>::default();
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(RunKey(key))
    }

    fn visit_string<E: de::Error>(self, digits: String) -> Result<RunKey, E> {
        self.visit_str(&Zeroizing::new(digits))
    }
}

#[cfg(test)]
mod tests {
    use super::RunKey;

    #[test]
    fn a_key_is_written_as_digits_read_back_and_never_shown() {
        let bytes = std::array::from_fn(|index| index as u8 * 7 + 3);
        let key = RunKey::from_bytes(&bytes);
        let json = serde_json::to_string(&key).unwrap();
        assert!(json.starts_with("\"030a11") && json.len() == 66, "{json}");
        assert_eq!(serde_json::from_str::<RunKey>(&json).unwrap().expose(), &bytes);
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "RunKey(hidden) Some(RunKey(hidden))");
        for wrong in [json.to_uppercase(), json.replacen("03", "", 1), json.replacen('a', "g", 1)] {
            let error = serde_json::from_str::<RunKey>(&wrong).unwrap_err().to_string();
            assert!(!error.contains("11181f") && error.contains("64 lowercase"), "{error}");
        }
        assert!(!serde_json::from_str::<RunKey>("17").unwrap_err().to_string().contains("030a"));
    }
}
