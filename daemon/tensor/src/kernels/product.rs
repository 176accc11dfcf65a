use gemm::Parallelism;
use rayon::prelude::*;

use super::vector;
use crate::Float;
use crate::held::Held;

/// Rows up to which each weight row is read once and dotted with every row of the input: `gemm` leaves memory
/// bandwidth and cores idle there.
pub(crate) const FEW: usize = 6;

/// Rows or columns up to which a matrix is called thin.
const THIN: usize = 64;

/// A matrix to read: rows and columns at any stride.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, F> {
    data: &'a [F],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, F> Matrix<'a, F> {
    /// Row-major, as many rows as there are.
    pub(crate) fn new(data: &'a [F], columns: usize) -> Self {
        Self { rows: data.len() / columns, data, columns, row_stride: columns, column_stride: 1 }
    }

    /// Whether it is as thin as an adapter's.
    pub(super) fn is_thin(&self) -> bool {
        self.rows.min(self.columns) <= THIN
    }

    /// Transposed, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A row-major matrix to write.
pub(crate) struct MatrixMut<'a, F> {
    data: &'a mut [F],
    rows: usize,
    columns: usize,
}

impl<'a, F> MatrixMut<'a, F> {
    /// As many rows as there are.
    pub(crate) fn new(data: &'a mut [F], columns: usize) -> Self {
        Self { rows: data.len() / columns, data, columns }
    }
}

/// Whether a product may use the other cores; not inside work that is divided already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    All,
    One,
}

/// `out = factor * left · right`, or `out += …` with `add`. The order of summation depends on the shapes alone.
pub(super) fn product<F: Float>(
    out: MatrixMut<'_, F>,
    left: Matrix<'_, F>,
    right: Matrix<'_, F>,
    factor: F,
    add: bool,
    cores: Cores,
) {
    let (rows, columns, inner) = (out.rows, out.columns, left.columns);
    assert_eq!((rows, inner, columns), (left.rows, right.rows, right.columns), "shapes of a product");
    if cores == Cores::All && rows <= FEW && left.column_stride == 1 && right.row_stride == 1 {
        return few_rows(out, left, right, factor, add);
    }
    for (matrix, name) in [(&left, "left"), (&right, "right")] {
        let last =
            (matrix.rows.max(1) - 1) * matrix.row_stride + (matrix.columns.max(1) - 1) * matrix.column_stride;
        assert!(matrix.rows * matrix.columns == 0 || last < matrix.data.len(), "{name} of a product");
    }
    assert!(rows * columns <= out.data.len(), "out of a product");
    let parallelism = match cores {
        Cores::All => Parallelism::Rayon(0),
        Cores::One => Parallelism::None,
    };
    // SAFETY: the asserts above keep every address that the shapes and strides reach inside its slice.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.data.as_mut_ptr(),
            1,
            columns as isize,
            add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            F::ONE,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Dot products of every column of `right` (a row of a weight) with the few rows of `left`.
fn few_rows<F: Float>(
    out: MatrixMut<'_, F>,
    left: Matrix<'_, F>,
    right: Matrix<'_, F>,
    factor: F,
    add: bool,
) {
    const COLUMNS: usize = 32;
    let (rows, columns, inner) = (out.rows, out.columns, left.columns);
    let mut turned = vec![F::ZERO; rows * columns];
    turned.par_chunks_mut(rows * COLUMNS).enumerate().for_each(|(chunk, turned)| {
        vector::fast(
            #[inline(always)]
            || {
                for (offset, out) in turned.chunks_mut(rows).enumerate() {
                    let weights = &right.data[(chunk * COLUMNS + offset) * right.column_stride..][..inner];
                    for (row, out) in out.iter_mut().enumerate() {
                        *out = factor * vector::dot(weights, &left.data[row * left.row_stride..][..inner]);
                    }
                }
            },
        );
    });
    put_turned(out, &turned, add);
}

/// The same of a weight that is opened row by row.
pub(super) fn few_rows_held<F: Float>(out: MatrixMut<'_, F>, left: Matrix<'_, F>, weight: &Held, add: bool) {
    const COLUMNS: usize = 32;
    let (rows, columns, inner) = (out.rows, out.columns, left.columns);
    assert!(left.column_stride == 1 && weight.count() == columns * inner, "shapes of a product");
    let mut turned = vec![F::ZERO; rows * columns];
    turned.par_chunks_mut(rows * COLUMNS).enumerate().for_each(|(chunk, turned)| {
        let mut weights = vec![F::ZERO; inner];
        for (offset, out) in turned.chunks_mut(rows).enumerate() {
            weight.open_row(chunk * COLUMNS + offset, &mut weights);
            vector::fast(
                #[inline(always)]
                || {
                    for (row, out) in out.iter_mut().enumerate() {
                        *out = vector::dot(&weights, &left.data[row * left.row_stride..][..inner]);
                    }
                },
            );
        }
    });
    put_turned(out, &turned, add);
}

/// Columns of results to rows of them, set or added.
fn put_turned<F: Float>(out: MatrixMut<'_, F>, turned: &[F], add: bool) {
    let (rows, columns) = (out.rows, out.columns);
    for (row, out) in out.data.chunks_mut(columns).take(rows).enumerate() {
        for (column, out) in out.iter_mut().enumerate() {
            let value = turned[column * rows + row];
            *out = if add { *out + value } else { value };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Cores, Matrix, MatrixMut, product};

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(
            rows in 1_usize..20, columns in 1_usize..70, inner in 1_usize..70,
            turn_left: bool, turn_right: bool, add: bool, one: bool, seed: u64,
        ) {
            let mut random = crate::random::Random::new(seed);
            let mut fill = |count: usize| (0..count).map(|_| random.uniform() - 0.5).collect::<Vec<f64>>();
            let (a, b, start) = (fill(rows * inner), fill(inner * columns), fill(rows * columns));
            let left = if turn_left { Matrix::new(&a, rows).t() } else { Matrix::new(&a, inner) };
            let right = if turn_right { Matrix::new(&b, inner).t() } else { Matrix::new(&b, columns) };
            let mut out = start.clone();
            let cores = if one { Cores::One } else { Cores::All };
            product(MatrixMut::new(&mut out, columns), left, right, 0.5, add, cores);
            for row in 0..rows {
                for column in 0..columns {
                    let mut sum = 0.0;
                    for k in 0..inner {
                        let a = if turn_left { a[k * rows + row] } else { a[row * inner + k] };
                        let b = if turn_right { b[column * inner + k] } else { b[k * columns + column] };
                        sum += a * b;
                    }
                    let expected = 0.5 * sum + if add { start[row * columns + column] } else { 0.0 };
                    prop_assert!((out[row * columns + column] - expected).abs() < 1e-12);
                }
            }
        }
    }
}
