use std::fmt;

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::cipher::{Secret, random};
use crate::shamir::{combine, split};
use crate::{ShareError, VaultError};

/// Digits and letters without I, L, O and U (Crockford's base 32): none is taken for another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// What a share's text starts with; the last character is the format's version.
const PREFIX: &str = "MOAT1";
/// Nine groups of eight characters and one that checks them: 45 bytes.
const GROUPS: usize = 9;
const GROUP: usize = 9;
const PACKED: usize = GROUPS * (GROUP - 1) * 5 / 8;
/// The secret, and the first bytes of its digest, which tell whether the shares fit together.
const SHARED: usize = 32 + 4;
const SUM: usize = 2;

/// One of the shares of which a number opens a vault. Its text form is for people: nine groups of nine characters,
/// each with its own check. Wiped when dropped, never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    set: [u8; 4],
    needed: u8,
    of: u8,
    place: u8,
    values: Zeroizing<Vec<u8>>,
}

impl Share {
    /// Which split it is of, as 8 hexadecimal digits: shares of one vault slot have the same.
    #[must_use]
    pub fn set(&self) -> String {
        self.set.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How many shares open.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// How many shares were made.
    #[must_use]
    pub fn of(&self) -> u8 {
        self.of
    }

    /// Its number among them, from 1.
    #[must_use]
    pub fn place(&self) -> u8 {
        self.place
    }

    /// What its keeper writes down: `MOAT1` and nine groups.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut packed = Zeroizing::new(Vec::with_capacity(PACKED));
        packed.extend_from_slice(&self.set);
        packed.extend_from_slice(&[self.needed, self.of, self.place]);
        packed.extend_from_slice(&self.values);
        let sum = sum(&packed);
        packed.extend_from_slice(&sum);
        // Reserved at once, so that no copy is left behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + GROUPS * (GROUP + 1)));
        text.push_str(PREFIX);
        for (index, bytes) in packed.chunks_exact(5).enumerate() {
            let word = bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            let group =
                Zeroizing::new([35, 30, 25, 20, 15, 10, 5, 0].map(|shift| (word >> shift & 31) as u8));
            text.push(' ');
            group.iter().for_each(|digit| text.push(ALPHABET[usize::from(*digit)].into()));
            text.push(ALPHABET[usize::from(check(index, &*group))].into());
        }
        text
    }

    /// Reads what someone typed: capitals or not, blanks and dashes anywhere, O for 0, I and L for 1.
    ///
    /// # Errors
    /// [`ShareError`] that names the group where a typing error shows.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        // Reserved at once, so that no copy is left behind.
        let mut typed = Zeroizing::new(Vec::with_capacity(text.len()));
        typed.extend(text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(plain));
        let named = typed.iter().copied().take(PREFIX.len()).eq(PREFIX.chars().map(plain));
        let typed = if named { &typed[PREFIX.len()..] } else { &typed };
        if typed.len() != GROUPS * GROUP {
            return Err(ShareError::Length { found: typed.len(), wanted: GROUPS * GROUP });
        }
        let mut packed = Zeroizing::new(Vec::with_capacity(PACKED));
        for (index, group) in typed.chunks_exact(GROUP).enumerate() {
            let mut digits = Zeroizing::new([0; GROUP]);
            for (digit, character) in digits.iter_mut().zip(group) {
                *digit = read(*character).ok_or(ShareError::Character(index + 1))?;
            }
            let (checked, last) = digits.split_at(GROUP - 1);
            if last != [check(index, checked)] {
                return Err(ShareError::Mistyped(index + 1));
            }
            let word = checked.iter().fold(0_u64, |word, digit| word << 5 | u64::from(*digit));
            packed.extend_from_slice(&word.to_be_bytes()[3..]);
        }
        let (body, found) = packed.split_at(PACKED - SUM);
        let &[s0, s1, s2, s3, needed, of, place, ref values @ ..] = body else {
            return Err(ShareError::Checksum);
        };
        if found != sum(body) || place == 0 || needed < 2 || place > of || needed > of {
            return Err(ShareError::Checksum);
        }
        Ok(Self { set: [s0, s1, s2, s3], needed, of, place, values: Zeroizing::new(values.to_vec()) })
    }

    /// Splits a secret into `of` shares, any `needed` of which give it back and fewer of which say nothing about it.
    pub(crate) fn split(secret: &[u8; 32], needed: u8, of: u8) -> Result<Vec<Self>, VaultError> {
        if needed < 2 || needed > of {
            return Err(ShareError::Counts { needed, of }.into());
        }
        let mut set = [0; 4];
        random(&mut set)?;
        let mut shared = Zeroizing::new([0; SHARED]);
        shared[..32].copy_from_slice(secret);
        shared[32..].copy_from_slice(&digest_of(secret));
        let shares = split(&*shared, needed, of)?;
        Ok((1..=of).zip(shares).map(|(place, values)| Self { set, needed, of, place, values }).collect())
    }

    /// The secret that these shares were made of.
    pub(crate) fn combine(shares: &[Self]) -> Result<Secret, ShareError> {
        let first = shares.first().ok_or(ShareError::TooFew { have: 0, needed: 2 })?;
        if shares
            .iter()
            .any(|share| (share.set, share.needed, share.of) != (first.set, first.needed, first.of))
        {
            return Err(ShareError::Mixed);
        }
        for (index, share) in shares.iter().enumerate() {
            if shares[..index].iter().any(|other| other.place == share.place) {
                return Err(ShareError::Repeated(share.place));
            }
        }
        let needed = usize::from(first.needed);
        let enough = shares.get(..needed).ok_or(ShareError::TooFew { have: shares.len(), needed })?;
        let points: Vec<_> = enough.iter().map(|share| (share.place, share.values.as_slice())).collect();
        let shared = combine(&points);
        let (secret, digest) = shared.split_at_checked(32).ok_or(ShareError::Disagree)?;
        let mut opened = Secret::default();
        opened.copy_from_slice(secret);
        if digest == digest_of(&opened) { Ok(opened) } else { Err(ShareError::Disagree) }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Share({} of set {}, {} of {} needed)",
            self.place,
            self.set(),
            self.needed,
            self.of
        )
    }
}

/// Four bytes that say nothing useful about a secret of 32 random ones.
fn digest_of(secret: &[u8; 32]) -> [u8; 4] {
    let mut labelled = Zeroizing::new(b"moat shared secret\0".to_vec());
    // Reserved by hand, so that growing leaves no copy behind.
    labelled.reserve_exact(32);
    labelled.extend_from_slice(secret);
    first(&labelled)
}

fn sum(body: &[u8]) -> [u8; SUM] {
    first(&Zeroizing::new([PREFIX.as_bytes(), body].concat()))
}

/// The check of a group's digits and its place: finds 31 of 32 typing errors where they are.
fn check(index: usize, digits: &[u8]) -> u8 {
    let [first] = first(&Zeroizing::new([&[index as u8], digits].concat()));
    first & 31
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let digest = digest(&SHA256, bytes);
    std::array::from_fn(|index| digest.as_ref()[index])
}

/// A character as the alphabet has it.
fn plain(character: char) -> char {
    match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    }
}

fn read(character: char) -> Option<u8> {
    ALPHABET.iter().position(|known| char::from(*known) == character).map(|digit| digit as u8)
}
