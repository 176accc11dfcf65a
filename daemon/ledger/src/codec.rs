//! Base64 (RFC 4648, padded, strict) and hexadecimal, as checkpoints and lines use them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes as padded base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() { ALPHABET[digit] as char } else { '=' });
        }
    }
    text
}

/// What [`base64`] wrote, and nothing else: a second spelling of the same bytes is refused.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let digits = chunk.iter().take_while(|&&byte| byte != b'=').count();
        let mut word = 0u32;
        for &byte in &chunk[..digits] {
            let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
            word = word << 6 | digit as u32;
        }
        word <<= 6 * (4 - digits);
        bytes.extend_from_slice(&word.to_be_bytes()[1..digits.max(1)]);
    }
    (base64(&bytes) == text).then_some(bytes)
}

/// Bytes as lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, text) in known {
            assert_eq!(base64(plain.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(plain.as_bytes()));
        }
        for wrong in ["Zh==", "Zg=", "Zg", "Z===", "====", "Zm9=", "Zm 8", "Zg==Zg==", "Zm8\n"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }
}
