/// The numbers that a model computes in: `f32` to train and answer, `f64` to check the formulas.
pub trait Float:
    Copy
    + Default
    + Send
    + Sync
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Nearest number.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// e to this power, free of branches so that a loop over it becomes vector code; 0 below the smallest normal.
    fn exp(self) -> Self;
    /// Hyperbolic tangent, as free of branches, and exact to a few units of the last place near 0 too.
    fn tanh(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
    fn ln(self) -> Self {
        f64::ln(self)
    }
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    fn ln(self) -> Self {
        f32::ln(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let (n, rest) = exp_parts(if self > 88.0 { 88.0 } else { self });
        let power = f32::from_bits((1.0 + rest).to_bits().wrapping_add(n));
        if self < -87.0 { 0.0 } else { power }
    }
    /// `e/(e + 2)` with `e = exp(2|x|) − 1`, which is 1 from |x| = 15 on.
    #[inline(always)]
    fn tanh(self) -> Self {
        let x = 2.0 * self.abs();
        let (n, rest) = exp_parts(if x > 30.0 { 30.0 } else { x });
        let power = f32::from_bits(1.0_f32.to_bits().wrapping_add(n));
        let e = power * rest + (power - 1.0);
        (e / (e + 2.0)).copysign(self)
    }
}

/// e^x = 2^n (1 + rest) with n the integer nearest x/ln 2, where it stands in a float's exponent; 1 + rest = e^r,
/// |r| ≤ ln 2 / 2, by its Taylor series to r^7, of which 6e-9 is left out.
#[inline(always)]
fn exp_parts(x: f32) -> (u32, f32) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has 9 trailing zero bits, so that n times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let series = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let series = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * series));
    (shifted.to_bits() << 23, r * (1.0 + r * (0.5 + r * series)))
}

#[cfg(test)]
mod tests {
    use super::Float;

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        for step in -870_000..880_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(Float::exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "{x}: {error:e}");
        }
        assert_eq!(Float::exp(-1e30_f32), 0.0);
        assert_eq!(Float::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Float::exp(0.0_f32), 1.0);
    }

    #[test]
    fn tanh_is_within_three_units_of_the_last_place() {
        let fine = (-400_000..400_000).map(|step| step as f32 * 1e-4);
        let tiny = (1..1000).map(|step| step as f32 * 1e-9);
        for x in fine.chain(tiny).filter(|x| *x != 0.0) {
            let exact = f64::from(x).tanh();
            let error = (f64::from(Float::tanh(x)) - exact).abs() / exact.abs();
            assert!(error < 3.6e-7, "{x}: {error:e}");
        }
        assert_eq!(Float::tanh(0.0_f32), 0.0);
        assert_eq!([1e30_f32, -1e30].map(Float::tanh), [1.0, -1.0]);
    }
}
