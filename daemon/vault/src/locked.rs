use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

use crate::VaultError;

const BYTES: usize = 4096;

/// The secrets of an unsealed vault.
#[derive(Zeroize, Default)]
pub(crate) struct Secrets {
    /// What every slot seals.
    pub(crate) master: [u8; 32],
    /// What derived keys and look-up tags come from.
    pub(crate) field: [u8; 32],
    /// The root key of the newest generation.
    pub(crate) current: [u8; 32],
    /// The root key of the generation before, during a rotation.
    pub(crate) previous: [u8; 32],
}

/// Secrets in a page of their own: not swapped, not dumped, empty in forked children, wiped when dropped.
pub(crate) struct Locked {
    page: NonNull<Secrets>,
    guarded: bool,
}

#[allow(unsafe_code)]
impl Locked {
    /// A page of zeros.
    pub(crate) fn new() -> Result<Self, VaultError> {
        const { assert!(size_of::<Secrets>() <= BYTES) }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh mapping at a place that the kernel chooses overlaps nothing.
        let page = unsafe { mmap_anonymous(null_mut(), BYTES, protection, flags) };
        let page = page.map_err(|error| VaultError::Memory(error.into()))?;
        // SAFETY: the page was just mapped, and neither call changes what a reader of it sees in this process.
        let guarded = unsafe {
            mlock(page, BYTES).is_ok()
                && madvise(page, BYTES, Advice::LinuxDontDump).is_ok()
                && madvise(page, BYTES, Advice::LinuxWipeOnFork).is_ok()
        };
        let page = NonNull::new(page.cast()).ok_or(VaultError::Cipher)?;
        Ok(Self { page, guarded })
    }

    /// Takes the secrets of another page.
    pub(crate) fn copy(&mut self, other: &Self) {
        self.master = other.master;
        self.field = other.field;
        self.current = other.current;
        self.previous = other.previous;
    }

    /// Whether the machine granted all of that protection.
    pub(crate) fn guarded(&self) -> bool {
        self.guarded
    }
}

#[allow(unsafe_code)]
impl Deref for Locked {
    type Target = Secrets;

    fn deref(&self) -> &Secrets {
        // SAFETY: the page is ours, aligned, initialised with zeros, and lives as long as `self`.
        unsafe { self.page.as_ref() }
    }
}

#[allow(unsafe_code)]
impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Secrets {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { self.page.as_mut() }
    }
}

#[allow(unsafe_code)]
// SAFETY: the page belongs to this value alone, and holds plain bytes.
unsafe impl Send for Locked {}
#[allow(unsafe_code)]
// SAFETY: shared references only read.
unsafe impl Sync for Locked {}

impl Drop for Locked {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.zeroize();
        // SAFETY: nothing borrows from a value that is dropped. A refusal would only leave an empty page behind.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), BYTES) };
    }
}
