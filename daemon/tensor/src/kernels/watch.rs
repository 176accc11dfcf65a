//! Where the time of a step goes, for `scripts/bench`: counted only where this crate is built with its feature `watch`, and
//! nothing at all otherwise.

/// What a kernel's time is counted under.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Products with a weight.
    Products,
    /// Products with an adapter's thin matrices.
    Thin,
    Attention,
    Norms,
    /// Rows to heads and back, turned by position.
    Heads,
    /// The gated unit of the MLP.
    Gated,
    /// Cross-entropy of logits that are made.
    Loss,
    /// Sums, copies, look-ups, the optimiser.
    Rest,
}

#[cfg(feature = "watch")]
mod counted {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::Part;
    use crate::kernels::product::{Cores, product};
    use crate::kernels::{Matrix, MatrixMut};

    const NAMES: [&str; 8] =
        ["frozen products", "thin products", "attention", "norms", "heads", "gated unit", "loss", "rest"];
    static NANOS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

    /// Counts from its making to its end.
    pub(in crate::kernels) struct Watched(Part, Instant);

    pub(in crate::kernels) fn watch(part: Part) -> Watched {
        Watched(part, Instant::now())
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let nanos = u64::try_from(self.1.elapsed().as_nanos()).unwrap_or(u64::MAX);
            NANOS[self.0 as usize].fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// `out = left · right` on this thread alone, of `[rows, inner, columns]`: what the products of a step are held against.
    pub fn multiply(left: &[f32], right: &[f32], out: &mut [f32], [_, inner, columns]: [usize; 3]) {
        let (left, right) = (Matrix::new(left, inner), Matrix::new(right, columns));
        product(MatrixMut::new(out, columns), left, right, 1.0, false, Cores::One);
    }

    /// Seconds that kernels took since the last call, summed over the threads that called them, by what they did.
    pub fn take_watched() -> [(&'static str, f64); NAMES.len()] {
        std::array::from_fn(|at| (NAMES[at], NANOS[at].swap(0, Ordering::Relaxed) as f64 * 1e-9))
    }
}

#[cfg(not(feature = "watch"))]
mod counted {
    use super::Part;

    /// Nothing.
    pub(in crate::kernels) struct Watched;

    #[inline(always)]
    pub(in crate::kernels) fn watch(_part: Part) -> Watched {
        Watched
    }
}

pub(super) use counted::watch;
#[cfg(feature = "watch")]
pub use counted::{multiply, take_watched};
