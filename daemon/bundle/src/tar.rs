//! The headers of a plain tar (POSIX.1-1988 ustar), of which each path and size has exactly one: a reader compares
//! instead of interpreting, so no two programs can disagree about what a bundle holds.

use crate::BundleError;

/// Everything in a tar comes in blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;
/// Longest path that the header's one field holds; its continuation is not used.
pub(crate) const LONGEST: usize = 100;
/// Bytes from which a size does not fit eleven octal digits.
const LARGE: u64 = 1 << 33;

const SIZE: std::ops::Range<usize> = 124..136;
const SUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const LINKED: std::ops::Range<usize> = 157..257;

/// The header of a regular file: root's, readable by all, without a time.
pub(crate) fn header(path: &str, bytes: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, &path.as_bytes()[..path.len().min(LONGEST)]);
    put(100, b"0000644");
    put(108, b"0000000");
    put(116, b"0000000");
    if bytes < LARGE {
        put(SIZE.start, format!("{bytes:011o}").as_bytes());
    } else {
        // As GNU tar writes it: big-endian, behind a set highest bit.
        put(SIZE.start, &[0x80]);
        put(SIZE.end - 8, &bytes.to_be_bytes());
    }
    put(136, b"00000000000");
    put(KIND, b"0");
    put(257, b"ustar\x0000");
    let sum = sum(&header);
    header[SUM.start..SUM.end].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// The sum over a header whose own field counts as spaces.
fn sum(header: &[u8; BLOCK]) -> u32 {
    let value = |(at, byte): (usize, &u8)| if SUM.contains(&at) { 32 } else { u32::from(*byte) };
    header.iter().enumerate().map(value).sum()
}

/// How many zeros follow a file of so many bytes.
pub(crate) fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// The size that a header states in octal digits, which decides nothing until the header is compared.
pub(crate) fn size(header: &[u8; BLOCK]) -> Option<u64> {
    let digits = std::str::from_utf8(&header[SIZE.start..SIZE.end - 1]).ok()?;
    u64::from_str_radix(digits, 8).ok()
}

/// Whether a header is the one of this path and size; what is wrong with it where it is not.
pub(crate) fn compare(found: &[u8; BLOCK], path: &str, bytes: u64) -> Result<(), BundleError> {
    if *found == header(path, bytes) {
        return Ok(());
    }
    if found.iter().all(|byte| *byte == 0) {
        return Err(BundleError::Missing { path: path.to_owned() });
    }
    let stated = std::str::from_utf8(&found[SUM.start..SUM.start + 6]);
    if stated.ok().and_then(|digits| u32::from_str_radix(digits, 8).ok()) != Some(sum(found)) {
        return Err(BundleError::Damaged { what: format!("the header of {path}") });
    }
    let name = found[..LONGEST].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    if !matches!(found[KIND], b'0' | 0) || found[LINKED].iter().any(|byte| *byte != 0) {
        return Err(BundleError::NoFile { path: name });
    }
    if name != path {
        return Err(BundleError::Unexpected { found: name, expected: path.to_owned() });
    }
    match size(found) {
        Some(found) if found != bytes => {
            Err(BundleError::Size { path: path.to_owned(), expected: bytes, found })
        }
        _ => Err(BundleError::Damaged { what: format!("the header of {path}") }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::process::Command;

    use super::{BLOCK, header, padding, size};

    #[test]
    fn sizes_are_written_as_tar_reads_them() {
        assert_eq!(size(&header("a", 0o7_654_321)), Some(0o7_654_321));
        assert_eq!(&header("a", (1 << 33) + 5)[124..136], b"\x80\0\0\0\0\0\0\x02\0\0\0\x05");
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
    /// GNU tar's word on a file that is too large for octal digits, and that is nothing but a hole.
    #[test]
    fn gnu_tar_knows_the_size_of_a_large_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.tar");
        for bytes in [(1 << 33) - 1, (1 << 33) + 5, 1 << 40] {
            let mut file = File::create(&path).unwrap();
            file.write_all(&header("bases/a/b", bytes)).unwrap();
            file.set_len(bytes.next_multiple_of(512) + 3 * BLOCK as u64).unwrap();
            let listed =
                Command::new("tar").args(["--list", "--verbose", "--file"]).arg(&path).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert!(listed.contains(&format!(" {bytes} ")) && listed.ends_with(" bases/a/b\n"), "{listed}");
        }
    }
}
