use crate::Float;

/// Lanes of a running sum: enough to keep vector units busy, and a fixed order of summation.
const LANES: usize = 32;

/// Runs `work` compiled for the best instructions that this machine has: it must be `#[inline(always)]`, since only what
/// is inlined here is compiled for them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fast<R>(work: impl FnOnce() -> R) -> R {
    use pulp::x86::{V3, V4};
    if let Some(wide) = V4::try_new() {
        wide.vectorize(work)
    } else if let Some(narrow) = V3::try_new() {
        narrow.vectorize(work)
    } else {
        work()
    }
}

/// Runs `work`: elsewhere the compiler's own target has the vector instructions.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn fast<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Adds up lanes pairwise.
#[inline(always)]
fn total<F: Float>(mut lanes: [F; LANES]) -> F {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `Σ a_i b_i`.
#[inline(always)]
pub(super) fn dot<F: Float>(a: &[F], b: &[F]) -> F {
    let mut lanes = [F::ZERO; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut sum = total(lanes);
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += *a * *b;
    }
    sum
}

/// `Σ a_i b_i c_i`.
#[inline(always)]
pub(super) fn dot3<F: Float>(a: &[F], b: &[F], c: &[F]) -> F {
    let mut lanes = [F::ZERO; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    let mut sum = total(lanes);
    for ((a, b), c) in a_rest.iter().zip(b_rest).zip(c_rest) {
        sum += *a * *b * *c;
    }
    sum
}

/// Largest of some numbers; there must be one.
#[inline(always)]
pub(super) fn largest<F: Float>(x: &[F]) -> F {
    let mut lanes = [x[0]; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(x[0], |most, value| if *value > most { *value } else { most })
}

/// `x_i = exp(x_i − shift)`, and their sum.
#[inline(always)]
pub(super) fn exponentials<F: Float>(x: &mut [F], shift: F) -> F {
    let mut lanes = [F::ZERO; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = (chunk[lane] - shift).exp();
            lanes[lane] += chunk[lane];
        }
    }
    let mut sum = total(lanes);
    for value in rest {
        *value = (*value - shift).exp();
        sum += *value;
    }
    sum
}

/// `x_i = cap tanh(x_i / cap)`.
#[inline(always)]
pub(super) fn soft_cap<F: Float>(x: &mut [F], cap: F) {
    let inverse = F::ONE / cap;
    for value in x {
        *value = cap * (*value * inverse).tanh();
    }
}

/// `dy_i *= 1 − (y_i/cap)²`: what comes through [`soft_cap`], of which `y` came out.
#[inline(always)]
pub(super) fn soft_cap_backward<F: Float>(y: &[F], cap: F, dy: &mut [F]) {
    let inverse = F::ONE / cap;
    for (y, dy) in y.iter().zip(dy) {
        let share = *y * inverse;
        *dy *= F::ONE - share * share;
    }
}

/// `x_i *= factor`.
#[inline(always)]
pub(super) fn multiply<F: Float>(x: &mut [F], factor: F) {
    for value in x {
        *value *= factor;
    }
}
