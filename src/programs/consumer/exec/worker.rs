//! One long-lived child: a request on its standard input, an answer on its standard output, one at a time.
//!
//! Used by one handler thread at a time, which polls both pipes; the child's standard error has a thread of its own.
//!
//! Guarantees: a request never blocks longer than its limit, whatever the child does, and holds no more than a request
//! and [`MAX_ANSWER_BYTES`]. A line counts as the answer to a request only if the child had read all of the request. If
//! a child ends by itself, it is known whether it had read any of the request: this end of the pipe has its other end,
//! too, and finds there what the child has not read.
//!
//! Limitation: a child that writes two answers is found out at once if both arrive together, and otherwise before its
//! next request.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::shown;
use super::group::Group;
use super::pipes::{self, Moved};
use super::program::Program;
use super::stderr::{CHUNK_BYTES, StderrLimit, StderrLines, StderrReader};

/// The longest answer: 12 MiB of fields and what JSON adds.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How long a child may take to read a request, if there is no shorter limit. Its start counts, too.
const MAX_READ_TIME: Duration = Duration::from_secs(300);
/// How often to check whether a child has ended while another process keeps its standard output open.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How long a child whose standard output has ended may take to exit.
const EXIT_LIMIT: Duration = Duration::from_millis(500);

/// A child that waits for a request.
#[derive(Debug)]
pub(super) struct Worker {
    number: u64,
    started: Instant,
    group: Arc<Group>,
    stdin: PipeWriter,
    /// The child's end of its standard input. Only read after its end.
    unread: PipeReader,
    stdout: ChildStdout,
    stderr: StderrReader,
    chunk: Vec<u8>,
    /// How many bytes of a request that is not answered are written.
    sent: usize,
    /// It has answered at least once.
    answered: bool,
}

/// What went wrong with a child, which can't be used any more.
#[derive(Debug)]
pub(super) enum Problem {
    /// Its standard output ended: it has exited, or closed it. `partial` is the beginning of an answer.
    Ended { partial: bool },
    /// It wrote something before it was asked.
    Unasked(String),
    /// It wrote something before it had read the request.
    Early(String),
    /// It wrote more than one line.
    TwoAnswers(String),
    /// Its line is no answer, for this reason.
    Garbage(String),
    /// Its answer has no end within [`MAX_ANSWER_BYTES`].
    TooLong,
    /// It did not answer in time.
    TimedOut(Duration),
    /// It did not read the request in time.
    NotRead(Duration),
    /// A pipe failed.
    Pipe(io::Error),
}

/// The end of a child.
#[derive(Debug)]
pub(super) struct Lost {
    /// What happened, for a log line or as the reason of a failure.
    pub(super) reason: String,
    /// Whether it may have begun on the request.
    pub(super) begun: bool,
}

impl Worker {
    /// Starts a child. Errors are those of the system: there is no such program, for instance.
    pub(super) fn start(program: &Program, number: u64, limit: &StderrLimit) -> io::Result<Worker> {
        // The standard library makes every pipe close-on-exec, so no other child holds these ends.
        let (unread, stdin) = io::pipe()?;
        let mut command = program.command();
        let mut child = command.stdin(unread.try_clone()?).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).expect("both are piped");
        let group = Arc::new(Group::of(child));
        let name = format!("child={number} pid={}", group.pid());
        let set_up = || {
            pipes::set_nonblocking(&stdin)?;
            pipes::set_nonblocking(&stdout)?;
            StderrReader::start(number, stderr, StderrLines::new(name, limit.clone()))
        };
        let stderr = set_up().inspect_err(|_| {
            group.kill();
        })?;
        let chunk = vec![0; CHUNK_BYTES];
        Ok(Worker {
            number,
            started: Instant::now(),
            group,
            stdin,
            unread,
            stdout,
            stderr,
            chunk,
            sent: 0,
            answered: false,
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Whether it has answered at least once.
    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Notes that its line was an answer.
    pub(super) fn set_answered(&mut self) {
        self.answered = true;
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Sends a request and returns the line that answers it, without its line end. After a problem the child can only
    /// be [closed](Worker::close).
    pub(super) fn exchange(&mut self, request: &[u8], limits: Limits) -> Result<Vec<u8>, Problem> {
        self.sent = 0;
        let mut line = Vec::new();
        match pipes::read(&mut self.stdout, &mut self.chunk)? {
            Moved::Bytes(count) => return Err(Problem::Unasked(shown(&self.chunk[..count]))),
            Moved::End => return Err(Problem::Ended { partial: false }),
            Moved::Nothing => {}
        }
        let begun = Instant::now();
        // When it was seen that the child has read everything. A child that still starts has time until then.
        let mut read = None;
        loop {
            self.send(request)?;
            if self.receive(&mut line)? {
                let line = self.whole_answer(line, request.len())?;
                self.sent = 0;
                return Ok(line);
            }
            let sending = self.sent < request.len();
            if read.is_none() && !sending && !pipes::has_bytes(&self.unread)? {
                read = Some(Instant::now());
            }
            let rest = match read {
                Some(read) => limits.rest_of_answer(read.elapsed())?,
                None => limits.rest_of_reading(begun.elapsed(), self.answered)?,
            };
            let writable = sending.then(|| self.stdin.as_fd());
            let ready = pipes::wait(&[self.stdout.as_fd()], writable, rest.min(CHECK_EVERY))?;
            // What it wrote before its end is read once more.
            if !ready && self.group.has_ended() && !self.receive(&mut line)? {
                return Err(Problem::Ended { partial: !line.is_empty() });
            }
        }
    }

    /// Writes as much of the request as there is room for.
    fn send(&mut self, request: &[u8]) -> Result<(), Problem> {
        while self.sent < request.len() {
            match pipes::write(&mut self.stdin, &request[self.sent..])? {
                Moved::Bytes(count) => self.sent += count,
                Moved::Nothing | Moved::End => break,
            }
        }
        Ok(())
    }

    /// Adds what there is to the line. Returns whether it has a line end.
    fn receive(&mut self, line: &mut Vec<u8>) -> Result<bool, Problem> {
        loop {
            match pipes::read(&mut self.stdout, &mut self.chunk)? {
                Moved::Bytes(count) => {
                    let part = &self.chunk[..count];
                    line.extend_from_slice(part);
                    if part.contains(&b'\n') {
                        return Ok(true);
                    }
                    if line.len() > MAX_ANSWER_BYTES {
                        return Err(Problem::TooLong);
                    }
                }
                Moved::Nothing => return Ok(false),
                Moved::End => return Err(Problem::Ended { partial: !line.is_empty() }),
            }
        }
    }

    /// The line, if it is the only one and answers the whole request.
    fn whole_answer(&self, mut line: Vec<u8>, request_bytes: usize) -> Result<Vec<u8>, Problem> {
        let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
        if end + 1 < line.len() {
            return Err(Problem::TwoAnswers(shown(&line[end + 1..])));
        }
        line.truncate(end);
        if self.sent < request_bytes || pipes::has_bytes(&self.unread)? {
            return Err(Problem::Early(shown(&line)));
        }
        if end > MAX_ANSWER_BYTES { Err(Problem::TooLong) } else { Ok(line) }
    }

    /// Ends the child and all that is left of its group.
    pub(super) fn close(self, problem: &Problem) -> Lost {
        let Worker { group, stdin, mut unread, stdout, stderr, sent, .. } = self;
        let by_itself = matches!(problem, Problem::Ended { .. }) && group.wait(EXIT_LIMIT);
        let (ending, _) = group.end(Duration::ZERO);
        drop((stdout, stderr, stdin));
        // The last writing end is closed, so this ends.
        let unread = io::copy(&mut unread, &mut io::sink()).unwrap_or_default();
        let begun = match problem {
            // Its line came after it had read everything, of which nothing is counted any longer.
            Problem::Garbage(_) => true,
            _ => unread < sent as u64,
        };
        let reason = match (problem, ending) {
            (Problem::Ended { partial: true }, Some(ending)) if by_itself => {
                format!("the child ended in the middle of an answer: {ending}")
            }
            (Problem::Ended { partial: false }, Some(ending)) if by_itself => {
                format!("the child ended before it answered: {ending}")
            }
            _ => problem.to_string(),
        };
        Lost { reason, begun }
    }

    /// Closes the child's standard input, which asks it to end.
    pub(super) fn ask_to_end(self) -> EndingWorker {
        let Worker { stdin, stdout, stderr, .. } = self;
        drop(stdin);
        EndingWorker { _stdout: stdout, _stderr: stderr }
    }
}

/// A child that was asked to end.
#[derive(Debug)]
pub(super) struct EndingWorker {
    /// Open, so that writing does not fail meanwhile.
    _stdout: ChildStdout,
    _stderr: StderrReader,
}

/// How long a child may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From when it has read a request until its answer; `None`: any time.
    pub(super) answer: Option<Duration>,
    /// Until it has read a request, its own start included.
    pub(super) reading: Duration,
}

impl Limits {
    /// The limits with this handler timeout.
    pub(super) fn new(answer: Option<Duration>) -> Limits {
        Limits { answer, reading: MAX_READ_TIME }
    }

    fn rest_of_answer(self, elapsed: Duration) -> Result<Duration, Problem> {
        self.answer.map_or(Ok(Duration::MAX), |limit| rest(limit, elapsed).ok_or(Problem::TimedOut(limit)))
    }

    /// A child that has answered before does not start any more, so it has no more time to read than to answer.
    fn rest_of_reading(self, elapsed: Duration, has_answered: bool) -> Result<Duration, Problem> {
        let limit = self.answer.filter(|_| has_answered).map_or(self.reading, |answer| answer.min(self.reading));
        rest(limit, elapsed).ok_or(Problem::NotRead(limit))
    }
}

fn rest(limit: Duration, elapsed: Duration) -> Option<Duration> {
    limit.checked_sub(elapsed).filter(|rest| !rest.is_zero())
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Pipe(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Ended { .. } => write!(f, "the child closed its standard output"),
            Problem::Unasked(text) => write!(f, "the child wrote {text} before it was given a message"),
            Problem::Early(text) => write!(f, "the child wrote {text} before it had read its message"),
            Problem::TwoAnswers(text) => write!(f, "the child answered twice, and wrote {text} after its answer"),
            Problem::Garbage(mistake) => write!(f, "the child's line is no answer: {mistake}"),
            Problem::TooLong => write!(f, "the child's answer is longer than {MAX_ANSWER_BYTES} bytes"),
            Problem::TimedOut(limit) => write!(f, "the child did not answer within {} ms", limit.as_millis()),
            Problem::NotRead(limit) => {
                write!(f, "the child did not read its message within {} ms", limit.as_millis())
            }
            Problem::Pipe(error) => write!(f, "a pipe to the child failed: {error}"),
        }
    }
}
