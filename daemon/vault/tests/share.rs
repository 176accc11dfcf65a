//! Shares: any enough of them open, and every mistake of people is told apart.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moat_vault::{Kek, Share, ShareError, VaultError};
use proptest::prelude::*;

fn error(shares: &[Share]) -> ShareError {
    match Kek::from_shares(shares) {
        Err(VaultError::Share(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_people_do_wrong_is_named() {
    let (_, shares) = Kek::split(3, 5).unwrap();
    let (_, others) = Kek::split(3, 5).unwrap();
    assert_eq!(error(&[]), ShareError::TooFew { have: 0, needed: 2 });
    assert_eq!(error(&shares[..2]), ShareError::TooFew { have: 2, needed: 3 });
    assert_eq!(error(&[shares[0].clone(), shares[1].clone(), shares[0].clone()]), ShareError::Repeated(1));
    assert_eq!(error(&[shares[0].clone(), shares[1].clone(), others[2].clone()]), ShareError::Mixed);
    for counts in [(0, 0), (0, 5), (1, 5), (6, 5)] {
        assert!(matches!(Kek::split(counts.0, counts.1), Err(VaultError::Share(ShareError::Counts { .. }))));
    }
    assert_eq!((shares[4].place(), shares[4].needed(), shares[4].of()), (5, 3, 5));
    let shown = format!("{:?}", shares[0]);
    let text = shares[0].to_text();
    assert!(text.split(' ').skip(3).all(|group| !shown.contains(group)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_share_survives_being_written_down(needed in 2_u8..6, more in 0_u8..4, which in any::<prop::sample::Index>()) {
        let (_, shares) = Kek::split(needed, needed + more).unwrap();
        let share = which.get(&shares);
        let text = share.to_text();
        prop_assert!(text.starts_with("MOAT1 ") && text.len() == 5 + 9 * 10);
        let sloppy = text.to_lowercase().replace('0', "o").replace('1', "l").replace(' ', " -\n");
        for typed in [text.to_string(), sloppy, text[5..].replace(' ', ""), text.replacen("MOAT1", "m0ati", 1)] {
            prop_assert!(Share::parse(&typed).unwrap() == *share, "{}", typed);
        }
        let enough: Vec<_> = shares.iter().rev().take(needed.into()).map(|share| Share::parse(&share.to_text()).unwrap()).collect();
        prop_assert!(Kek::from_shares(&enough).is_ok());
        prop_assert!(Kek::from_shares(&enough[1..]).is_err());
    }

    #[test]
    fn a_typing_error_is_found_and_nearly_always_in_its_group(place in 6_usize..95, to in 0_usize..32, other in 6_usize..94) {
        let (_, shares) = Kek::split(2, 3).unwrap();
        let text = shares[0].to_text().to_string();
        let mut typed = text.clone().into_bytes();
        if typed[place] != b' ' {
            typed[place] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[to];
            let typed = String::from_utf8(typed).unwrap();
            if typed != text {
                let group = (place - 6) / 10 + 1;
                let found = Share::parse(&typed).unwrap_err();
                prop_assert!(found == ShareError::Mistyped(group) || found == ShareError::Checksum, "{}", found);
            }
        }
        let mut swapped = text.clone().into_bytes();
        swapped.swap(other, other + 1);
        let swapped = String::from_utf8(swapped).unwrap();
        if swapped.replace(' ', "") != text.replace(' ', "") {
            prop_assert!(Share::parse(&swapped).is_err());
        }
        prop_assert!(matches!(Share::parse(&text[..place]), Err(ShareError::Length { .. })), "a cut share was taken");
    }

    #[test]
    fn any_text_is_refused_in_peace(text in "\\PC{0,120}", digits in "[0-9A-Za-z]{81}") {
        prop_assert!(Share::parse(&text).is_err());
        prop_assert!(Share::parse(&digits).is_err());
    }
}

#[test]
fn as_many_shares_as_there_are_places_can_be_made() {
    let (_, shares) = Kek::split(255, 255).unwrap();
    assert_eq!((shares.len(), shares[254].place()), (255, 255));
    assert!(Kek::from_shares(&shares).is_ok());
    assert_eq!(error(&shares[1..]), ShareError::TooFew { have: 254, needed: 255 });
}

#[test]
fn whole_groups_in_the_wrong_order_and_foreign_characters_are_found() {
    let (_, shares) = Kek::split(2, 3).unwrap();
    let text = shares[0].to_text().to_string();
    let mut groups: Vec<_> = text.split(' ').collect();
    groups.swap(3, 4);
    assert!(matches!(
        Share::parse(&groups.join(" ")),
        Err(ShareError::Mistyped(3 | 4) | ShareError::Checksum)
    ));
    let strange = format!("{}U{}", &text[..30], &text[31..]);
    assert!(matches!(Share::parse(&strange), Err(ShareError::Character(3) | ShareError::Length { .. })));
    assert!(matches!(Share::parse(&format!("{text}0")), Err(ShareError::Length { found: 82, wanted: 81 })));
}
