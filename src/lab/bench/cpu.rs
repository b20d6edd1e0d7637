//! The CPU time that processes have used, from `/proc`.

use std::fs;

use crate::base::error::{Error, Result};

/// The unit of times in `/proc`: `USER_HZ` is 100 on all architectures that we support.
const TICK_US: u64 = 10_000;

/// The CPU time of a running process in microseconds, in user mode and in the kernel.
pub(super) fn of(pid: u32) -> Result<u64> {
    read(&format!("/proc/{pid}/stat"))
}

/// The CPU time of this process in microseconds.
pub(super) fn of_this_process() -> Result<u64> {
    read("/proc/self/stat")
}

fn read(path: &str) -> Result<u64> {
    let stat = fs::read_to_string(path).map_err(Error::io(format!("reading {path}")))?;
    parse(&stat).ok_or_else(|| Error::Failed(format!("{path} can't be parsed: {stat}")))
}

fn parse(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may contain anything. The rest starts with the third.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| words.get(number - 3)?.parse::<u64>().ok();
    Some((ticks(14)? + ticks(15)?) * TICK_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_whatever_the_name_contains() {
        assert_eq!(parse("7 (a) b) S 1 7 7 0 -1 4 9 0 0 0 150 50 0 0 20 0"), Some(2_000_000));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
        assert!(of(std::process::id()).is_ok() && of_this_process().is_ok());
    }
}
