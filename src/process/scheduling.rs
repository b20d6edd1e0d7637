//! How the kernel schedules a program's threads: whether one that wakes up may interrupt what runs.
//!
//! Redis does its work on one thread, and each of its replies wakes up threads of ours. On a machine that they share,
//! the kernel often runs these on Redis's core at once, although another core is idle. Under `SCHED_BATCH` a thread
//! that wakes up waits until that core is free, or another one takes it, so Redis goes on. The share of CPU time is the
//! same, and no right is needed.
//!
//! Threads and child processes inherit the policy, so it is set before the first thread starts.

use std::io;

use nix::libc;

use super::log::hold_back;
use crate::base::setting::ConfigError;
use crate::base::text::Quoted;
use crate::process::config::Default::Text;
use crate::process::config::{Setting, Values, quoted};

const TAKES: &str = "batch or normal";

/// The policy.
pub const SCHEDULING: Setting = Setting::new(
    "scheduling",
    "POLICY",
    Text("batch"),
    "batch: threads that wake up don't interrupt others, such as a Redis server's on this machine (SCHED_BATCH); \
     normal: as the system does. A policy that the program was started with, other than the usual one, stays",
);

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// Threads that wake up do not interrupt others.
    Batch,
    /// What the program was started with.
    Normal,
}

impl Scheduling {
    /// Reads the setting; of a program that does not have it, it is [`Normal`](Scheduling::Normal).
    pub fn read(values: &Values<'_>) -> Result<Scheduling, ConfigError> {
        if !values.has(&SCHEDULING) {
            return Ok(Scheduling::Normal);
        }
        match values.required(SCHEDULING.name, TAKES)?.as_str() {
            "batch" => Ok(Scheduling::Batch),
            "normal" => Ok(Scheduling::Normal),
            other => Err(ConfigError::new(SCHEDULING.name, quoted(other), TAKES)),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scheduling::Batch => "batch",
            Scheduling::Normal => "normal",
        }
    }

    /// Sets the policy for the threads that this one will start, and for this one. A refusal is logged: the program
    /// works as well without.
    pub fn apply(self) {
        if self == Scheduling::Batch
            && let Err(error) = become_batch()
        {
            hold_back(format!(
                "event=scheduling-refused policy=batch error={} note=\"threads may interrupt a Redis server on this \
                 machine; --scheduling normal says that this is meant\"",
                Quoted(&error)
            ));
        }
    }
}

#[allow(unsafe_code, reason = "nix has no such call")]
fn become_batch() -> io::Result<()> {
    // SAFETY: without arguments that point anywhere.
    if unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } != libc::c_long::from(libc::SCHED_OTHER) {
        return Ok(());
    }
    // The system call itself, because musl's function of that name only returns an error. The kernel reads one number
    // there, the priority.
    let priority: libc::c_int = 0;
    // SAFETY: the pointer is to a value that lives until the call has returned.
    match unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i64 {
        let status = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        // The name may contain spaces; the policy is the 41st word.
        let words = status.rsplit_once(") ").expect("a name").1.split(' ').nth(41 - 3);
        words.and_then(|word| word.parse().ok()).expect("a number")
    }

    #[test]
    fn threads_inherit_what_is_set_and_another_policy_stays() {
        // Policies belong to threads, so those of other tests keep theirs.
        std::thread::spawn(|| {
            Scheduling::Normal.apply();
            assert_eq!(policy(), i64::from(libc::SCHED_OTHER));
            Scheduling::Batch.apply();
            assert_eq!(policy(), i64::from(libc::SCHED_BATCH));
            let inherited = std::thread::spawn(policy).join().expect("no panic");
            assert_eq!(inherited, i64::from(libc::SCHED_BATCH));
        })
        .join()
        .expect("no panic");
    }
}
