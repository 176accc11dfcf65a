use std::ffi::c_void;
use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::bf16;

use crate::TensorError;
use crate::workspace::choose;

#[cfg(feature = "cuda")]
use super::driver::Driver;
#[cfg(feature = "cuda-on-cpu")]
use super::emulated::Emulated;

/// Numbers in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats, and products in them: exact, and slow on a GPU.
    F32,
    /// bfloat16 weights and activations; sums, norms, softmax, the residual stream and everything trained in f32.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// How the names of its kernels end.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Numbers as their bytes.
    pub(super) fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }
}

/// One device, its kernels, and the memory that was taken from it and is kept for reuse. Work is done in the order in which it
/// is asked for.
#[derive(Clone)]
pub struct Device(Arc<Pool>);

impl Debug for Device {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

enum Backend {
    #[cfg(feature = "cuda")]
    Gpu(Driver),
    #[cfg(feature = "cuda-on-cpu")]
    Emulated(Emulated),
}

/// The same call on whichever there is.
macro_rules! on {
    ($self:expr, $backend:ident => $call:expr) => {
        match &$self.0.backend {
            #[cfg(feature = "cuda")]
            Backend::Gpu($backend) => $call,
            #[cfg(feature = "cuda-on-cpu")]
            Backend::Emulated($backend) => $call,
        }
    };
}

struct Pool {
    backend: Backend,
    /// Bytes and address of buffers that were given back.
    free: Mutex<Vec<(usize, u64)>>,
    /// Bytes that it has of the device.
    held: AtomicU64,
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Vec<(usize, u64)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, address: u64, bytes: usize) {
        self.held.fetch_sub(bytes as u64, Ordering::Relaxed);
        match &self.backend {
            #[cfg(feature = "cuda")]
            Backend::Gpu(driver) => driver.release(address, bytes),
            #[cfg(feature = "cuda-on-cpu")]
            Backend::Emulated(emulated) => emulated.release(address, bytes),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (bytes, address) in std::mem::take(&mut *self.free()) {
            self.release(address, bytes);
        }
    }
}

/// A part of a device's memory. Dropped, it is used again for what is asked for later.
pub(super) struct Buffer {
    address: u64,
    /// What it has room for.
    bytes: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    pub(super) const fn start(&self) -> u64 {
        self.address
    }

    /// The address of a number.
    pub(super) const fn at(&self, number: usize, precision: Precision) -> u64 {
        self.address + (number * precision.size()) as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.free().push((self.bytes, self.address));
    }
}

/// What a kernel is given, in the layout of its C++ counterpart.
pub(super) enum Arg {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Heads(HeadsArg),
    Attention(AttentionArg),
    Step(StepArg),
}

/// `Heads` of `kernels/heads.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct HeadsArg {
    pub(super) cos: u64,
    pub(super) sin: u64,
    pub(super) positions: u64,
    pub(super) q_weight: u64,
    pub(super) k_weight: u64,
    pub(super) query: i32,
    pub(super) key: i32,
    pub(super) width: i32,
    pub(super) pairs: i32,
    pub(super) epsilon: f32,
}

/// `Attention` of `kernels/attention.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct AttentionArg {
    pub(super) q: u64,
    pub(super) k: u64,
    pub(super) v: u64,
    pub(super) o: u64,
    pub(super) sums: u64,
    pub(super) d_o: u64,
    pub(super) deltas: u64,
    pub(super) dq: u64,
    pub(super) dk: u64,
    pub(super) dv: u64,
    pub(super) tiles: u64,
    pub(super) qkv_stride: i64,
    pub(super) o_stride: i64,
    pub(super) d_stride: i64,
    pub(super) rows: i32,
    pub(super) heads: i32,
    pub(super) key_heads: i32,
    pub(super) width: i32,
    pub(super) window: i32,
    pub(super) scale: f32,
    pub(super) cap: f32,
}

/// `Step` of `kernels/optimizer.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct StepArg {
    pub(super) keep: f32,
    pub(super) size: f32,
    pub(super) first: f32,
    pub(super) beta2: f32,
    pub(super) second: f32,
    pub(super) correction: f32,
    pub(super) epsilon: f32,
}

impl Arg {
    fn pointer(&self) -> *mut c_void {
        let pointer: *const c_void = match self {
            Self::Address(value) => std::ptr::from_ref(value).cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast(),
            Self::Long(value) => std::ptr::from_ref(value).cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast(),
            Self::Heads(value) => std::ptr::from_ref(value).cast(),
            Self::Attention(value) => std::ptr::from_ref(value).cast(),
            Self::Step(value) => std::ptr::from_ref(value).cast(),
        };
        pointer.cast_mut()
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Blocks along three axes.
    pub(super) grid: [usize; 3],
    /// Threads of a block.
    pub(super) threads: usize,
    /// Bytes of shared memory of a block, beyond what the kernel names itself.
    pub(super) shared: usize,
}

/// One side of a product: rows of `stride` numbers, turned where it is used transposed.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) address: u64,
    pub(super) stride: usize,
    pub(super) turned: bool,
}

impl Side {
    pub(super) const fn new(address: u64, stride: usize) -> Self {
        Self { address, stride, turned: false }
    }

    pub(super) const fn turned(address: u64, stride: usize) -> Self {
        Self { address, stride, turned: true }
    }
}

/// `out = factor * left · right`, or `out += …` with `add`: `[rows, inner]` by `[inner, columns]`, summed in f32.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) left: Side,
    pub(super) right: Side,
    /// Of both sides.
    pub(super) precision: Precision,
    pub(super) out: u64,
    pub(super) out_stride: usize,
    pub(super) out_precision: Precision,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) factor: f32,
    pub(super) add: bool,
}

impl Device {
    /// One of NVIDIA's GPUs, counted from 0.
    ///
    /// # Errors
    /// [`TensorError::Device`] where there is none, or its driver or cuBLAS is missing.
    #[cfg(feature = "cuda")]
    pub fn gpu(ordinal: usize) -> Result<Self, TensorError> {
        Ok(Self::of(Backend::Gpu(Driver::open(ordinal)?)))
    }

    /// The processor in a GPU's place. `turned` runs blocks and threads in the opposite order: what a kernel computes must not
    /// depend on it.
    #[cfg(feature = "cuda-on-cpu")]
    pub fn emulated(turned: bool) -> Self {
        Self::of(Backend::Emulated(Emulated { turned }))
    }

    fn of(backend: Backend) -> Self {
        Self(Arc::new(Pool { backend, free: Mutex::default(), held: AtomicU64::new(0) }))
    }

    /// What it calls itself.
    pub fn name(&self) -> String {
        on!(self, backend => backend.name())
    }

    /// Bytes that were taken from the device and not given back, those kept for reuse among them.
    pub fn memory(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Room for so many numbers holding anything.
    pub(super) fn take(&self, numbers: usize, precision: Precision) -> Result<Buffer, TensorError> {
        let wanted = (numbers * precision.size()).next_multiple_of(256).max(256);
        let found = {
            let mut free = self.0.free();
            let (best, _) = choose(free.iter().map(|(bytes, _)| *bytes), wanted, 2);
            best.map(|place| free.swap_remove(place))
        };
        let (bytes, address) = match found {
            Some(found) => found,
            None => (wanted, self.allocate(wanted)?),
        };
        #[cfg(feature = "cuda-on-cpu")]
        #[allow(irrefutable_let_patterns, reason = "with the GPU's feature there are two kinds")]
        if let Backend::Emulated(emulated) = &self.0.backend {
            emulated.spoil(address, bytes);
        }
        Ok(Buffer { address, bytes, pool: self.0.clone() })
    }

    /// From the device; where it has no more, after giving back what is kept for reuse.
    fn allocate(&self, bytes: usize) -> Result<u64, TensorError> {
        let mut found = on!(self, backend => backend.allocate(bytes));
        if found.is_err() {
            for (bytes, address) in std::mem::take(&mut *self.0.free()) {
                self.0.release(address, bytes);
            }
            found = on!(self, backend => backend.allocate(bytes));
        }
        let address = found?;
        self.0.held.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(address)
    }

    pub(super) fn zeros(&self, numbers: usize, precision: Precision) -> Result<Buffer, TensorError> {
        let buffer = self.take(numbers, precision)?;
        self.clear(&buffer, numbers * precision.size())?;
        Ok(buffer)
    }

    /// Zeros in place of the first bytes.
    pub(super) fn clear(&self, buffer: &Buffer, bytes: usize) -> Result<(), TensorError> {
        on!(self, backend => backend.clear(buffer.address, bytes))
    }

    /// A copy of the first numbers, which are f32.
    pub(super) fn copied(&self, from: &Buffer, numbers: usize) -> Result<Buffer, TensorError> {
        let buffer = self.take(numbers, Precision::F32)?;
        on!(self, backend => backend.copy(buffer.address, from.address, numbers * 4))?;
        Ok(buffer)
    }

    /// A buffer of these bytes.
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Buffer, TensorError> {
        let buffer = self.take(bytes.len(), Precision::Bf16)?;
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// A buffer of these numbers.
    pub(super) fn upload_numbers(&self, values: &[f32]) -> Result<Buffer, TensorError> {
        self.upload(&Precision::F32.bytes(values))
    }

    /// Bytes over those from `from` on.
    pub(super) fn write(&self, buffer: &Buffer, from: usize, bytes: &[u8]) -> Result<(), TensorError> {
        assert!(from + bytes.len() <= buffer.bytes, "a write beyond a buffer");
        on!(self, backend => backend.write(buffer.address + from as u64, bytes))
    }

    /// Numbers, of which the first is the one at `from`.
    pub(super) fn numbers(
        &self,
        buffer: &Buffer,
        from: usize,
        count: usize,
    ) -> Result<Vec<f32>, TensorError> {
        let bytes = self.bytes(buffer, 4 * from, 4 * count)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    pub(super) fn bytes(&self, buffer: &Buffer, from: usize, count: usize) -> Result<Vec<u8>, TensorError> {
        assert!(from + count <= buffer.bytes, "a read beyond a buffer");
        let mut bytes = vec![0; count];
        on!(self, backend => backend.read(&mut bytes, buffer.address + from as u64))?;
        Ok(bytes)
    }

    /// Waits until everything that was asked for is done.
    ///
    /// # Errors
    /// [`TensorError::Device`] for what went wrong in it.
    pub fn finish(&self) -> Result<(), TensorError> {
        on!(self, backend => backend.finish())
    }

    /// Launches a kernel. Who calls sees to it that its arguments are those that it takes, and that its blocks stay within the
    /// buffers whose addresses they are given.
    pub(super) fn launch(&self, kernel: &str, shape: Shape, args: &[Arg]) -> Result<(), TensorError> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        let mut pointers: Vec<*mut c_void> = args.iter().map(Arg::pointer).collect();
        on!(self, backend => backend.launch(kernel, shape, &mut pointers))
    }

    pub(super) fn product(&self, product: Product) -> Result<(), TensorError> {
        if product.rows * product.columns * product.inner == 0 {
            return Ok(());
        }
        on!(self, backend => backend.product(product))
    }
}
