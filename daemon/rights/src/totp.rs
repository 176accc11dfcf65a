//! One-time codes: RFC 6238 over HMAC-SHA-1, 30 seconds, six digits, as every authenticator app computes them.

use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::codec::base32;
use crate::{NoRandom, random, same};

/// How many digits a code has.
pub const CODE_LENGTH: usize = 6;
const STEP: u64 = 30;
/// How many steps a phone's clock may be off, either way.
const WINDOW: u64 = 1;

/// The secret that an account shares with its authenticator app.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 20]);

/// Why a code was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// It is not the code of this time.
    #[error("the code is wrong, or its time is over")]
    Wrong,
    /// It was used before.
    #[error("the code was used before: wait for the next one")]
    Used,
}

impl Secret {
    /// A new secret of 160 bits, as RFC 4226 recommends.
    ///
    /// # Errors
    /// [`NoRandom`] where the system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        random().map(Self)
    }

    /// A secret that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be sealed and kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The secret as a person types it into an app.
    #[must_use]
    pub fn to_base32(&self) -> String {
        base32(&self.0)
    }

    /// The `otpauth:` address that an app reads from a QR code.
    #[must_use]
    pub fn uri(&self, site: &str, account: &str) -> String {
        let (site, account) = (percent(site), percent(account));
        let secret = self.to_base32();
        format!(
            "otpauth://totp/{site}:{account}?secret={secret}&issuer={site}&algorithm=SHA1&digits=6&period=30"
        )
    }

    /// The code of a step of 30 seconds (RFC 4226, 5.3).
    #[must_use]
    pub fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let word = tag[at..at + 4].iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) & 0x7FFF_FFFF;
        format!("{:06}", word % 1_000_000)
    }

    /// Judges a code at `now`, in seconds since 1970. Returns its step, to be kept and given as `last_used` next time.
    ///
    /// # Errors
    /// [`TotpError::Used`] where this or a later step was used, [`TotpError::Wrong`] for any other code.
    pub fn verify(&self, code: &str, now: u64, last_used: Option<u64>) -> Result<u64, TotpError> {
        let middle = now / STEP;
        let mut found = None;
        // All steps are compared, so that the time taken does not tell which one fits.
        for step in middle.saturating_sub(WINDOW)..=middle.saturating_add(WINDOW) {
            if same(self.code(step).as_bytes(), code.as_bytes())
                && found.is_none_or(|_| last_used < Some(step))
            {
                found = Some(step);
            }
        }
        match found {
            Some(step) if last_used >= Some(step) => Err(TotpError::Used),
            Some(step) => Ok(step),
            None => Err(TotpError::Wrong),
        }
    }
}

/// A part of an address with everything but letters, digits and `-._~` encoded (RFC 3986, 2.1).
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::from_bytes(*b"12345678901234567890")
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let known = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (time, code) in known {
            assert_eq!(secret().code(time / 30), code);
            assert_eq!(secret().verify(code, time, None), Ok(time / 30));
        }
    }

    #[test]
    fn a_code_is_good_for_a_step_either_way_and_only_once() {
        let now = 1_700_000_000;
        let step = now / 30;
        for near in [step - 1, step, step + 1] {
            let code = secret().code(near);
            assert_eq!(secret().verify(&code, now, None), Ok(near));
            assert_eq!(secret().verify(&code, now, Some(near - 1)), Ok(near));
            assert_eq!(secret().verify(&code, now, Some(near)), Err(TotpError::Used));
            assert_eq!(
                secret().verify(&code, now, Some(near + 1)),
                Err(TotpError::Used),
                "an older one after a newer"
            );
        }
        for far in [step - 2, step + 2] {
            assert_eq!(secret().verify(&secret().code(far), now, None), Err(TotpError::Wrong));
        }
        let code = secret().code(step);
        for wrong in ["", &code[..5], &format!("{code}0"), &format!(" {code}"), "abcdef"] {
            assert_eq!(secret().verify(wrong, now, None), Err(TotpError::Wrong));
        }
        assert!(Secret::from_bytes([1; 20]).verify(&code, now, None).is_err());
    }

    #[test]
    fn an_app_is_told_everything() {
        let uri = secret().uri("Moat & Söhne", "anna@site");
        assert_eq!(
            uri,
            "otpauth://totp/Moat%20%26%20S%C3%B6hne:anna%40site?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Moat%20%26%20S%C3%B6hne&algorithm=SHA1&digits=6&period=30"
        );
        assert_eq!(secret().to_base32().len(), 32);
    }
}
