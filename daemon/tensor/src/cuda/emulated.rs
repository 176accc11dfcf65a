//! The processor in a GPU's place: memory is the process's own, kernels are the same text compiled as ordinary C++.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CString, c_char, c_int, c_void};

use half::bf16;

use super::device::{Precision, Product, Shape, Side};
use crate::TensorError;

/// Bytes behind each buffer that nothing may write.
const GUARD: usize = 64;
const GUARDED: u8 = 0xa5;

pub(super) struct Emulated {
    pub(super) turned: bool,
}

#[allow(unsafe_code)]
// SAFETY: the signature is that of `kernels/emulation.cpp`.
unsafe extern "C" {
    fn moat_emulated_launch(
        name: *const c_char,
        grid: *const u32,
        threads: u32,
        shared: usize,
        arguments: *mut *mut c_void,
        turned: c_int,
    ) -> c_int;
}

fn fault(doing: &'static str, reason: String) -> TensorError {
    TensorError::Device { doing, reason }
}

fn layout(bytes: usize) -> Result<Layout, TensorError> {
    Layout::from_size_align(bytes + GUARD, 256).map_err(|error| fault("give memory", error.to_string()))
}

#[allow(unsafe_code, clippy::unused_self, reason = "a GPU's driver has the same methods")]
impl Emulated {
    pub(super) fn name(&self) -> String {
        "emulation on the processor".to_owned()
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64, TensorError> {
        // SAFETY: the layout is not empty; the guard lies behind the bytes and within it.
        unsafe {
            let start = alloc(layout(bytes)?);
            if start.is_null() {
                return Err(fault("give memory", format!("{bytes} bytes are not to be had")));
            }
            start.add(bytes).write_bytes(GUARDED, GUARD);
            Ok(start as u64)
        }
    }

    pub(super) fn release(&self, address: u64, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: address and bytes are those of an allocation.
            unsafe {
                self.check(address, bytes);
                dealloc(address as *mut u8, layout);
            }
        }
    }

    /// NaN everywhere, so that nothing relies on what was there before.
    pub(super) fn spoil(&self, address: u64, bytes: usize) {
        // SAFETY: address and bytes are those of an allocation that nobody else has.
        unsafe {
            self.check(address, bytes);
            (address as *mut u8).write_bytes(0xff, bytes);
        }
    }

    unsafe fn check(&self, address: u64, bytes: usize) {
        // SAFETY: who calls gives an allocation, behind which is its guard.
        let guard = unsafe { std::slice::from_raw_parts((address as *const u8).add(bytes), GUARD) };
        assert!(guard.iter().all(|byte| *byte == GUARDED), "a kernel wrote beyond a buffer");
    }

    pub(super) fn clear(&self, address: u64, bytes: usize) -> Result<(), TensorError> {
        // SAFETY: who calls names bytes of a buffer.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), TensorError> {
        // SAFETY: who calls names bytes of two buffers.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    pub(super) fn write(&self, to: u64, bytes: &[u8]) -> Result<(), TensorError> {
        self.copy(to, bytes.as_ptr() as u64, bytes.len())
    }

    pub(super) fn read(&self, bytes: &mut [u8], from: u64) -> Result<(), TensorError> {
        self.copy(bytes.as_mut_ptr() as u64, from, bytes.len())
    }

    pub(super) fn finish(&self) -> Result<(), TensorError> {
        Ok(())
    }

    pub(super) fn launch(
        &self,
        kernel: &str,
        shape: Shape,
        args: &mut [*mut c_void],
    ) -> Result<(), TensorError> {
        let name = CString::new(kernel).map_err(|error| fault("run a kernel", error.to_string()))?;
        let grid = shape.grid.map(|blocks| blocks as u32);
        // SAFETY: the kernel reads the arguments that `Device::launch` was given for it.
        let ended = unsafe {
            let (threads, turned) = (shape.threads as u32, c_int::from(self.turned));
            moat_emulated_launch(
                name.as_ptr(),
                grid.as_ptr(),
                threads,
                shape.shared,
                args.as_mut_ptr(),
                turned,
            )
        };
        let reason = match ended {
            0 => return Ok(()),
            1 => "there is no such kernel",
            2 => "it has fewer threads",
            3 => "its threads wait for each other for ever",
            _ => "it wrote beyond its shared memory",
        };
        Err(fault("run a kernel", format!("{kernel}: {reason}")))
    }

    pub(super) fn product(&self, product: Product) -> Result<(), TensorError> {
        let Product { rows, inner, columns, precision, .. } = product;
        let left = gathered(product.left, precision, rows, inner, !product.left.turned);
        let right = gathered(product.right, precision, columns, inner, product.right.turned);
        for (row, left) in left.chunks(inner).enumerate() {
            for (column, right) in right.chunks(inner).enumerate() {
                let sum: f32 = left.iter().zip(right).map(|(left, right)| left * right).sum();
                let place = row * product.out_stride + column;
                // SAFETY: who calls names a matrix of these rows, columns and stride.
                unsafe {
                    match product.out_precision {
                        Precision::F32 => {
                            let out = (product.out as *mut f32).add(place);
                            *out = product.factor * sum + if product.add { *out } else { 0.0 };
                        }
                        Precision::Bf16 => {
                            let out = (product.out as *mut bf16).add(place);
                            let before = if product.add { (*out).to_f32() } else { 0.0 };
                            *out = bf16::from_f32(product.factor * sum + before);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A side as rows of `inner` numbers, from where they lie in rows or in columns.
#[allow(unsafe_code)]
fn gathered(side: Side, precision: Precision, outer: usize, inner: usize, in_rows: bool) -> Vec<f32> {
    let place = |row: usize, k: usize| if in_rows { row * side.stride + k } else { k * side.stride + row };
    let number = |place: usize| {
        // SAFETY: who calls names a matrix of these rows, columns and stride.
        unsafe {
            match precision {
                Precision::F32 => *(side.address as *const f32).add(place),
                Precision::Bf16 => (*(side.address as *const bf16).add(place)).to_f32(),
            }
        }
    };
    (0..outer)
        .flat_map(|row| (0..inner).map(move |k| (row, k)))
        .map(|(row, k)| number(place(row, k)))
        .collect()
}
