/// Tells glibc to keep freed memory: a training step frees and takes the same buffers again, and clearing fresh pages
/// for them costs up to a quarter of its time.
pub(crate) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    {
        // malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 32 MiB is the highest that the latter takes.
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) takes two ints, returns one, and is called before there is a second thread.
        unsafe {
            unsafe extern "C" {
                fn mallopt(parameter: i32, value: i32) -> i32;
            }
            mallopt(MMAP_THRESHOLD, 32 << 20);
            mallopt(TRIM_THRESHOLD, i32::MAX);
        }
    }
}
