use proptest::prelude::*;

use crate::shamir::{combine, invert, multiply, split};

#[test]
fn the_field_is_that_of_aes() {
    // The two examples of FIPS 197, section 4.2.
    assert_eq!(multiply(0x57, 0x83), 0xc1);
    assert_eq!(multiply(0x57, 0x13), 0xfe);
    for a in 1..=255 {
        assert_eq!(multiply(a, invert(a)), 1);
        for b in 0..=255 {
            // Carry-less long multiplication, then division by the polynomial.
            let mut long =
                (0..8).filter(|bit| b >> bit & 1 == 1).fold(0_u32, |sum, bit| sum ^ u32::from(a) << bit);
            for bit in (8..16).rev() {
                if long >> bit & 1 == 1 {
                    long ^= 0x11b << (bit - 8);
                }
            }
            assert_eq!(u32::from(multiply(a, b)), long);
        }
    }
}

/// With one share fewer than needed, every secret is possible: each fits exactly one further share.
#[test]
fn one_share_too_few_says_nothing() {
    for needed in 2..=4 {
        let shares = split(&[0x42], needed, needed).unwrap();
        let known: Vec<_> = (1..needed).zip(shares.iter().map(|share| share.as_slice())).collect();
        let mut seen = [false; 256];
        for guess in 0..=255 {
            let guess = [guess];
            let points: Vec<_> = known.iter().copied().chain([(needed, guess.as_slice())]).collect();
            seen[usize::from(combine(&points)[0])] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}

proptest! {
    #[test]
    fn any_enough_shares_in_any_order_give_the_secret(
        secret in prop::collection::vec(any::<u8>(), 1..50),
        needed in 2_u8..10,
        more in 0_u8..10,
        order in any::<prop::sample::Index>(),
        step in 1_usize..20,
    ) {
        let of = needed + more;
        let shares = split(&secret, needed, of).unwrap();
        let mut all: Vec<_> = (1..=of).zip(shares.iter().map(|share| share.as_slice())).collect();
        all.rotate_left(order.index(usize::from(of)));
        let (left, right) = all.split_at(step % usize::from(of));
        let mixed: Vec<_> = right.iter().chain(left).copied().collect();
        prop_assert_eq!(&*combine(&mixed[..usize::from(needed)]), &secret);
        prop_assert_eq!(&*combine(&mixed), &secret);
    }
}
