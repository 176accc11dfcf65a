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
    /// e^x = 2^n e^r with n the integer nearest x/ln 2; e^r, |r| ≤ ln 2 / 2, by its Taylor series to r^7, whose rest
    /// is below 6e-9.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        let x = if self > 88.0 { 88.0 } else { self };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        // ln 2 in two parts: the first has 9 trailing zero bits, so that n times it is exact.
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let series = 1.0 / 720.0 + r * (1.0 / 5040.0);
        let series = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * series));
        let series = 1.0 + r * (1.0 + r * (0.5 + r * series));
        let power = f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23));
        if self < -87.0 { 0.0 } else { power }
    }
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
}
