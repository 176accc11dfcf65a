//! Gated linear units: `g σ(h(g)) u`, where `h` sets their kinds apart.

use moat_contracts::Activation;
use rayon::prelude::*;

use super::cpu::SPAN;
use super::vector::fast;
use crate::Float;

/// `2√(2/π)` and the cubic's share, of GELU by its tanh: Hendrycks and Gimpel, "Gaussian Error Linear Units".
const GELU: [f64; 2] = [1.595_769_121_605_730_8, 0.044_715];

/// `σ(x) = 1/(1 + e^−x)`.
#[inline(always)]
fn sigmoid<F: Float>(x: F) -> F {
    F::ONE / (F::ONE + (-x).exp())
}

/// `h(x)` of GELU.
#[inline(always)]
fn gelu<F: Float>(x: F) -> F {
    F::from_f64(GELU[0]) * (x + F::from_f64(GELU[1]) * x * x * x)
}

/// `h'(x)` of GELU.
#[inline(always)]
fn gelu_slope<F: Float>(x: F) -> F {
    F::from_f64(GELU[0]) * (F::ONE + F::from_f64(3.0 * GELU[1]) * x * x)
}

pub(super) fn forward<F: Float>(activation: Activation, gate: &[F], up: &[F], out: &mut [F]) {
    match activation {
        Activation::Silu => forward_by(gate, up, out, |x| x),
        Activation::GeluTanh => forward_by(gate, up, out, gelu),
    }
}

pub(super) fn backward<F: Float>(activation: Activation, gate: &mut [F], up: &mut [F], da: &mut [F]) {
    match activation {
        Activation::Silu => backward_by(gate, up, da, |x| x, |_| F::ONE),
        Activation::GeluTanh => backward_by(gate, up, da, gelu, gelu_slope),
    }
}

fn forward_by<F: Float>(gate: &[F], up: &[F], out: &mut [F], h: impl Fn(F) -> F + Sync) {
    let work = gate.par_chunks(SPAN).zip(up.par_chunks(SPAN)).zip(out.par_chunks_mut(SPAN));
    work.for_each(|((gate, up), out)| {
        fast(
            #[inline(always)]
            || {
                for ((gate, up), out) in gate.iter().zip(up).zip(out) {
                    *out = *gate * sigmoid(h(*gate)) * *up;
                }
            },
        );
    });
}

fn backward_by<F: Float>(
    gate: &mut [F],
    up: &mut [F],
    da: &mut [F],
    h: impl Fn(F) -> F + Sync,
    slope: impl Fn(F) -> F + Sync,
) {
    let work = gate.par_chunks_mut(SPAN).zip(up.par_chunks_mut(SPAN)).zip(da.par_chunks_mut(SPAN));
    work.for_each(|((gate, up), da)| {
        fast(
            #[inline(always)]
            || {
                for ((gate, up), da) in gate.iter_mut().zip(up).zip(da) {
                    let (g, u, d) = (*gate, *up, *da);
                    let s = sigmoid(h(g));
                    let activated = g * s;
                    *gate = d * u * s * (F::ONE + g * (F::ONE - s) * slope(g));
                    *up = d * activated;
                    *da = activated * u;
                }
            },
        );
    });
}
