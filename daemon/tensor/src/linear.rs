use crate::held::Held;
use crate::kernels::{FEW, Kernels, Matrix, MatrixMut};
use crate::workspace::Workspace;
use crate::{Float, Parameter};

/// `y = x Wᵀ + b`, with an adapter `y = x (W + s B A)ᵀ + b`. W is `[out, in]`, A `[rank, in]`, B `[out, rank]`.
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
    /// Frozen, in fewer bits.
    Held(&'a Held),
}

/// One linear's part of an adapter.
#[derive(Clone, Copy)]
pub(crate) struct LowRank<'a, F> {
    pub(crate) a: &'a [F],
    pub(crate) b: &'a [F],
    pub(crate) rank: usize,
    pub(crate) scale: F,
}

/// Where one linear's gradient goes.
pub(crate) enum LinearGradient<'a, F> {
    /// The adapter's A and B.
    Adapter(&'a mut [F], &'a mut [F]),
    /// Weight and bias.
    Whole(&'a mut [F], Option<&'a mut [F]>),
}

impl<'a, F: Float> LinearGradient<'a, F> {
    /// From the gradients that start at this linear's: A and B, or weight and, if it has one, bias.
    pub(crate) fn of(linear: &Linear<'_, F>, list: &'a mut [Parameter<F>]) -> Option<Self> {
        let (first, rest) = list.split_first_mut()?;
        Some(match (linear.adapter.is_some(), linear.bias.is_some()) {
            (true, _) => Self::Adapter(&mut first.values, &mut rest.first_mut()?.values),
            (false, true) => Self::Whole(&mut first.values, Some(&mut rest.first_mut()?.values)),
            (false, false) => Self::Whole(&mut first.values, None),
        })
    }
}

impl<F: Float> Linear<'_, F> {
    /// Makes a weight of its own: `W + s B A`, where the rows are many enough that making it costs less than two thin
    /// products with each row (`in · out · rank` against `rows · (in + out) · rank` operations), or W, where it has to be
    /// opened. `None` where W lies there as it is.
    fn made(
        &self,
        kernels: &impl Kernels<F>,
        rows: usize,
        workspace: &mut Workspace<F>,
    ) -> (Option<Vec<F>>, bool) {
        let adapter =
            self.adapter.filter(|_| rows * (self.inputs + self.outputs) >= self.inputs * self.outputs);
        let mut whole = match (self.weight, adapter) {
            (Weight::Whole(_), None) => return (None, false),
            (Weight::Whole(values), Some(_)) => workspace.copy(values),
            (Weight::Held(held), _) => {
                let mut whole = workspace.take(held.count());
                held.open(&mut whole);
                whole
            }
        };
        if let Some(adapter) = adapter {
            let (a, b) = (Matrix::new(adapter.a, self.inputs), Matrix::new(adapter.b, adapter.rank));
            kernels.product(MatrixMut::new(&mut whole, self.inputs), b, a, adapter.scale, true);
        }
        (Some(whole), adapter.is_some())
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
        let x = Matrix::new(x, self.inputs);
        let merged = match self.weight {
            // Of few rows the weight is read once: opened row by row, it need not be written first.
            Weight::Held(held) if rows <= FEW => {
                kernels.product_held(MatrixMut::new(y, self.outputs), x, held, add);
                false
            }
            _ => {
                let (made, merged) = self.made(kernels, rows, workspace);
                let weight = Matrix::new(self.chosen(made.as_deref()), self.inputs);
                kernels.product(MatrixMut::new(y, self.outputs), x, weight.t(), F::ONE, add);
                workspace.give(made);
                merged
            }
        };
        if let Some(LowRank { a, b, rank, scale }) = self.adapter.filter(|_| !merged) {
            let mut thin = workspace.take(rows * rank);
            let a = Matrix::new(a, self.inputs);
            kernels.product(MatrixMut::new(&mut thin, rank), x, a.t(), scale, false);
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
        let (made, merged) = self.made(kernels, rows, workspace);
        let weight = Matrix::new(self.chosen(made.as_deref()), self.inputs);
        let dy = Matrix::new(dy, self.outputs);
        kernels.product(MatrixMut::new(dx, self.inputs), dy, weight, F::ONE, add);
        workspace.give(made);
        if let Some(LowRank { a, b, rank, scale }) = self.adapter.filter(|_| !merged) {
            let mut thin = workspace.take(rows * rank);
            kernels.product(MatrixMut::new(&mut thin, rank), dy, Matrix::new(b, rank), scale, false);
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
            (None, Weight::Held(_)) => &[],
        }
    }

    /// `dW += dyᵀ x` and `db += Σ_rows dy`; with an adapter `dB += s dyᵀ (x Aᵀ)` and `dA += s (dy B)ᵀ x`, and nothing
    /// for the frozen W.
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
            (LinearGradient::Adapter(da, db), Some(LowRank { a, b, rank, scale })) => {
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
}
