//! One child process: its output, signals to it, and its exit.
//!
//! Each child leads a process group of its own, so that Ctrl-C in a terminal reaches only this process, which then
//! stops its children in order. SIGKILL is sent to the whole group, so that no grandchild is left. Dropping a
//! [`ChildProcess`] kills it and waits for its exit. If this process is killed, the groups are, too
//! (`watcher`).

use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;

use super::lines::Lines;
use super::wait::wait_until;
use super::watcher;
use crate::base::error::{Error, Result};

pub use nix::sys::signal::Signal;

/// How long a process may take to exit after SIGKILL. Only one that hangs in the kernel takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long reading the rest of its output may take after its exit.
const OUTPUT_LIMIT: Duration = Duration::from_secs(1);
/// How many lines of its output an error shows.
const SHOWN_LINES: usize = 20;
/// How many a failed test shows of each of its processes.
const LINES_AT_PANIC: usize = 200;

/// See the module's text.
pub struct ChildProcess {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl ChildProcess {
    /// Starts `command` with an empty standard input and keeps both outputs. Errors refer to the child by `name`.
    pub fn spawn(name: &str, mut command: Command) -> Result<ChildProcess> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {name} ({})", command.get_program().display())))?;
        watcher::add(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).expect("both outputs are piped");
        // From here on an early return drops the process, which kills it.
        let (empty, none) = (Lines::default(), Vec::new());
        let mut process = ChildProcess {
            name: name.to_owned(),
            child,
            ended: None,
            stdout: empty.clone(),
            stderr: empty,
            readers: none,
        };
        let (lines, reader) = Lines::read(format!("{name}-stdout"), stdout)?;
        process.stdout = lines;
        process.readers.push(reader);
        let (lines, reader) = Lines::read(format!("{name}-stderr"), stderr)?;
        process.stderr = lines;
        process.readers.push(reader);
        Ok(process)
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Its standard error: its log.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Waits for a line of the child's log that contains `part`. Returns the first such line.
    pub fn wait_for_line(&self, part: &str, within: Duration) -> Result<String> {
        self.stderr.wait_for(part, within).map_err(|error| Error::Failed(format!("{}: {error}", self.name)))
    }

    /// Its exit status, once it has exited and its output has been read.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended =
                self.child.try_wait().map_err(Error::io(format!("asking for the exit status of {}", self.name)))?;
            if self.ended.is_some() {
                watcher::remove(self.pid());
                [&self.stdout, &self.stderr].into_iter().for_each(|output| output.wait_for_end(OUTPUT_LIMIT));
            }
        }
        Ok(self.ended)
    }

    /// Returns an error, with the end of the child's log, if the child has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(self.failure(format_args!("ended with {}", shown(status)))),
        }
    }

    /// Waits for its exit, and until its output has been read.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_until(within, what, || self.ended())
    }

    /// Sends a signal; does nothing if the child has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid().cast_signed());
        // SIGKILL also goes to the child's own children. The child has not been reaped, so neither id can belong to
        // another process.
        let sent = if signal == Signal::SIGKILL { killpg(pid, signal) } else { kill(pid, signal) };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(Error::Io { what: format!("sending {signal} to {}", self.name), cause: error.into() }),
        }
    }

    /// Sends SIGTERM and waits for its exit. After the deadline the child is killed, which is an error.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        // A paused process would not act on SIGTERM.
        self.signal(Signal::SIGCONT)?;
        self.wait(within).or_else(|_| {
            self.kill()?;
            Err(self.failure(format_args!("did not end within {within:?} of SIGTERM and was killed")))
        })
    }

    /// Kills it with SIGKILL and waits for its exit.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILL_LIMIT)
    }

    /// An error about this child, with the end of its log.
    pub fn failure(&self, problem: impl fmt::Display) -> Error {
        let mut tail = self.stderr.tail(SHOWN_LINES);
        if tail.is_empty() {
            tail = self.stdout.tail(SHOWN_LINES);
        }
        let log = if tail.is_empty() { "; it wrote nothing".to_owned() } else { format!("; its last lines:{tail}") };
        Error::Failed(format!("{} {problem}{log}", self.name))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let gone = self.kill().is_ok();
        // The pipes end with the process. If it could not be killed, joining their readers could block for ever.
        for reader in self.readers.drain(..).filter(|_| gone) {
            let _ = reader.join();
        }
        // A test has failed: what the process logged may say why.
        if thread::panicking() {
            eprintln!("{} wrote:{}{}", self.name, self.stdout.tail(LINES_AT_PANIC), self.stderr.tail(LINES_AT_PANIC));
        }
    }
}

impl fmt::Debug for ChildProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildProcess").field("name", &self.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

fn shown(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}
