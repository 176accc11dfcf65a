//! NVIDIA's driver and cuBLAS, looked for when the program runs. Everything goes to the default stream, in order.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::cublas::sys as blas;
use cudarc::cublas::{result as cublas, sys::cublasHandle_t};
use cudarc::driver::sys as cuda;
use cudarc::driver::{DriverError, result};

use super::device::{Precision, Product, Shape, Side};
use crate::TensorError;

/// Every kernel, as `build.rs` had them compiled.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// The oldest architecture whose machine code is in it: Ampere's, the first with bfloat16.
const OLDEST: c_int = 8;

pub(super) struct Driver {
    name: String,
    device: cuda::CUdevice,
    /// Addresses of what the driver keeps: its context, the module of the kernels, cuBLAS's handle.
    context: usize,
    module: usize,
    blas: usize,
    /// Kernels that were looked up, with the shared memory that they may take so far.
    functions: Mutex<HashMap<String, (usize, usize)>>,
}

fn fault(doing: &'static str) -> impl Fn(DriverError) -> TensorError {
    move |error| {
        let said = error.error_string().map(|text| text.to_string_lossy().into_owned());
        TensorError::Device { doing, reason: said.unwrap_or_else(|_| format!("{:?}", error.0)) }
    }
}

fn refused(reason: String) -> TensorError {
    TensorError::Device { doing: "be used", reason }
}

/// Whether the GPUs' driver and cuBLAS are on this machine.
#[allow(unsafe_code)]
fn libraries() -> Result<(), TensorError> {
    // SAFETY: looking for a library runs what it does when it is loaded, as using it would.
    let (driver, blas) = unsafe { (cuda::is_culib_present(), blas::is_culib_present()) };
    match (driver, blas) {
        (false, _) => {
            Err(refused("there is no libcuda.so.1: install NVIDIA's driver, or train on the CPU".to_owned()))
        }
        (true, false) => Err(refused(
            "there is no libcublas.so.13: install cuBLAS 13 and name its folder in LD_LIBRARY_PATH"
                .to_owned(),
        )),
        (true, true) => Ok(()),
    }
}

#[allow(unsafe_code)]
impl Driver {
    pub(super) fn open(ordinal: usize) -> Result<Self, TensorError> {
        libraries()?;
        result::init().map_err(fault("be used"))?;
        let count = result::device::get_count().map_err(fault("be counted"))?;
        let place = c_int::try_from(ordinal).ok().filter(|place| *place < count);
        let place =
            place.ok_or_else(|| refused(format!("there are {count}, and number {ordinal} was asked for")))?;
        let device = result::device::get(place).map_err(fault("be used"))?;
        let name = result::device::get_name(device).map_err(fault("tell its name"))?;
        // SAFETY: the device is one that the driver gave; its primary context is kept until this is dropped.
        unsafe {
            let capability = cuda::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
            let major =
                result::device::get_attribute(device, capability).map_err(fault("tell what it is"))?;
            if major < OLDEST {
                return Err(refused(format!("{name} is older than Ampere, from which on there is bfloat16")));
            }
            let context = result::primary_ctx::retain(device).map_err(fault("be used"))?;
            result::ctx::set_current(context).map_err(fault("be used"))?;
            let module =
                result::module::load_data(KERNELS.as_ptr().cast()).map_err(fault("take the kernels"))?;
            let blas = cublas::create_handle().map_err(|error| refused(format!("cuBLAS: {error:?}")))?;
            let (context, module, blas) = (context as usize, module as usize, blas as usize);
            Ok(Self { name, device, context, module, blas, functions: Mutex::default() })
        }
    }

    /// Makes the context the calling thread's, as every call asks for.
    fn enter(&self, doing: &'static str) -> Result<(), TensorError> {
        // SAFETY: the context is retained until this is dropped.
        unsafe { result::ctx::set_current(self.context as cuda::CUcontext) }.map_err(fault(doing))
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64, TensorError> {
        self.enter("give memory")?;
        // SAFETY: what is in it is not read before it was written.
        unsafe { result::malloc_sync(bytes) }.map_err(fault("give memory"))
    }

    pub(super) fn release(&self, address: u64, _bytes: usize) {
        // What cannot be given back now goes with the context.
        if self.enter("take memory back").is_ok() {
            // SAFETY: the address is one that `allocate` gave, and the driver waits for what uses it.
            _ = unsafe { result::free_sync(address) };
        }
    }

    pub(super) fn clear(&self, address: u64, bytes: usize) -> Result<(), TensorError> {
        self.enter("clear memory")?;
        // SAFETY: who calls names bytes of a buffer.
        unsafe { result::memset_d8_async(address, 0, bytes, std::ptr::null_mut()) }
            .map_err(fault("clear memory"))
    }

    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), TensorError> {
        self.enter("copy memory")?;
        // SAFETY: who calls names bytes of two buffers.
        unsafe { result::memcpy_dtod_async(to, from, bytes, std::ptr::null_mut()) }
            .map_err(fault("copy memory"))
    }

    pub(super) fn write(&self, to: u64, bytes: &[u8]) -> Result<(), TensorError> {
        self.enter("be written to")?;
        // SAFETY: who calls names bytes of a buffer; the call returns when the bytes were read.
        unsafe { result::memcpy_htod_sync(to, bytes) }.map_err(fault("be written to"))
    }

    pub(super) fn read(&self, bytes: &mut [u8], from: u64) -> Result<(), TensorError> {
        self.enter("be read")?;
        // SAFETY: who calls names bytes of a buffer; the call returns when they are here.
        unsafe { result::memcpy_dtoh_sync(bytes, from) }.map_err(fault("be read"))
    }

    pub(super) fn finish(&self) -> Result<(), TensorError> {
        self.enter("finish its work")?;
        result::ctx::synchronize().map_err(fault("finish its work"))
    }

    /// A kernel that may take so much shared memory.
    fn function(&self, kernel: &str, shared: usize) -> Result<cuda::CUfunction, TensorError> {
        let doing = "find a kernel";
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let (function, allowed) = match functions.get(kernel) {
            Some(found) => *found,
            None => {
                let name = CString::new(kernel).map_err(|error| refused(error.to_string()))?;
                // SAFETY: the module is loaded until this is dropped.
                let found = unsafe { result::module::get_function(self.module as cuda::CUmodule, name) };
                (found.map_err(fault(doing))? as usize, 48 << 10)
            }
        };
        let function_pointer = function as cuda::CUfunction;
        if shared > allowed {
            let most = cuda::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of the loaded module.
            unsafe { result::function::set_function_attribute(function_pointer, most, shared as c_int) }
                .map_err(fault("give a kernel its shared memory"))?;
        }
        functions.insert(kernel.to_owned(), (function, allowed.max(shared)));
        Ok(function_pointer)
    }

    pub(super) fn launch(
        &self,
        kernel: &str,
        shape: Shape,
        args: &mut [*mut c_void],
    ) -> Result<(), TensorError> {
        self.enter("run a kernel")?;
        let function = self.function(kernel, shape.shared)?;
        let [x, y, z] = shape.grid.map(|blocks| blocks as u32);
        let threads = (shape.threads as u32, 1, 1);
        // SAFETY: the kernel reads the arguments that `Device::launch` was given for it.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                threads,
                shape.shared as u32,
                std::ptr::null_mut(),
                args,
            )
        }
        .map_err(fault("run a kernel"))
    }

    /// cuBLAS counts by columns: what lies here in rows is there its transpose, so that `outᵀ = rightᵀ leftᵀ`.
    pub(super) fn product(&self, product: Product) -> Result<(), TensorError> {
        self.enter("multiply")?;
        let kind = |precision| match precision {
            Precision::F32 => blas::cudaDataType::CUDA_R_32F,
            Precision::Bf16 => blas::cudaDataType::CUDA_R_16BF,
        };
        let turned = |side: Side| match side.turned {
            true => blas::cublasOperation_t::CUBLAS_OP_T,
            false => blas::cublasOperation_t::CUBLAS_OP_N,
        };
        let Product { left, right, precision, .. } = product;
        let beta = if product.add { 1.0_f32 } else { 0.0 };
        // SAFETY: who calls names matrices of these shapes and strides; the factors are read before the call returns.
        let done = unsafe {
            cublas::gemm_ex(
                self.blas as cublasHandle_t,
                turned(right),
                turned(left),
                product.columns as c_int,
                product.rows as c_int,
                product.inner as c_int,
                std::ptr::from_ref(&product.factor).cast(),
                right.address as *const c_void,
                kind(precision),
                right.stride as c_int,
                left.address as *const c_void,
                kind(precision),
                left.stride as c_int,
                std::ptr::from_ref(&beta).cast(),
                product.out as *mut c_void,
                kind(product.out_precision),
                product.out_stride as c_int,
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| TensorError::Device { doing: "multiply", reason: format!("cuBLAS: {error:?}") })
    }
}

#[allow(unsafe_code)]
impl Drop for Driver {
    fn drop(&mut self) {
        if self.enter("end").is_ok() {
            // SAFETY: handle, module and context are what `open` got, and nothing uses them any more.
            unsafe {
                _ = cublas::destroy_handle(self.blas as cublasHandle_t);
                _ = result::module::unload(self.module as cuda::CUmodule);
                _ = result::primary_ctx::release(self.device);
            }
        }
    }
}
