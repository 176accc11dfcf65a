use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux shows control groups of version 2.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory that this process may take: the least of what the machine has and of what each control group above it
/// allows (cgroups(7), memory.max). 0 where nothing tells.
pub(crate) fn allowed() -> u64 {
    // A filter of system calls may refuse to tell, and what was not told is not known.
    let machine = nix::sys::sysinfo::sysinfo().map(|info| info.ram_total());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = group(&own).map(|path| limit(Path::new(GROUPS), &path)).unwrap_or(u64::MAX);
    match machine.unwrap_or(u64::MAX).min(groups) {
        u64::MAX => 0,
        bytes => bytes,
    }
}

/// The group of version 2 that `/proc/self/cgroup` names.
fn group(own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The least limit of a group and of those above it.
fn limit(root: &Path, group: &Path) -> u64 {
    let limits = group.ancestors().filter_map(|above| {
        let text = fs::read_to_string(root.join(above).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{allowed, group, limit};

    #[test]
    fn the_least_limit_of_all_groups_above_holds() {
        assert_eq!(group("1:memory:/old\n0::/a/b\n"), Some(PathBuf::from("a/b")));
        assert_eq!(group("1:memory:/old\n"), None);
        let root = tempfile::tempdir().unwrap();
        let group = Path::new("a/b");
        fs::create_dir_all(root.path().join(group)).unwrap();
        assert_eq!(limit(root.path(), group), u64::MAX);
        fs::write(root.path().join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(limit(root.path(), group), u64::MAX);
        fs::write(root.path().join("a/memory.max"), "4096\n").unwrap();
        assert_eq!(limit(root.path(), group), 4096);
        fs::write(root.path().join("a/b/memory.max"), "8192\n").unwrap();
        assert_eq!(limit(root.path(), group), 4096);
    }

    #[test]
    fn this_machine_allows_something() {
        assert!(allowed() > 16 << 20 && allowed() < 1 << 50);
    }
}
