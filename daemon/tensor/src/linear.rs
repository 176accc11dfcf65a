use crate::held::{Held, Tiles};
use crate::kernels::{FEW, Kernels, Matrix, MatrixMut};
use crate::workspace::Workspace;
use crate::{Float, Parameter};

/// `y = x Wᵀ + b`, with an adapter `y = x (W + s B A)ᵀ + b`. W is `[out, in]`, A `[rank, in]`, B `[out, rank]`.
///
/// Where the adapter is decomposed (DoRA: Liu et al., arXiv 2402.09353), a row of the sum V = W + s B A gives its direction
/// alone, and its length is learnt: `y_o = m_o/‖V_o‖ x V_oᵀ + b_o`. As in section 4.3 there no gradient goes through ‖V_o‖.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a, F> {
    pub(crate) weight: Weight<'a, F>,
    pub(crate) bias: Option<&'a [F]>,
    pub(crate) adapter: Option<LowRank<'a, F>>,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// A linear's weight.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a, F> {
    /// Its numbers.
    Whole(&'a [F]),
    /// Frozen, in fewer bits, opened where it is multiplied.
    Held(&'a Held),
    /// The same, and multiplied as it is, but where a row's length is learnt.
    Tiles(&'a Held, Tiles<'a>),
}

/// One linear's part of an adapter.
#[derive(Clone, Copy)]
pub(crate) struct LowRank<'a, F> {
    pub(crate) a: &'a [F],
    pub(crate) b: &'a [F],
    pub(crate) rank: usize,
    pub(crate) scale: F,
    /// Lengths of the rows, `[out]`, where it is decomposed.
    pub(crate) magnitude: Option<&'a [F]>,
}

/// Where one linear's gradient goes.
pub(crate) enum LinearGradient<'a, F> {
    /// The adapter's A and B, and its magnitude where it is decomposed.
    Adapter(&'a mut [F], &'a mut [F], Option<&'a mut [F]>),
    /// Weight and bias.
    Whole(&'a mut [F], Option<&'a mut [F]>),
}

impl<'a, F: Float> LinearGradient<'a, F> {
    /// From the gradients that start at this linear's: A and B, or weight and, if it has one, bias.
    pub(crate) fn of(linear: &Linear<'_, F>, list: &'a mut [Parameter<F>]) -> Option<Self> {
        let (first, rest) = list.split_first_mut()?;
        Some(match (linear.adapter, linear.bias.is_some()) {
            (Some(adapter), _) => {
                let (b, rest) = rest.split_first_mut()?;
                let magnitude = match adapter.magnitude {
                    Some(_) => Some(rest.first_mut()?.values.as_mut_slice()),
                    None => None,
                };
                Self::Adapter(&mut first.values, &mut b.values, magnitude)
            }
            (None, true) => Self::Whole(&mut first.values, Some(&mut rest.first_mut()?.values)),
            (None, false) => Self::Whole(&mut first.values, None),
        })
    }
}

impl<F: Float> Linear<'_, F> {
    /// W, or with an adapter `V = W + s B A`, in a buffer of its own.
    fn sum(
        &self,
        kernels: &impl Kernels<F>,
        adapter: Option<LowRank<'_, F>>,
        workspace: &mut Workspace<F>,
    ) -> Vec<F> {
        let mut whole = match self.weight {
            Weight::Whole(values) => workspace.copy(values),
            Weight::Held(held) | Weight::Tiles(held, _) => {
                let mut whole = workspace.take(held.count());
                held.open(&mut whole);
                whole
            }
        };
        if let Some(LowRank { a, b, rank, scale, .. }) = adapter {
            let (a, b) = (Matrix::new(a, self.inputs), Matrix::new(b, rank));
            kernels.product(MatrixMut::new(&mut whole, self.inputs), b, a, scale, true);
        }
        whole
    }

    /// Makes a weight of its own, and says whether the adapter is in it: where the rows are many enough that it costs less
    /// than two thin products with each row (`in · out · rank` against `rows · (in + out) · rank` operations), and always
    /// where the rows' lengths are in it too; or W alone, where it has to be opened. `None` where W lies there as it is.
    fn made(
        &self,
        kernels: &impl Kernels<F>,
        rows: usize,
        workspace: &mut Workspace<F>,
    ) -> (Option<Vec<F>>, bool) {
        let many = rows * (self.inputs + self.outputs) >= self.inputs * self.outputs;
        let adapter = self.adapter.filter(|adapter| many || adapter.magnitude.is_some());
        if adapter.is_none() && matches!(self.weight, Weight::Whole(_)) {
            return (None, false);
        }
        let mut whole = self.sum(kernels, adapter, workspace);
        if let Some(magnitude) = self.magnitude() {
            set_lengths(kernels, &mut whole, self.inputs, magnitude);
        }
        (Some(whole), adapter.is_some())
    }

    fn magnitude(&self) -> Option<&[F]> {
        self.adapter.and_then(|adapter| adapter.magnitude)
    }

    /// Sets `y`, or adds to it.
    pub(crate) fn forward(
        &self,
        kernels: &impl Kernels<F>,
        x: &[F],
        y: &mut [F],
        add: bool,
        workspace: &mut Workspace<F>,
    ) {
        let rows = x.len() / self.inputs;
        let x_rows = Matrix::new(x, self.inputs);
        let merged = match self.weight {
            Weight::Tiles(_, tiles) if self.magnitude().is_none() => {
                kernels.product_int8(y, x, tiles, false, add);
                false
            }
            // Of few rows the weight is read once: opened row by row, it need not be written first.
            Weight::Held(held) if rows <= FEW && self.magnitude().is_none() => {
                kernels.product_held(MatrixMut::new(y, self.outputs), x_rows, held, add);
                false
            }
            _ => {
                let (made, merged) = self.made(kernels, rows, workspace);
                let weight = Matrix::new(self.chosen(made.as_deref()), self.inputs);
                kernels.product(MatrixMut::new(y, self.outputs), x_rows, weight.t(), F::ONE, add);
                workspace.give(made);
                merged
            }
        };
        if let Some(LowRank { a, b, rank, scale, .. }) = self.adapter.filter(|_| !merged) {
            let mut thin = workspace.take(rows * rank);
            let a = Matrix::new(a, self.inputs);
            kernels.product(MatrixMut::new(&mut thin, rank), x_rows, a.t(), scale, false);
            let (thin_rows, b) = (Matrix::new(&thin, rank), Matrix::new(b, rank));
            kernels.product(MatrixMut::new(y, self.outputs), thin_rows, b.t(), F::ONE, true);
            workspace.give([thin]);
        }
        if let Some(bias) = self.bias {
            kernels.add_bias(y, bias);
        }
    }

    /// `dx = dy (W + s B A)`, or `dx += …`.
    pub(crate) fn input_gradient(
        &self,
        kernels: &impl Kernels<F>,
        dy: &[F],
        dx: &mut [F],
        add: bool,
        workspace: &mut Workspace<F>,
    ) {
        let rows = dy.len() / self.outputs;
        let dy_rows = Matrix::new(dy, self.outputs);
        let merged = match self.weight {
            Weight::Tiles(_, tiles) if self.magnitude().is_none() => {
                kernels.product_int8(dx, dy, tiles, true, add);
                false
            }
            _ => {
                let (made, merged) = self.made(kernels, rows, workspace);
                let weight = Matrix::new(self.chosen(made.as_deref()), self.inputs);
                kernels.product(MatrixMut::new(dx, self.inputs), dy_rows, weight, F::ONE, add);
                workspace.give(made);
                merged
            }
        };
        if let Some(LowRank { a, b, rank, scale, .. }) = self.adapter.filter(|_| !merged) {
            let mut thin = workspace.take(rows * rank);
            kernels.product(MatrixMut::new(&mut thin, rank), dy_rows, Matrix::new(b, rank), scale, false);
            let (thin_rows, a) = (Matrix::new(&thin, rank), Matrix::new(a, self.inputs));
            kernels.product(MatrixMut::new(dx, self.inputs), thin_rows, a, F::ONE, true);
            workspace.give([thin]);
        }
    }

    /// The weight that was made, or else the one that lies there.
    fn chosen<'b>(&'b self, made: Option<&'b [F]>) -> &'b [F] {
        match (made, self.weight) {
            (Some(made), _) => made,
            (None, Weight::Whole(values)) => values,
            (None, Weight::Held(_) | Weight::Tiles(..)) => &[],
        }
    }

    /// `dW += dyᵀ x` and `db += Σ_rows dy`; with an adapter `dB += s dyᵀ (x Aᵀ)` and `dA += s (dy B)ᵀ x`, and nothing
    /// for the frozen W. Decomposed, `dm_o += Σ_rows dy_o (x V_oᵀ)/‖V_o‖`, and A and B learn from `dy_o m_o/‖V_o‖`.
    pub(crate) fn weight_gradient(
        &self,
        kernels: &impl Kernels<F>,
        x: &[F],
        dy: &[F],
        gradient: LinearGradient<'_, F>,
        workspace: &mut Workspace<F>,
    ) {
        let rows = x.len() / self.inputs;
        let (inputs, outputs) = (Matrix::new(x, self.inputs), Matrix::new(dy, self.outputs));
        match (gradient, self.adapter) {
            (LinearGradient::Adapter(da, db, dm), Some(adapter)) => {
                let LowRank { a, b, rank, scale, magnitude } = adapter;
                let scaled = magnitude.zip(dm).map(|(magnitude, dm)| {
                    self.learn_magnitude(kernels, x, dy, adapter, (magnitude, dm), workspace)
                });
                let outputs = Matrix::new(scaled.as_deref().unwrap_or(dy), self.outputs);
                let mut thin = workspace.take(rows * rank);
                let a = Matrix::new(a, self.inputs);
                kernels.product(MatrixMut::new(&mut thin, rank), inputs, a.t(), scale, false);
                kernels.product(
                    MatrixMut::new(db, rank),
                    outputs.t(),
                    Matrix::new(&thin, rank),
                    F::ONE,
                    true,
                );
                kernels.product(MatrixMut::new(&mut thin, rank), outputs, Matrix::new(b, rank), scale, false);
                let thin_rows = Matrix::new(&thin, rank);
                kernels.product(MatrixMut::new(da, self.inputs), thin_rows.t(), inputs, F::ONE, true);
                workspace.give([thin]);
                workspace.give(scaled);
            }
            (LinearGradient::Whole(dw, db), _) => {
                kernels.product(MatrixMut::new(dw, self.inputs), outputs.t(), inputs, F::ONE, true);
                if let Some(db) = db {
                    kernels.add_column_sums(dy, db);
                }
            }
            (LinearGradient::Adapter(..), None) => {}
        }
    }

    /// Adds the gradient of a magnitude, and returns what A and B learn from.
    fn learn_magnitude(
        &self,
        kernels: &impl Kernels<F>,
        x: &[F],
        dy: &[F],
        adapter: LowRank<'_, F>,
        (magnitude, gradient): (&[F], &mut [F]),
        workspace: &mut Workspace<F>,
    ) -> Vec<F> {
        let sum = self.sum(kernels, Some(adapter), workspace);
        let mut z = workspace.take(dy.len());
        let (rows, directions) = (Matrix::new(x, self.inputs), Matrix::new(&sum, self.inputs));
        kernels.product(MatrixMut::new(&mut z, self.outputs), rows, directions.t(), F::ONE, false);
        let mut shares = workspace.take(self.outputs);
        kernels.row_lengths(&sum, self.inputs, &mut shares);
        invert(&mut shares);
        kernels.add_column_dots(dy, &z, &shares, gradient);
        multiply(&mut shares, magnitude);
        kernels.scale_columns(dy, &shares, &mut z);
        workspace.give([sum, shares]);
        z
    }
}

/// `x = 1/x`; a row of length 0 has no direction and stays 0.
fn invert<F: Float>(lengths: &mut [F]) {
    for length in lengths {
        *length = if *length > F::ZERO { F::ONE / *length } else { F::ZERO };
    }
}

fn multiply<F: Float>(shares: &mut [F], magnitude: &[F]) {
    for (share, magnitude) in shares.iter_mut().zip(magnitude) {
        *share *= *magnitude;
    }
}

/// Gives a weight's rows the lengths that a decomposed adapter learnt.
pub(crate) fn set_lengths<F: Float>(
    kernels: &impl Kernels<F>,
    weight: &mut [F],
    inputs: usize,
    magnitude: &[F],
) {
    let mut shares = vec![F::ZERO; magnitude.len()];
    kernels.row_lengths(weight, inputs, &mut shares);
    invert(&mut shares);
    multiply(&mut shares, magnitude);
    kernels.scale_rows(weight, inputs, &shares);
}
