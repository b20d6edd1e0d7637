//! The numbers of the process itself, by their customary names, from `/proc/self`.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The unit of times in `/proc`: `USER_HZ`, which is 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// What `/proc` says.
#[derive(Debug, PartialEq)]
struct Process {
    cpu_seconds: f64,
    start_time_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(process) = read() {
            let (name, help) = ("process_cpu_seconds", "CPU time spent, user and system");
            ConstCounter::new(process.cpu_seconds).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
            let (name, help) = ("process_start_time_seconds", "Start of the process, in seconds since 1970");
            ConstGauge::new(process.start_time_seconds).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
            for (name, help, bytes) in [
                ("process_resident_memory_bytes", "Resident memory", process.resident_bytes),
                ("process_virtual_memory_bytes", "Virtual memory", process.virtual_bytes),
            ] {
                ConstGauge::new(bytes).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            let (name, help) = ("process_open_fds", "Open file descriptors");
            // The directory itself is open while it is read.
            ConstGauge::new(descriptors.count() as i64 - 1).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}

fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    parse(&stat, &status, &system)
}

/// From `/proc/self/stat`, `/proc/self/status` and `/proc/stat`.
fn parse(stat: &str, status: &str, system: &str) -> Option<Process> {
    // The second word is the program's name in parentheses and may hold anything; the rest begins with the third.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let word = |number: usize| words.get(number - 3)?.parse::<f64>().ok();
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(Process {
        cpu_seconds: (word(14)? + word(15)?) / TICKS_PER_SECOND,
        start_time_seconds: boot + word(22)? / TICKS_PER_SECOND,
        virtual_bytes: word(23)? as i64,
        resident_bytes: resident.trim().strip_suffix(" kB")?.parse::<i64>().ok()? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 9 0 0 0 150 50 0 0 20 0 3 0 1200 8192 300 18446744073709551615";
        let process = parse(stat, "Name:\ta\nVmRSS:\t    12 kB\n", "cpu 1\nbtime 1000\n").unwrap();
        let expected =
            Process { cpu_seconds: 2.0, start_time_seconds: 1012.0, virtual_bytes: 8192, resident_bytes: 12_288 };
        assert_eq!(process, expected);
        assert_eq!(parse("7 (a) S 1", "", ""), None);
        assert_eq!(parse("", "", ""), None);
    }

    #[test]
    fn this_process_is_read() {
        let process = read().expect("the tests run on Linux");
        assert!(process.resident_bytes > 100_000 && process.start_time_seconds > 1.6e9, "{process:?}");
    }
}
