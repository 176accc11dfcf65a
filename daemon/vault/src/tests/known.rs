//! Every format beside what `tests/known/make.py` computed with another library.

use std::io::{Cursor, Read, Write};

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::kek::unhex;
use crate::vault::{derived, look_up};
use crate::{
    CHUNK, DataKey, OpenReader, SealWriter, Share, ShareError, WrappedKey, open_bytes, open_in_place,
};

fn known() -> Value {
    serde_json::from_str(include_str!("../../tests/known/known.json")).unwrap()
}

fn bytes(digits: &Value) -> Vec<u8> {
    let digits = digits.as_str().unwrap();
    let mut bytes = vec![0; digits.len() / 2];
    assert!(unhex(digits.as_bytes(), &mut bytes));
    bytes
}

fn key(digits: &Value) -> DataKey {
    DataKey::from_bytes(&bytes(digits).try_into().unwrap())
}

#[test]
fn streams_are_those_of_another_library() {
    let known = known();
    let (key, object) = (key(&known["key"]), known["object"].as_str().unwrap());
    for stream in known["streams"].as_array().unwrap() {
        let plain: Vec<u8> =
            (0..stream["length"].as_u64().unwrap()).map(|index| (index % 251) as u8).collect();
        let salt = bytes(&stream["salt"]).try_into().unwrap();
        let mut writer = SealWriter::salted(Vec::new(), &key, object, &salt).unwrap();
        writer.write_all(&plain).unwrap();
        let sealed = writer.finish().unwrap();
        assert_eq!(
            digest(&SHA256, &sealed).as_ref(),
            bytes(&stream["sealed_sha256"]),
            "{} bytes",
            plain.len()
        );
        let mut opened = Vec::new();
        OpenReader::new(sealed.as_slice(), &key, object).unwrap().read_to_end(&mut opened).unwrap();
        assert!(opened == plain);
    }
}

#[test]
fn values_wrapped_keys_and_derived_keys_are_those_of_another_library() {
    let known = known();
    let (data, root, object) = (key(&known["key"]), key(&known["root"]), known["object"].as_str().unwrap());
    let value = open_bytes(&data, object, &bytes(&known["value"]["sealed"])).unwrap();
    assert_eq!(value, bytes(&known["value"]["plain"]));
    let wrapped = WrappedKey::from_bytes(&bytes(&known["wrapped"]["bytes"])).unwrap();
    assert_eq!(wrapped.generation(), 3);
    assert_eq!(wrapped.unwrap(root.expose(), object).unwrap().expose(), data.expose());
    assert_eq!(derived(root.expose(), "index").unwrap().expose(), key(&known["derived"]["index"]).expose());
    assert_eq!(look_up(root.expose(), "path", b"/srv/a").unwrap(), *bytes(&known["look_up"]["path"]));
}

#[test]
fn shares_are_those_of_another_library() {
    let known = known();
    let texts = known["shares"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let shares: Vec<_> = texts.clone().map(|text| Share::parse(text).unwrap()).collect();
    for (share, text) in shares.iter().zip(texts) {
        assert_eq!(*share.to_text(), text);
    }
    for (first, second, third) in [(0, 1, 2), (4, 2, 0), (1, 3, 4)] {
        let three = [first, second, third].map(|index: usize| shares[index].clone());
        assert_eq!(**Share::combine(&three).unwrap(), *key(&known["key"]).expose());
    }
    let false_share = Share::parse(known["false_share"].as_str().unwrap()).unwrap();
    let error = Share::combine(&[shares[0].clone(), shares[1].clone(), false_share]).unwrap_err();
    assert_eq!(error, ShareError::Disagree);
}

/// A full chunk and an empty last one would be a second form of the stream that ends with the full chunk.
#[test]
fn a_stream_has_only_one_form() {
    let key = DataKey::random().unwrap();
    let mut writer = SealWriter::new(Vec::new(), &key, "a").unwrap();
    writer.write_all(&[7; CHUNK]).unwrap();
    writer.put(false).unwrap();
    let mut sealed = writer.finish().unwrap();
    let mut opened = Vec::new();
    let mut reader = OpenReader::new(sealed.as_slice(), &key, "a").unwrap();
    assert!(reader.read_to_end(&mut opened).is_err());
    assert!(OpenReader::new(Cursor::new(&sealed), &key, "a").unwrap().length().is_err());
    assert!(open_in_place(&key, "a", &mut sealed).is_err());
}
