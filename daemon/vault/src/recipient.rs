use std::io::{self, Write};
use std::str::FromStr;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

use crate::VaultError;

/// Plain bytes of a chunk, but for the last.
const CHUNK: usize = 64 * 1024;
const VERSION: &str = "age-encryption.org/v1\n";
const WRAP: &[u8] = b"age-encryption.org/v1/X25519";
/// Values of the letters of Bech32 (BIP 173).
const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Somebody outside who alone can read what is encrypted to their public key, in the age format, version 1
/// (C2SP age-encryption.org/v1, X25519 recipients). Moat only encrypts: it never holds the other half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub(crate) text: String,
    pub(crate) key: [u8; 32],
}

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no age public key, which begins with age1 and has 62 characters: one is wrong or missing")]
pub struct NoRecipient;

impl FromStr for Recipient {
    type Err = NoRecipient;

    fn from_str(text: &str) -> Result<Self, NoRecipient> {
        let text = text.trim();
        let data = text.strip_prefix("age1").filter(|data| data.len() == 58).ok_or(NoRecipient)?;
        let values = data.bytes().map(|letter| LETTERS.iter().position(|known| *known == letter));
        let values = values.collect::<Option<Vec<_>>>().ok_or(NoRecipient)?;
        // The part before the 1, spread: high bits, a zero, low bits.
        let spread = [3, 3, 3, 0, 1, 7, 5];
        if checksum(spread.iter().chain(&values).copied()) != 1 {
            return Err(NoRecipient);
        }
        let (mut key, mut bits, mut held, mut at) = ([0; 32], 0, 0_usize, 0);
        for value in &values[..52] {
            held = held << 5 | value;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                key[at] = (held >> bits & 0xFF) as u8;
                at += 1;
            }
        }
        // What is left over is padding.
        if held & ((1 << bits) - 1) != 0 {
            return Err(NoRecipient);
        }
        Ok(Self { text: text.to_owned(), key })
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, form: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        form.write_str(&self.text)
    }
}

fn checksum(values: impl Iterator<Item = usize>) -> usize {
    const GENERATORS: [usize; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let high = sum >> 25;
        let next = (sum & 0x01FF_FFFF) << 5 ^ value;
        GENERATORS.iter().enumerate().fold(
            next,
            |next, (bit, generator)| {
                if high >> bit & 1 == 1 { next ^ generator } else { next }
            },
        )
    })
}

impl Recipient {
    /// Begins a file for the recipient; what is written to the result goes into `to`, encrypted.
    ///
    /// # Errors
    /// [`VaultError`] where the system gives no random bytes, the key is none that can be agreed with, or writing fails.
    pub fn encrypt<W: Write>(&self, mut to: W) -> Result<EncryptWriter<W>, VaultError> {
        let random = SystemRandom::new();
        let (mut file_key, mut nonce) = (Zeroizing::new([0; 16]), [0; 16]);
        random.fill(&mut *file_key).map_err(|_| VaultError::Random)?;
        random.fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let ours = EphemeralPrivateKey::generate(&X25519, &random).map_err(|_| VaultError::Random)?;
        let share = ours.compute_public_key().map_err(|_| VaultError::Random)?;
        let salt = [share.as_ref(), &self.key].concat();
        let wrapping = agree_ephemeral(ours, &UnparsedPublicKey::new(&X25519, &self.key), |shared| {
            derive(shared, &salt, WRAP)
        });
        // ring refuses a key of low order, with which everybody would agree.
        let wrapping = wrapping.map_err(|_| VaultError::Recipient)??;
        let mut wrapped = file_key.to_vec();
        seal(&wrapping, [0; 12], &mut wrapped)?;
        let header = format!("{VERSION}-> X25519 {}\n{}\n---", base64(share.as_ref()), base64(&wrapped));
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &*derive(&*file_key, &[], b"header")?);
        let mac = hmac::sign(&mac, header.as_bytes());
        let written = writeln!(to, "{header} {}", base64(mac.as_ref())).and_then(|()| to.write_all(&nonce));
        written.map_err(VaultError::Stream)?;
        let key = derive(&*file_key, &nonce, b"payload")?;
        Ok(EncryptWriter { to, key, number: 0, chunk: Zeroizing::new(Vec::with_capacity(CHUNK + 16)) })
    }
}

/// Encrypts what is written to it; only [`EncryptWriter::finish`] makes the file whole.
pub struct EncryptWriter<W> {
    to: W,
    key: Zeroizing<[u8; 32]>,
    number: u64,
    chunk: Zeroizing<Vec<u8>>,
}

impl<W: Write> EncryptWriter<W> {
    /// Writes the last chunk, which is marked as such.
    ///
    /// # Errors
    /// What the writer below gives.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush_chunk(true)
    }

    fn flush_chunk(&mut self, last: bool) -> io::Result<()> {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(last);
        seal(&self.key, nonce, &mut self.chunk).map_err(io::Error::other)?;
        self.to.write_all(&self.chunk)?;
        self.chunk.zeroize();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known not to be the last.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.flush_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 (RFC 5869), 32 bytes.
fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    let made = Salt::new(HKDF_SHA256, salt).extract(secret);
    let expanded = made.expand(&[info], Length).and_then(|material| material.fill(&mut *key));
    expanded.map_err(|_| VaultError::Cipher)?;
    Ok(key)
}

fn seal(key: &[u8; 32], nonce: [u8; 12], text: &mut Vec<u8>) -> Result<(), VaultError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| VaultError::Cipher)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), text).map_err(|_| VaultError::Cipher)
}

/// Base64 without padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let value = (0..3).fold(0_usize, |value, at| value << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        for digit in 0..=three.len() {
            text.push(char::from(ALPHABET[value >> (18 - 6 * digit) & 63]));
        }
    }
    text
}
