//! Shamir's secret sharing ("How to share a secret", 1979) byte by byte over GF(256) with the polynomial of AES
//! (x⁸ + x⁴ + x³ + x + 1). No table and no branch depends on a secret.

use zeroize::Zeroizing;

use crate::VaultError;
use crate::cipher::random;

/// The product in GF(256).
pub(crate) fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
        b >>= 1;
    }
    product
}

/// The inverse in GF(256): a to the 254th; 0 for 0.
pub(crate) fn invert(a: u8) -> u8 {
    (0..6).fold(multiply(a, a), |power, _| multiply(multiply(power, power), multiply(a, a)))
}

/// The values at 1..=`of` of polynomials of degree `needed` - 1 whose constant terms are the secret's bytes.
pub(crate) fn split(secret: &[u8], needed: u8, of: u8) -> Result<Vec<Zeroizing<Vec<u8>>>, VaultError> {
    let mut coefficients = Zeroizing::new(vec![0; secret.len() * usize::from(needed - 1)]);
    random(&mut coefficients)?;
    let value = |x: u8| {
        let mut values = Zeroizing::new(vec![0; secret.len()]);
        // Horner's rule, from the highest coefficient down to the secret.
        for row in coefficients.chunks_exact(secret.len()).chain([secret]) {
            values
                .iter_mut()
                .zip(row)
                .for_each(|(value, coefficient)| *value = multiply(*value, x) ^ coefficient);
        }
        values
    };
    Ok((1..=of).map(value).collect())
}

/// The constant terms of the polynomials through these points (Lagrange's formula at 0). The places must differ and
/// not be 0.
pub(crate) fn combine(points: &[(u8, &[u8])]) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(vec![0; points.first().map_or(0, |(_, values)| values.len())]);
    for (x, values) in points {
        let others = points.iter().map(|(other, _)| *other).filter(|other| other != x);
        let weight = others.fold(1, |weight, other| multiply(weight, multiply(other, invert(other ^ x))));
        secret.iter_mut().zip(*values).for_each(|(byte, value)| *byte ^= multiply(*value, weight));
    }
    secret
}
