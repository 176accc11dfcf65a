//! Paths as the catalog writes them: text, reversible to the bytes that the file system has.

/// Writes a path as text. Bytes that are no UTF-8, ASCII control characters and `%` itself become `%XX`.
pub(crate) fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii_control() || character == '%' {
                push_escape(&mut text, character as u8);
            } else {
                text.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escape(&mut text, *byte));
    }
    text
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.push('%');
    text.push(DIGITS[usize::from(byte >> 4)]);
    text.push(DIGITS[usize::from(byte & 15)]);
}

/// The inverse of [`encode`]. A `%` that begins no escape stands for itself.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let source = text.as_bytes();
    let mut bytes = Vec::with_capacity(source.len());
    let mut at = 0;
    while at < source.len() {
        match (source[at], digit(source.get(at + 1)), digit(source.get(at + 2))) {
            // Two hexadecimal digits make at most 255.
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}

/// What a path says about the kind of text in it: the extension, or the whole name where it has none. Two paths that
/// agree here are extracted alike.
pub(crate) fn kind_hint(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rfind('.') {
        Some(dot) if dot > 0 => &name[dot..],
        _ => name,
    }
}

/// Appends a name to a path relative to the root.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}

/// The folder and the name of a path relative to the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The path itself and every folder above it, the root (empty) last.
pub(crate) fn upwards(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(""),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode, kind_hint, upwards};

    #[test]
    fn only_what_is_no_plain_text_is_escaped() {
        assert_eq!(encode("Größe/a b.txt".as_bytes()), "Größe/a b.txt");
        assert_eq!(encode(b"caf\xe9 100%\n"), "caf%E9 100%25%0A");
        assert_eq!(decode("100% sure%4"), b"100% sure%4");
    }

    #[test]
    fn the_kind_hangs_on_extension_or_name() {
        assert_eq!(kind_hint("a/b.tar.gz"), ".gz");
        assert_eq!(kind_hint("a.d/Makefile"), "Makefile");
        assert_eq!(kind_hint("a/.profile"), ".profile");
    }

    #[test]
    fn upwards_ends_at_the_root() {
        assert_eq!(upwards("a/b/c").collect::<Vec<_>>(), ["a/b/c", "a/b", "a", ""]);
    }

    proptest! {
        #[test]
        fn every_name_comes_back(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&path)), path);
        }

        #[test]
        fn two_names_never_share_a_text(
            one in proptest::collection::vec(prop_oneof![Just(b'%'), Just(b'2'), Just(b'5'), any::<u8>()], 0..8),
            other in proptest::collection::vec(prop_oneof![Just(b'%'), Just(b'2'), Just(b'5'), any::<u8>()], 0..8),
        ) {
            prop_assert_eq!(encode(&one) == encode(&other), one == other);
        }
    }
}
