//! What this process takes of memory and of the processor.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Where Linux tells the peak of this process alone, and what getrusage(2) told of it at the start: that began with whoever
/// started it.
static WATCHED: OnceLock<(Option<File>, u64)> = OnceLock::new();

/// Bytes of that file at most, up to the line that is read.
const STATUS_BYTES: usize = 4096;

/// Opens what [`peak_memory`] reads. To be called first of all: a confined process may open no file of `/proc`.
pub fn watch_memory() {
    WATCHED.get_or_init(|| (File::open("/proc/self/status").ok(), largest()));
}

/// Peak resident memory of this process in bytes (proc_pid_status(5), VmHWM). Where that may not be read, since a confined
/// process started this one, what getrusage(2) tells once it is more than at the start; until then 0, for not known.
pub fn peak_memory() -> u64 {
    let (status, began) = WATCHED.get().map_or((None, 0), |(status, began)| (status.as_ref(), *began));
    status.and_then(high_water).unwrap_or_else(|| Some(largest()).filter(|peak| *peak > began).unwrap_or(0))
}

fn largest() -> u64 {
    let kib = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    u64::try_from(kib).unwrap_or(0) * 1024
}

fn high_water(status: &File) -> Option<u64> {
    let mut bytes = [0; STATUS_BYTES];
    let read = status.read_at(&mut bytes, 0).ok()?;
    let text = str::from_utf8(&bytes[..read]).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"))?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

/// Seconds that all threads of this process kept a core busy, for itself and for its system calls (getrusage(2)); 0 where
/// Linux does not tell.
pub(crate) fn processor_seconds() -> f64 {
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::{peak_memory, watch_memory};

    #[test]
    fn the_peak_grows_with_what_is_touched_and_stays() {
        watch_memory();
        let before = peak_memory();
        assert!(before > 1 << 20, "{before}");
        let touched = std::hint::black_box(vec![1_u8; 256 << 20]);
        let after = peak_memory();
        assert!(after > before + (128 << 20), "{before} {after}");
        drop(touched);
        // The kernel counts in batches of pages.
        assert!(peak_memory() + (4 << 20) >= after);
    }
}
