//! One process for one message: the payload goes to its standard input, the rest is in variables.
//!
//! The handler thread that runs it polls its pipes.
//!
//! Guarantees: it runs no longer than the limit. When its result is returned, it and all that is left of its group have
//! ended. Its output is limited to [`MAX_OUTPUT_BYTES`], and what it writes on standard error is only logged.

use std::io;
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::group::{Ending, Group};
use super::pipes::{self, Moved};
use super::program::Program;
use super::stderr::{CHUNK_BYTES, StderrLimit, StderrLines};
use crate::base::setting::PREFIX;
use crate::consumer::Delivery;
use crate::programs::consumer::trace::{TraceContext, log_field};
use crate::wire;

/// The longest output: as much as a result may have.
const MAX_OUTPUT_BYTES: usize = wire::MAX_PAYLOAD_BYTES;
/// How often to check whether a process has ended while another one keeps its pipes open.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// How many chunks of standard error are read in a row, and at most after the end of the process.
const READS_AT_ONCE: usize = 64;

/// How a process ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) ending: Ending,
    /// Its standard output.
    pub(super) output: Vec<u8>,
    /// The last line on its standard error that was not blank.
    pub(super) last_line: Option<String>,
}

/// A process at work.
#[derive(Debug)]
pub(super) struct Process {
    group: Arc<Group>,
    /// `None` once the payload is written, or not wanted.
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    sent: usize,
    output: Vec<u8>,
    lines: StderrLines,
    chunk: Vec<u8>,
}

impl Process {
    /// Starts the program for a message. Errors are those of the system: there is no such program, for instance.
    pub(super) fn start(
        program: &Program,
        delivery: &Delivery<'_>,
        context: Option<&TraceContext>,
        limit: &StderrLimit,
    ) -> io::Result<Process> {
        let mut command = program.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("ONCECAST_ID", delivery.id().to_string());
        command.env("ONCECAST_DELIVERY", delivery.number().to_string());
        if delivery.lane() > 0 {
            command.env("ONCECAST_LANE", delivery.lane().to_string());
        }
        if let Some((name, value)) = delivery.channel().map(channel_variable) {
            command.env(name, value);
        }
        for (name, value) in context.into_iter().flat_map(TraceContext::members) {
            command.env(format!("{PREFIX}{}", name.to_ascii_uppercase()), value);
        }
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let group = Arc::new(Group::of(child));
        stdin.as_ref().map(pipes::set_nonblocking).transpose()?;
        stdout.as_ref().map(pipes::set_nonblocking).transpose()?;
        stderr.as_ref().map(pipes::set_nonblocking).transpose()?;
        let name = format!("pid={} id={}{}", group.pid(), delivery.id(), log_field(context));
        let lines = StderrLines::new(name, limit.clone());
        let (output, chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
        Ok(Process { group, stdin, stdout, stderr, sent: 0, output, lines, chunk })
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Lets it work for at most `limit`. An error is why it was ended.
    pub(super) fn run(mut self, payload: &[u8], limit: Option<Duration>) -> Result<Finished, String> {
        let driven = self.drive(payload, limit);
        let (ending, _) = self.group.end(Duration::ZERO);
        let finished = driven.and_then(|()| self.read());
        let last_line = self.lines.finish();
        finished?;
        let ending = ending.ok_or("the program does not end")?;
        Ok(Finished { ending, output: self.output, last_line })
    }

    /// Writes and reads until the process has ended. An error is why it has to be ended.
    fn drive(&mut self, payload: &[u8], limit: Option<Duration>) -> Result<(), String> {
        let begun = Instant::now();
        let lost = |error: io::Error| format!("a pipe to the program failed: {error}");
        while !self.group.has_ended() {
            self.write(payload).map_err(lost)?;
            self.read()?;
            let rest = limit.map_or(Duration::MAX, |limit| limit.saturating_sub(begun.elapsed()));
            if rest.is_zero() {
                return Err(format!("the program did not end within {} ms", limit.unwrap_or_default().as_millis()));
            }
            let pause = rest.min(CHECK_EVERY);
            let outputs = self.stdout.as_ref().map(AsFd::as_fd).into_iter();
            let outputs: Vec<_> = outputs.chain(self.stderr.as_ref().map(AsFd::as_fd)).collect();
            let stdin = self.stdin.as_ref().map(AsFd::as_fd);
            if outputs.is_empty() && stdin.is_none() {
                self.group.wait(pause);
            } else {
                pipes::wait(&outputs, stdin, pause).map_err(lost)?;
            }
        }
        Ok(())
    }

    /// Writes as much as there is room for. A program need not read its input.
    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            match pipes::write(stdin, &payload[self.sent..])? {
                Moved::Bytes(count) => self.sent += count,
                Moved::Nothing => return Ok(()),
                Moved::End => self.sent = payload.len(),
            }
            if self.sent == payload.len() {
                self.stdin = None;
            }
        }
        Ok(())
    }

    /// Reads what there is. An error is why the process has to be ended.
    fn read(&mut self) -> Result<(), String> {
        let lost = |error: io::Error| format!("a pipe to the program failed: {error}");
        // One round is limited, so that a flood does not keep the thread from the limit of time.
        for _ in 0..READS_AT_ONCE {
            let Some(stderr) = &mut self.stderr else { break };
            match pipes::read(stderr, &mut self.chunk).map_err(lost)? {
                Moved::Bytes(count) => self.lines.add(&self.chunk[..count]),
                Moved::Nothing => break,
                Moved::End => self.stderr = None,
            }
        }
        while let Some(stdout) = &mut self.stdout {
            match pipes::read(stdout, &mut self.chunk).map_err(lost)? {
                Moved::Bytes(count) => self.output.extend_from_slice(&self.chunk[..count]),
                Moved::Nothing => break,
                Moved::End => self.stdout = None,
            }
            if self.output.len() > MAX_OUTPUT_BYTES {
                return Err(format!("the program's output is longer than {MAX_OUTPUT_BYTES} bytes"));
            }
        }
        Ok(())
    }
}

/// The variable for a channel: `ONCECAST_CHANNEL`, or `ONCECAST_CHANNEL_BASE64` for bytes that a text or a variable
/// can't have.
fn channel_variable(channel: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(channel) {
        Ok(text) if !text.contains('\0') => ("ONCECAST_CHANNEL", text.to_owned()),
        _ => ("ONCECAST_CHANNEL_BASE64", BASE64.encode(channel)),
    }
}
