//! Against Debian's age, which recipients use.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Recipient, VaultError};

fn keys(folder: &Path) -> Recipient {
    let made = Command::new("age-keygen").arg("-o").arg(folder.join("key")).output().unwrap();
    assert!(made.status.success());
    let public = Command::new("age-keygen").arg("-y").arg(folder.join("key")).output().unwrap();
    String::from_utf8(public.stdout).unwrap().parse().unwrap()
}

fn open(folder: &Path, encrypted: &[u8]) -> Option<Vec<u8>> {
    let mut age = Command::new("age");
    age.arg("-d").arg("-i").arg(folder.join("key")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut age = age.stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = age.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // age stops reading where it refuses.
        scope.spawn(move || drop(stdin.write_all(encrypted)));
        let output = age.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    })
}

fn encrypt(to: &Recipient, plain: &[u8], piece: usize) -> Vec<u8> {
    let mut encrypted = Vec::new();
    let mut writer = to.encrypt(&mut encrypted).unwrap();
    for piece in plain.chunks(piece) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap();
    encrypted
}

#[test]
fn age_opens_what_is_encrypted_at_every_edge_of_a_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let recipient = keys(folder.path());
    for length in [0, 1, 65535, 65536, 65537, 131_072, 200_000] {
        let plain: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        let encrypted = encrypt(&recipient, &plain, 10_000);
        assert_eq!(open(folder.path(), &encrypted).unwrap(), plain, "{length}");
        assert!(open(folder.path(), &encrypted[..encrypted.len() - 1]).is_none());
    }
    assert_ne!(encrypt(&recipient, b"x", 1), encrypt(&recipient, b"x", 1));
}

#[test]
fn only_a_whole_public_key_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let text = keys(folder.path()).to_string();
    assert!(format!("  {text}\n").parse::<Recipient>().is_ok());
    for at in 0..text.len() {
        let mut wrong = text.clone().into_bytes();
        wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
        assert!(String::from_utf8(wrong).unwrap().parse::<Recipient>().is_err(), "letter {at}");
        assert!(text[..at].parse::<Recipient>().is_err());
    }
    assert!(text.to_uppercase().parse::<Recipient>().is_err());
    // The neutral point, in Bech32: with it every secret would be the same.
    let low = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
    assert!(low.parse::<Recipient>().is_err());
    let low = Recipient { text: String::new(), key: [0; 32] };
    assert!(matches!(low.encrypt(Vec::new()), Err(VaultError::Recipient)));
}
