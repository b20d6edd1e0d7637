//! What Linux knows of a process: its threads, ports and memory.

use std::collections::{BTreeMap, BTreeSet};

/// The threads of a process by name. Of two with the same name, only one is returned.
pub fn threads(pid: u32) -> BTreeMap<String, u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let tasks = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |task: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).ok();
    tasks.filter_map(|task| Some((name(task)?.trim().to_owned(), task))).collect()
}

/// The local ports of a process's TCP connections.
pub fn local_ports(pid: u32) -> Vec<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let files = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let sockets = files.filter_map(|file| {
        let inode = file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    });
    let sockets: Vec<String> = sockets.collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("Linux has it");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| sockets.iter().any(|inode| inode == row[9]));
    own.filter_map(|row| u16::from_str_radix(row[1].rsplit(':').next()?, 16).ok()).collect()
}

/// The scheduling policies of all threads of a process, by Linux's numbers.
pub fn scheduling(pid: u32) -> BTreeSet<u32> {
    let policy = |task: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{task}/stat")).ok()?;
        // The 41st word; the second, the name, may contain spaces.
        stat.rsplit_once(") ")?.1.split(' ').nth(41 - 3)?.parse().ok()
    };
    threads(pid).into_values().filter_map(policy).collect()
}

/// The resident memory of a process.
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The peak resident memory of a process.
pub fn most_resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib << 10
}

/// The children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>())
        .collect()
}

/// Whether a process is there and no zombie.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
