//! One child process and its process group: signals, and the end of both.
//!
//! A child leads a group of its own, so a Ctrl-C in the consumer's terminal does not reach it, and what it starts can
//! be ended with it. Any thread may use a [`Group`].
//!
//! Guarantees: once [`Group::end`] has returned, the child has ended, unless the kernel does not let it, and SIGKILL
//! was sent to all that is left of its group. Signals never reach another process: the group's id stays taken until the
//! child is reaped, which is the last step. Every wait has a limit.
//!
//! Limitation: a process that moves itself into another group or session is not ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;

/// How long a child may take to exit after SIGTERM, before it is killed.
const TERM_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take after SIGKILL. Only one that hangs in the kernel takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two checks whether a child has ended: the first, and the longest it grows to.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Group {
    pid: Pid,
    leader: Mutex<Leader>,
}

#[derive(Debug)]
struct Leader {
    child: Child,
    /// Set when it is reaped.
    ending: Option<Ending>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It exited with this status.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Group {
    /// The group of a child that was started as its leader.
    pub(super) fn of(child: Child) -> Group {
        let pid = Pid::from_raw(child.id().cast_signed());
        Group { pid, leader: Mutex::new(Leader { child, ending: None }) }
    }

    /// The child's process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Whether the child has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.leader.lock().has_ended(self.pid)
    }

    fn signal(&self, signal: Signal) {
        self.leader.lock().signal(self.pid, signal);
    }

    /// Waits until the child ends, for at most `limit`. Returns whether it has ended.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        while !self.has_ended() {
            if begin.elapsed() >= limit {
                return false;
            }
            thread::sleep(pause.min(limit));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    /// Ends the child and what is left of its group: waits for `patience`, sends SIGTERM and waits again, then sends
    /// SIGKILL. Returns how the child ended, and whether it had to be killed.
    pub(super) fn end(&self, patience: Duration) -> (Option<Ending>, bool) {
        let mut ended = self.wait(patience);
        if !ended {
            self.terminate();
            ended = self.wait(TERM_LIMIT);
        }
        (self.kill(), !ended)
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        // A paused process would not act on SIGTERM.
        self.signal(Signal::SIGCONT);
    }

    /// Sends SIGKILL to the group and reaps the child. Returns `None` if it does not end.
    pub(super) fn kill(&self) -> Option<Ending> {
        self.signal(Signal::SIGKILL);
        if !self.wait(KILL_LIMIT) {
            warn!("event=child-not-ended pid={} problem=\"it hangs in the kernel\"", self.pid);
            return None;
        }
        self.leader.lock().reap()
    }
}

/// Whether a process with this `/proc/<pid>/status` ignores SIGCHLD, which is inherited. Then the system reaps its
/// children, and it learns nothing of how they ended.
pub(super) fn ignores_endings(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (Signal::SIGCHLD as u64 - 1) & 1 == 1)
}

/// A child that is not ended in order, because its thread panicked, is killed.
impl Drop for Group {
    fn drop(&mut self) {
        if self.leader.get_mut().ending.is_none() {
            self.kill();
        }
    }
}

impl Leader {
    /// Whether the child has ended. It stays unreaped, so that its id stays taken.
    fn has_ended(&self, pid: Pid) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // An error means that the status is one that nix does not know.
        self.ending.is_some() || !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
    }

    fn signal(&self, pid: Pid, signal: Signal) {
        if self.ending.is_some() {
            return;
        }
        if let Err(error) = killpg(pid, signal)
            && error != Errno::ESRCH
        {
            warn!("event=child-not-signalled pid={pid} signal={signal} error={error}");
        }
    }

    /// Reaps a child that has ended, so this does not block.
    fn reap(&mut self) -> Option<Ending> {
        if self.ending.is_none() {
            self.ending = self.child.wait().ok().map(Ending::of);
        }
        self.ending
    }
}

impl Ending {
    /// The same from the standard library's form.
    fn of(status: ExitStatus) -> Ending {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exit(code),
            (None, signal) => Ending::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ending::Exit(code) => write!(f, "exit status {code}"),
            Ending::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "{signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// Ends children when the consumer stops: waits for `patience`, sends SIGTERM to those that are left and waits again,
/// then sends SIGKILL to what is left of all groups.
pub(super) fn end_all(groups: &[Arc<Group>], patience: Duration) {
    let wait_for_all = || {
        let deadline = Instant::now() + patience;
        groups.iter().filter(|group| !group.wait(deadline.saturating_duration_since(Instant::now()))).count()
    };
    if wait_for_all() > 0 {
        groups.iter().for_each(|group| group.terminate());
        if let count @ 1.. = wait_for_all() {
            warn!("event=children-killed count={count} problem=\"they did not end in time after SIGTERM\"");
        }
    }
    groups.iter().for_each(|group| {
        group.kill();
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Group {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Group::of(command.spawn().expect("there is a shell"))
    }

    #[test]
    fn an_end_is_told_by_status_or_signal() {
        for (script, shown) in [("exit 7", "exit status 7"), ("kill -9 $$", "SIGKILL"), ("kill -35 $$", "signal 35")] {
            let group = shell(script);
            assert!(group.wait(SOON), "{script}");
            let (ending, killed) = group.end(SOON);
            assert_eq!((ending.expect("it has ended").to_string().as_str(), killed), (shown, false));
            assert_eq!(group.kill(), ending, "again, without harm");
            group.signal(Signal::SIGKILL);
        }
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let group = shell("trap '' TERM; while :; do sleep 1; done");
        let begin = Instant::now();
        // It needs a moment until it ignores the signal.
        assert_eq!(group.end(Duration::from_secs(1)), (Some(Ending::Signal(9)), true));
        assert!(begin.elapsed() < TERM_LIMIT + SOON);
        // A paused one acts on SIGTERM.
        let paused = shell("kill -STOP $$");
        assert_eq!(paused.end(Duration::from_millis(200)), (Some(Ending::Signal(15)), false));
    }
}
