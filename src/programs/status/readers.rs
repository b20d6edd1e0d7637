//! Reads the status of each lane of a group, again and again.
//!
//! Runs on the caller's thread, and with a thread for each lane but one while they are read. A node that does not
//! answer holds up the figures of other lanes only once: from then on its lanes are given [`AGAIN_TIME`], and are asked
//! again after four times as long as that took, while others answer.
//!
//! Limitation: lanes that are new are not seen while lane 0, which lists them, can't be read.

use std::thread;
use std::time::{Duration, Instant};

use super::lanes::Seen;
use super::reader::StatusReader;
use super::settings::StatusConfig;
use super::state::Status;
use crate::base::error::{Error, Result};
use crate::ledger::{Connection, LaneNumber};
use crate::programs::lanes::{FoundLanes, LaneConfig, lanes_now, lanes_to_show};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// The same for a lane that could not be read, and for whether there are other lanes by now.
const AGAIN_TIME: Duration = Duration::from_secs(1);
/// How often it is looked whether there are other lanes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module's text.
pub(super) struct Readers<'a> {
    config: &'a StatusConfig,
    /// Those found last, the lowest first.
    lanes: Vec<LaneReader>,
    /// When they were looked for.
    looked: Option<Instant>,
    /// What was logged about lanes that can't be found.
    warned: Vec<String>,
    /// The stream that the group delivers to, as lane 0 said last.
    stream: Option<String>,
}

/// Reads one lane.
struct LaneReader {
    lane: LaneConfig,
    reader: StatusReader,
    max_age: Duration,
    /// Why it could not be read the last time.
    failure: Option<Failure>,
}

struct Failure {
    problem: String,
    /// Until then it is not asked again.
    again_at: Instant,
}

impl<'a> Readers<'a> {
    pub(super) fn new(config: &'a StatusConfig) -> Readers<'a> {
        Readers { config, lanes: Vec::new(), looked: None, warned: Vec::new(), stream: None }
    }

    /// The status of each lane now, the lowest first, or why a lane's node gives none. An error if no node does.
    pub(super) fn read(&mut self) -> Result<Vec<(LaneNumber, Seen)>> {
        if self.lanes.is_empty() {
            let found = lanes_to_show(&self.config.common, REPLY_TIME)?;
            self.take(found);
        }
        let mut outcomes: Vec<(LaneNumber, Result<Status>)> = Vec::with_capacity(self.lanes.len());
        // Lane 0 goes first, because it knows the stream and the other lanes; unless the others would wait for it.
        let home = self.lanes.first_mut().filter(|home| home.lane.number == 0 && home.failure.is_none());
        let is_read_first = home.is_some();
        if let Some(home) = home {
            let status = home.read(None);
            if let Ok(status) = &status {
                self.stream = status.stream().map(str::to_owned);
            }
            outcomes.push((0, status));
        }
        if outcomes.iter().all(|(_, outcome)| outcome.is_ok()) {
            self.look_again();
        }
        outcomes.extend(self.read_at_once(usize::from(is_read_first)));
        let mut failure = None;
        let mut seen = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let at = outcomes.iter().position(|(number, _)| *number == lane.lane.number);
            let status = match at.map(|at| outcomes.swap_remove(at).1) {
                Some(Err(error)) => {
                    let problem = error.to_string();
                    failure.get_or_insert(error);
                    Err(problem)
                }
                Some(Ok(status)) => Ok(status),
                None => Err(lane.failure.as_ref().map(|failure| failure.problem.clone()).unwrap_or_default()),
            };
            seen.push((lane.lane.number, status));
        }
        match failure {
            Some(error) if seen.iter().all(|(_, status)| status.is_err()) => Err(error),
            _ => Ok(seen),
        }
    }

    /// Reads the lanes from this one on, each on a thread of its own, but for those that need not be asked yet.
    fn read_at_once(&mut self, first: usize) -> Vec<(LaneNumber, Result<Status>)> {
        let some_answer = self.lanes.iter().any(|lane| lane.failure.is_none());
        let now = Instant::now();
        let (keys, stream) = (&self.config.common.keys, self.stream.as_deref());
        let due = |lane: &&mut LaneReader| {
            !some_answer || lane.failure.as_ref().is_none_or(|failure| failure.again_at <= now)
        };
        thread::scope(|scope| {
            let asked: Vec<_> = self.lanes[first..]
                .iter_mut()
                .filter(due)
                .map(|lane| {
                    let number = lane.lane.number;
                    // No dispatcher reports on a lane that has drained, but its entries are still there.
                    let stream = stream.and_then(|stream| keys.clone().with_stream(stream).lane(number)?.stream);
                    let thread = thread::Builder::new().name(format!("lane-{number}"));
                    (number, thread.spawn_scoped(scope, move || lane.read(stream)))
                })
                .collect();
            let outcome = |(number, thread): (LaneNumber, std::io::Result<thread::ScopedJoinHandle<'_, _>>)| {
                let thread = thread.map_err(Error::io(format!("starting the thread lane-{number}")));
                let panicked = |_| Err(Error::Failed(format!("reading lane {number} failed")));
                (number, thread.and_then(|thread| thread.join().unwrap_or_else(panicked)))
            };
            asked.into_iter().map(outcome).collect()
        })
    }

    /// Looks whether there are other lanes, unless that was done just now. If nobody says, those that are known stay.
    fn look_again(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        match lanes_now(&self.config.common, AGAIN_TIME) {
            Ok(found) => self.take(found),
            Err(_) => self.looked = Some(Instant::now()),
        }
    }

    fn take(&mut self, found: FoundLanes) {
        self.looked = Some(Instant::now());
        for warning in found.warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            log::warn!("event=lanes-unknown {warning}");
        }
        self.warned = found.warnings;
        let mut known = std::mem::take(&mut self.lanes);
        let of = |lane: LaneConfig| match known.iter().position(|reader| reader.lane.number == lane.number) {
            Some(at) => known.swap_remove(at),
            None => LaneReader::new(lane, self.config.max_age),
        };
        self.lanes = found.lanes.into_iter().map(of).collect();
    }
}

impl LaneReader {
    fn new(lane: LaneConfig, max_age: Duration) -> LaneReader {
        let reader = reader(&lane, max_age, REPLY_TIME);
        LaneReader { lane, reader, max_age, failure: None }
    }

    /// The status of the lane, which delivers to this stream unless a leader reports another.
    fn read(&mut self, stream: Option<String>) -> Result<Status> {
        let began = Instant::now();
        self.reader.assume_stream(stream);
        let status = self.reader.read();
        let had_failed = self.failure.is_some();
        self.failure = status.as_ref().err().map(|error| {
            let again_at = Instant::now() + 4 * began.elapsed();
            Failure { problem: error.to_string(), again_at }
        });
        if had_failed != self.failure.is_some() && self.lane.is_one_of_several {
            let limit = if had_failed { REPLY_TIME } else { AGAIN_TIME };
            self.reader = reader(&self.lane, self.max_age, limit);
        }
        status
    }
}

fn reader(lane: &LaneConfig, max_age: Duration, limit: Duration) -> StatusReader {
    let common = &lane.common;
    let connection = Connection::new(common.redis.for_key(&common.keys.leader), limit);
    StatusReader::new(connection, common.keys.clone(), max_age).without_scripts()
}
