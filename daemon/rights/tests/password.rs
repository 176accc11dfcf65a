//! Passwords at their real cost: what is taken, what is refused, and what a stored hash may ask for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moat_rights::{PasswordError, hash_password, is_outdated, verify_nobody, verify_password, wait_after};

#[test]
fn a_password_is_known_again_and_no_other_is() {
    let stored = hash_password("anna", "a meadow, a river").unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{stored}");
    assert!(verify_password(&stored, "a meadow, a river").unwrap());
    for wrong in ["a meadow, a rive", "a meadow, a river ", "A meadow, a river", ""] {
        assert!(!verify_password(&stored, wrong).unwrap(), "{wrong}");
    }
    let again = hash_password("anna", "a meadow, a river").unwrap();
    assert_ne!(stored, again, "each has a salt of its own");
    assert!(!is_outdated(&stored));
    assert!(!verify_nobody("a meadow, a river").unwrap());
    assert_eq!(verify_password(&stored, &"x".repeat(1025)), Err(PasswordError::Long));
}

#[test]
fn weak_passwords_are_refused() {
    let refused = |name: &str, password: &str| hash_password(name, password).unwrap_err();
    assert_eq!(refused("anna", "elevenchars"), PasswordError::Short);
    assert_eq!(refused("anna", "ääääääääää"), PasswordError::Short, "characters count, not bytes");
    assert_eq!(refused("anna", &"long".repeat(300)), PasswordError::Long);
    assert_eq!(refused("anna", "ababababababab"), PasswordError::Plain);
    assert_eq!(refused("anna", "I am ANNA, hello"), PasswordError::Name);
}

#[test]
fn a_stored_hash_that_is_none_or_asks_too_much_is_refused() {
    let salt_and_hash = "c2FsdHNhbHRzYWx0$Gp1Xh5DbIOJCVKbGfI4C8ZEs4M9UrL1lRBRV4Fmvb0o";
    for stored in [
        "".to_owned(),
        "a meadow, a river".to_owned(),
        "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0".to_owned(),
        format!("$argon2i$v=19$m=65536,t=3,p=4${salt_and_hash}"),
        format!("$argon2id$v=19$m=4194304,t=3,p=4${salt_and_hash}"),
        format!("$argon2id$v=19$m=65536,t=4000000,p=4${salt_and_hash}"),
    ] {
        assert_eq!(verify_password(&stored, "a meadow, a river"), Err(PasswordError::Stored), "{stored}");
        assert!(is_outdated(&stored));
    }
    assert!(is_outdated(&format!("$argon2id$v=19$m=19456,t=2,p=1${salt_and_hash}")));
}

/// RFC 9106's reference program gives this for the password and salt, at 64 MiB, two passes, one lane.
#[test]
fn the_hash_is_that_of_the_reference_program() {
    let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert!(verify_password(stored, "password").unwrap());
    assert!(!verify_password(stored, "differentpassword").unwrap());
}

#[test]
fn who_guesses_waits_longer_and_longer() {
    let waits: Vec<u64> = (0..20).map(|failures| wait_after(failures).as_secs()).collect();
    assert_eq!(waits[..7], [0, 0, 0, 0, 0, 30, 60]);
    assert!(waits.is_sorted());
    assert_eq!((waits[19], wait_after(u32::MAX).as_secs()), (3600, 3600));
}
