//! What processes use of the machine: CPU time by their clocks, memory, threads and sockets from `/proc`.

use std::fs;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::base::error::{Error, Result};

/// The CPU time of a running process in microseconds, in user mode and in the kernel, that of ended threads included.
pub(super) fn of(pid: u32) -> Result<u64> {
    let reading = || Error::io(format!("reading the CPU time of process {pid}"));
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).map_err(|error| reading()(error.into()))?;
    micros(clock).map_err(reading())
}

/// The CPU time of this process in microseconds.
pub(super) fn of_this_process() -> Result<u64> {
    micros(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_err(Error::io("reading the CPU time of this process"))
}

fn micros(clock: ClockId) -> std::io::Result<u64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec().cast_unsigned() * 1_000_000 + time.tv_nsec().cast_unsigned() / 1_000)
}

/// What a process has at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) threads: u64,
    /// Connections, and sockets that listen.
    pub(super) sockets: u64,
    /// Memory that is its own, in KiB: without the pages of its program, which processes share.
    pub(super) memory_kib: u64,
}

/// The footprint of a running process.
pub(super) fn footprint(pid: u32) -> Result<Footprint> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(Error::io(format!("reading {path}")))?;
    let number = |name: &str| field(&status, name).ok_or_else(|| Error::Failed(format!("{path} has no {name}")));
    let (threads, memory_kib) = (number("Threads")?, number("RssAnon")?);
    let path = format!("/proc/{pid}/fd");
    let files = fs::read_dir(&path).map_err(Error::io(format!("reading {path}")))?;
    let is_socket = |file: std::io::Result<fs::DirEntry>| {
        // A file that was closed meanwhile is none.
        let target = fs::read_link(file.ok()?.path()).ok()?;
        target.to_str()?.starts_with("socket:").then_some(())
    };
    Ok(Footprint { threads, sockets: files.filter_map(is_socket).count() as u64, memory_kib })
}

fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn cpu_time_is_that_of_the_process() {
        let (own, before) = (std::process::id(), of_this_process().expect("it runs"));
        let until = Instant::now() + Duration::from_secs(20);
        while of_this_process().expect("it runs") < before + 2_000 && Instant::now() < until {}
        let after = of(own).expect("it runs");
        assert!(after >= before + 2_000 && after < before + 20_000_000, "{before} {after}");
        assert!(of(0x3fff_fff0).is_err(), "there is no such process");
    }

    #[test]
    fn a_footprint_counts_threads_sockets_and_memory() {
        let _listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let found = footprint(std::process::id()).expect("it runs");
        assert!(found.threads >= 1 && found.sockets >= 1 && found.memory_kib > 100, "{found:?}");
        assert_eq!(field("Name:\tx\nRssAnon:\t  1234 kB\nThreads:\t7\n", "RssAnon"), Some(1_234));
        assert_eq!((field("Name:\tx\n", "Threads"), field("Threads:\n", "Threads")), (None, None));
    }
}
