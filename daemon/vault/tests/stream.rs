//! Streams, files and values: what was sealed opens, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Cursor, ErrorKind, Read, Seek, SeekFrom, Write};

use moat_vault::{
    CHUNK, DataKey, OpenReader, SealWriter, SealedFile, VALUE_OVERHEAD, VaultError, open_bytes, open_file,
    open_in_place, seal_bytes, sealed_length, sweep,
};
use proptest::prelude::*;

const HEADER: usize = 48;
const SEALED: usize = CHUNK + 16;

fn plain(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index as u64).wrapping_mul(0x9e37_79b9).rotate_right(13) as u8 ^ seed).collect()
}

fn seal(key: &DataKey, object: &str, plain: &[u8]) -> Vec<u8> {
    let mut writer = SealWriter::new(Vec::new(), key, object).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn open(key: &DataKey, object: &str, sealed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    OpenReader::new(sealed, key, object)?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// By range and from its end, which must refuse whatever reading in order refuses.
fn open_by_length(key: &DataKey, object: &str, sealed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut reader = OpenReader::new(Cursor::new(sealed), key, object)?;
    let length = reader.length()?;
    let mut plain = vec![0; length as usize];
    reader.read_at(0, &mut plain)?;
    Ok(plain)
}

fn open_where_it_stands(key: &DataKey, object: &str, sealed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut buffer = sealed.to_vec();
    Ok(open_in_place(key, object, &mut buffer)?.to_vec())
}

fn refused(key: &DataKey, object: &str, sealed: &[u8], what: &str) {
    let error = open(key, object, sealed).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}: {error}");
    let error = open_by_length(key, object, sealed).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}, by length: {error}");
    let error = open_where_it_stands(key, object, sealed).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}, in place: {error}");
}

/// Lengths around the chunks' borders.
fn lengths() -> impl Strategy<Value = usize> {
    let border = (0_usize..4, -2_i64..3)
        .prop_map(|(chunks, off)| (chunks * CHUNK).saturating_add_signed(off as isize));
    prop_oneof![border, 0..3 * CHUNK, 0..200_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_length_in_any_pieces_round_trips(length in lengths(), pieces in prop::collection::vec(1_usize..200_000, 1..8)) {
        let (key, text) = (DataKey::random().unwrap(), plain(length, 1));
        let mut writer = SealWriter::new(Vec::new(), &key, "a").unwrap();
        let mut left = text.as_slice();
        for (turn, size) in pieces.iter().cycle().enumerate() {
            if left.is_empty() {
                break;
            }
            let (piece, rest) = left.split_at(left.len().min(*size));
            match turn % 2 {
                0 => writer.write_all(piece).unwrap(),
                _ => writer.write_in_place(&mut piece.to_vec()).unwrap(),
            }
            left = rest;
        }
        prop_assert_eq!(writer.written(), length as u64);
        let sealed = writer.finish().unwrap();
        prop_assert_eq!(sealed.len() as u64, sealed_length(length as u64));
        prop_assert!(open(&key, "a", &sealed).unwrap() == text);
        prop_assert!(open_by_length(&key, "a", &sealed).unwrap() == text);
        prop_assert!(open_where_it_stands(&key, "a", &sealed).unwrap() == text);

        let mut reader = OpenReader::new(sealed.as_slice(), &key, "a").unwrap();
        let mut opened = Vec::new();
        for size in pieces.iter().cycle() {
            let mut piece = vec![0; *size];
            let read = reader.read(&mut piece).unwrap();
            if read == 0 {
                break;
            }
            opened.extend_from_slice(&piece[..read]);
        }
        prop_assert!(opened == text);
    }

    #[test]
    fn any_range_is_what_the_whole_has_there(length in lengths(), moves in prop::collection::vec((0.0..=1.0, 0_usize..150_000, 0..3), 1..12)) {
        let (key, text) = (DataKey::random().unwrap(), plain(length, 2));
        let mut reader = OpenReader::new(Cursor::new(seal(&key, "a", &text)), &key, "a").unwrap();
        let mut model = Cursor::new(text);
        for (place, size, from) in moves {
            let target = (place * length as f64) as i64;
            let to = match from {
                0 => SeekFrom::Start(target as u64),
                1 => SeekFrom::End(target - length as i64),
                _ => SeekFrom::Current(target - model.position() as i64),
            };
            prop_assert_eq!(reader.seek(to).unwrap(), model.seek(to).unwrap());
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            (&mut model).take(size as u64).read_to_end(&mut wanted).unwrap();
            // In one read of that size, which may open chunks where they belong, or in many.
            found.resize(wanted.len(), 0);
            reader.read_exact(&mut found).unwrap();
            prop_assert!(found == wanted);
            prop_assert_eq!(reader.stream_position().unwrap(), model.position());
        }
        prop_assert_eq!(reader.seek(SeekFrom::Start(length as u64 + 1)).unwrap_err().kind(), ErrorKind::InvalidInput);
        prop_assert_eq!(reader.length().unwrap(), length as u64);
    }

    #[test]
    fn any_flipped_bit_is_refused(length in lengths(), place in 0.0..1.0, bit in 0_u32..8) {
        let key = DataKey::random().unwrap();
        let mut sealed = seal(&key, "a", &plain(length, 3));
        let place = (place * sealed.len() as f64) as usize;
        sealed[place] ^= 1_u8 << bit;
        let in_order = open(&key, "a", &sealed).unwrap_err();
        prop_assert_eq!(in_order.kind(), ErrorKind::InvalidData);
        prop_assert!(open_where_it_stands(&key, "a", &sealed).is_err());
    }

    #[test]
    fn any_cut_and_any_addition_is_refused(length in lengths(), place in 0.0..1.0, more in prop::collection::vec(any::<u8>(), 1..40)) {
        let key = DataKey::random().unwrap();
        let sealed = seal(&key, "a", &plain(length, 4));
        refused(&key, "a", &sealed[..(place * sealed.len() as f64) as usize], "cut");
        for chunks in 0..=length.div_ceil(CHUNK) {
            let cut = HEADER + chunks * SEALED;
            if cut < sealed.len() {
                refused(&key, "a", &sealed[..cut], "cut at a chunk's border");
            }
        }
        refused(&key, "a", &[sealed.as_slice(), &more].concat(), "extended");
        refused(&key, "a", &[sealed.as_slice(), &sealed[HEADER..]].concat(), "repeated as a whole");
    }

    #[test]
    fn values_round_trip_and_changed_ones_are_refused(text in prop::collection::vec(any::<u8>(), 0..400), place in 0.0..1.0, bit in 0_u32..8) {
        let key = DataKey::random().unwrap();
        let sealed = seal_bytes(&key, "a", &text).unwrap();
        prop_assert_eq!(sealed.len(), text.len() + VALUE_OVERHEAD);
        prop_assert_eq!(open_bytes(&key, "a", &sealed).unwrap(), text.clone());
        prop_assert!(matches!(open_bytes(&key, "b", &sealed), Err(VaultError::Refused)));
        prop_assert!(matches!(open_bytes(&DataKey::random().unwrap(), "a", &sealed), Err(VaultError::Refused)));
        let place = (place * sealed.len() as f64) as usize;
        prop_assert!(open_bytes(&key, "a", &sealed[..place]).is_err());
        prop_assert!(open_bytes(&key, "a", &[sealed.as_slice(), &[0]].concat()).is_err());
        let mut changed = sealed.clone();
        changed[place] ^= 1_u8 << bit;
        prop_assert!(open_bytes(&key, "a", &changed).is_err());
        prop_assert_ne!(seal_bytes(&key, "a", &text).unwrap(), sealed, "a salt was used twice");
    }
}

#[test]
fn chunks_cannot_be_moved_within_a_stream_or_between_streams() {
    let key = DataKey::random().unwrap();
    let chunks = |sealed: &[u8]| sealed[HEADER..].chunks(SEALED).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let text = plain(3 * CHUNK, 5);
    let sealed = seal(&key, "a", &text);
    let join = |chunks: &[Vec<u8>]| [&sealed[..HEADER], &chunks.concat()].concat();
    let own = chunks(&sealed);
    assert_eq!(open(&key, "a", &join(&own)).unwrap(), text);

    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = own.clone();
        swapped.swap(a, b);
        refused(&key, "a", &join(&swapped), "swapped");
    }
    for index in 0..3 {
        let mut repeated = own.clone();
        repeated.insert(index, own[index].clone());
        refused(&key, "a", &join(&repeated), "repeated");
        let mut shorter = own.clone();
        shorter.remove(index);
        refused(&key, "a", &join(&shorter), "left out");
    }
    // The same key, object and text, sealed again: still no chunk of one fits the other.
    let others = chunks(&seal(&key, "a", &text));
    for index in 0..3 {
        let mut mixed = own.clone();
        mixed[index].clone_from(&others[index]);
        refused(&key, "a", &join(&mixed), "taken from another stream");
    }
    refused(&key, "b", &sealed, "another object");
    refused(&DataKey::random().unwrap(), "a", &sealed, "another key");
    refused(&key, "a", b"", "nothing at all");
    let value = seal_bytes(&key, "a", &text).unwrap();
    refused(&key, "a", &value, "a value is no stream");
}

/// Chunks opened in a caller's buffer are not held; going back into one must open it again.
#[test]
fn a_place_that_was_read_in_one_go_can_be_read_again() {
    let (key, text) = (DataKey::random().unwrap(), plain(4 * CHUNK + 9, 11));
    let mut reader = OpenReader::new(Cursor::new(seal(&key, "a", &text)), &key, "a").unwrap();
    let mut opened = vec![0; text.len()];
    for first in [0, 7] {
        reader.read_at(0, &mut opened[..first]).unwrap();
        let place = reader.read(&mut opened).unwrap() + reader.read(&mut opened[CHUNK..]).unwrap();
        assert!(place >= CHUNK);
        for back in [1, 100, CHUNK] {
            let from = first + place - back;
            reader.read_at(from as u64, &mut opened[..50]).unwrap();
            assert!(opened[..50] == text[from..from + 50], "{back} bytes back");
            reader.seek(SeekFrom::Start(0)).unwrap();
            reader.read_exact(&mut opened[..first + place]).unwrap();
            assert!(opened[..first + place] == text[..first + place]);
        }
    }
}

#[test]
fn a_stream_that_was_not_finished_is_refused() {
    let key = DataKey::random().unwrap();
    let mut bytes = Vec::new();
    for length in [0, 1, CHUNK, CHUNK + 1] {
        bytes.clear();
        let mut writer = SealWriter::new(&mut bytes, &key, "a").unwrap();
        writer.write_all(&plain(length, 6)).unwrap();
        writer.flush().unwrap();
        drop(writer);
        refused(&key, "a", &bytes, "not finished");
    }
}

/// Takes so many bytes, then fails once, then takes everything.
struct Hiccup(Vec<u8>, usize);

impl Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.1 == 0 {
            self.1 = usize::MAX;
            return Err(ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.1);
        self.1 -= taken;
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_failed_once_does_not_go_on() {
    let key = DataKey::random().unwrap();
    let mut writer = SealWriter::new(Hiccup(Vec::new(), HEADER + 100), &key, "a").unwrap();
    let error = writer.write_all(&plain(2 * CHUNK, 7)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(writer.write_all(&plain(2 * CHUNK, 7)).is_err());
    assert_eq!(writer.get_ref().0.len(), HEADER + 100, "something followed the cut chunk");
    assert!(writer.write_in_place(&mut plain(2 * CHUNK, 7)).is_err());
    assert!(writer.finish().is_err());
}

#[test]
fn a_reader_that_refused_once_reads_nothing_more() {
    let key = DataKey::random().unwrap();
    let mut sealed = seal(&key, "a", &plain(3 * CHUNK, 8));
    sealed[HEADER + SEALED + 5] ^= 1;
    let mut reader = OpenReader::new(Cursor::new(sealed), &key, "a").unwrap();
    let mut opened = Vec::new();
    assert!(reader.read_to_end(&mut opened).is_err());
    assert_eq!(opened.len(), CHUNK, "bytes of a refused chunk were handed out");
    assert!(reader.read(&mut [0]).is_err());
    assert!(reader.seek(SeekFrom::Start(0)).is_err());
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter");
    let key = DataKey::random().unwrap();
    let text = plain(CHUNK + 77, 9);

    let mut file = SealedFile::create(&path, &key, "a").unwrap();
    file.write_all(&text).unwrap();
    assert!(!path.exists());
    drop(file);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "an abandoned file was left");

    let mut file = SealedFile::create(&path, &key, "a").unwrap();
    file.write_all(&text).unwrap();
    assert_eq!(file.publish().unwrap(), text.len() as u64);
    let mut opened = Vec::new();
    open_file(&path, &key, "a").unwrap().read_to_end(&mut opened).unwrap();
    assert!(opened == text);
    assert_eq!(fs::metadata(&path).unwrap().len(), sealed_length(text.len() as u64));

    // A second writer that dies leaves the first file and a draft, which is swept.
    let mut file = SealedFile::create(&path, &key, "a").unwrap();
    file.write_all(&text[..5]).unwrap();
    std::mem::forget(file);
    assert_eq!(sweep(folder.path()).unwrap(), 1);
    opened.clear();
    open_file(&path, &key, "a").unwrap().read_to_end(&mut opened).unwrap();
    assert!(opened == text);
    assert!(matches!(open_file(&folder.path().join("none"), &key, "a"), Err(VaultError::Io { .. })));
}

#[test]
fn no_plain_text_is_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let key = DataKey::random().unwrap();
    let canary = b"the quick canary sang in the coal mine";
    let text = canary.repeat(5000);
    let mut whole = SealedFile::create(&folder.path().join("whole"), &key, "a").unwrap();
    whole.write_all(&text).unwrap();
    whole.publish().unwrap();
    let mut unfinished = SealedFile::create(&folder.path().join("unfinished"), &key, "a").unwrap();
    unfinished.write_all(&text).unwrap();
    std::mem::forget(unfinished);
    fs::write(folder.path().join("value"), seal_bytes(&key, "a", &text).unwrap()).unwrap();
    let mut scanned = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(bytes.len() > CHUNK);
        scanned += 1;
        for start in 0..canary.len() - 12 {
            let piece = &canary[start..start + 12];
            assert!(!bytes.windows(12).any(|window| window == piece));
        }
        assert!(!bytes.windows(32).any(|window| window == key.expose()));
    }
    assert_eq!(scanned, 3);
}

#[test]
fn a_gigabyte_passes_through_little_memory() {
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("weights");
    let (key, piece) = (DataKey::random().unwrap(), plain(1 << 20, 10));
    let before = peak();
    let mut file = SealedFile::create(&path, &key, "a").unwrap();
    for _ in 0..1024 {
        file.write_all(&piece).unwrap();
    }
    file.publish().unwrap();
    let mut reader = open_file(&path, &key, "a").unwrap();
    let (mut opened, mut total) = (vec![0; 1 << 20], 0);
    while reader.read_exact(&mut opened).is_ok() {
        assert!(opened == piece);
        total += opened.len();
    }
    assert_eq!(total, 1 << 30);
    assert_eq!(reader.read(&mut opened).unwrap(), 0);
    // Other tests of this file run beside this one; none of them holds more than a few MiB.
    assert!(peak() - before < 64 << 10, "{} KiB for a file of 1 GiB", peak() - before);
}
