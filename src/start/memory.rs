//! How much memory this process may take: what the machine has left, and what its control groups allow.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that this process may still take without swapping or being killed. `None` where the system does not say.
///
/// Files in the page cache count as free, as Linux counts them: weights that are mapped already are not counted twice.
pub(super) fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// What is left of `available` for the model: the program, its tokenizer, the pictures being decoded and whatever the estimates
/// miss get a tenth, at least 512 MiB and at most 4 GiB.
pub(super) fn without_reserve(available: u64) -> u64 {
    let reserve = (available / 10).clamp(512 << 20, 4 << 30);
    available.saturating_sub(reserve)
}

/// [`available`] in the file tree at `root`.
fn available_under(root: &Path) -> Option<u64> {
    let machine = mem_available(root);
    let groups = groups(root).iter().filter_map(|group| group.left()).min();
    [machine, groups].into_iter().flatten().min()
}

/// `MemAvailable: 16384 kB`
fn mem_available(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// A control group that limits memory.
struct Group {
    folder: PathBuf,
    names: &'static Names,
}

/// What a version of control groups calls its files, and the counters of file pages in `memory.stat`.
struct Names {
    limit: &'static str,
    usage: &'static str,
    file_pages: [&'static str; 2],
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    file_pages: ["total_active_file", "total_inactive_file"],
};
const VERSION_2: Names =
    Names { limit: "memory.max", usage: "memory.current", file_pages: ["active_file", "inactive_file"] };

impl Group {
    /// Bytes up to the group's limit. `None` where it sets none.
    fn left(&self) -> Option<u64> {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let limit = number(self.names.limit)?; // "max" in version 2; version 1 has a number no machine reaches
        let usage = number(self.names.usage)?;
        let stat = read("memory.stat").unwrap_or_default();
        let counter = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let file_pages: u64 = self.names.file_pages.iter().filter_map(|name| counter(name)).sum();
        Some(limit.saturating_sub(usage.saturating_sub(file_pages)))
    }
}

/// This process' groups that may limit its memory: its own and those around it, of both versions.
///
/// A container may see its own group as the root while /proc/self/cgroup has its path on the host: folders that are not
/// there are passed over.
fn groups(root: &Path) -> Vec<Group> {
    let listed = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    listed
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':'); // id : controllers : path
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (mounted, names) = match controllers {
                "" => ("sys/fs/cgroup", &VERSION_2),
                _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", &VERSION_1),
                _ => return None,
            };
            Some((root.join(mounted), path.trim_start_matches('/').to_owned(), names))
        })
        .flat_map(|(mounted, path, names)| {
            let around = Path::new(&path).ancestors().map(|part| mounted.join(part)).collect::<Vec<_>>();
            around.into_iter().map(move |folder| Group { folder, names })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{available, available_under, without_reserve};

    /// A tree of files: (path, content).
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:    6000 kB\n");

    #[test]
    fn this_machine_says_what_it_has_left() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn without_control_groups_the_machine_decides() {
        assert_eq!(available_under(machine(&[MEMINFO]).path()), Some(6000 << 10));
        assert_eq!(available_under(machine(&[]).path()), None);
    }

    #[test]
    fn a_group_of_version_2_limits_and_its_page_cache_counts_as_free() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/box/inner\n"),
            ("sys/fs/cgroup/box/memory.max", "5000000\n"),
            ("sys/fs/cgroup/box/memory.current", "3000000\n"),
            ("sys/fs/cgroup/box/memory.stat", "anon 1\nactive_file 500000\ninactive_file 1500000\n"),
            ("sys/fs/cgroup/box/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/box/inner/memory.current", "3000000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(4_000_000));
    }

    #[test]
    fn a_container_of_version_1_sees_its_group_at_the_root() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "cache 9\ntotal_inactive_file 300000\ntotal_active_file 200000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(1_000_000));
    }

    #[test]
    fn the_narrowest_limit_counts() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(6000 << 10));
    }

    #[test]
    fn the_reserve_is_a_tenth_within_bounds() {
        assert_eq!(without_reserve(20 << 30), 18 << 30);
        assert_eq!(without_reserve(1 << 30), 512 << 20);
        assert_eq!(without_reserve(100 << 20), 0);
        assert_eq!(without_reserve(80 << 30), 76 << 30);
    }
}
