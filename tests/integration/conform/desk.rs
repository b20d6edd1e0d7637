//! The state of the scripted consumer: which connection is active, what is held, and what is queued for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncecast::base::id::MessageId;
use oncecast::wire::{ErrorCode, Field, Frame, NackDelay, ReadyFlags};

use super::consumer::Fault;

const PREFETCH: usize = 8;
pub const GROUP: &str = "conform";

/// What a handler returns.
pub enum Outcome {
    /// The field `message_id` of the result, or a result without fields.
    Result(Option<String>),
    /// The delay and the reason.
    Failure(u32, String),
}

/// The code to send before the connection is closed; `None` to close it at once.
pub type Refusal = Option<ErrorCode>;

#[derive(Default)]
struct Link {
    is_version_2: bool,
    led: bool,
    said_hello: bool,
    queued: Vec<u8>,
    closes: bool,
}

#[derive(Default)]
pub struct Desk {
    fault: Option<Fault>,
    highest: u64,
    active: Option<(usize, u64)>,
    links: BTreeMap<usize, Link>,
    held: BTreeSet<u64>,
    /// Results that may have to be sent again, as frames.
    kept: BTreeMap<u64, Vec<u8>>,
    /// Failures that no connection was there for, as frames.
    failed: BTreeMap<u64, Vec<u8>>,
}

impl Desk {
    pub fn new(fault: Option<Fault>) -> Desk {
        Desk { fault, ..Desk::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// A LEAD has come that nobody has judged yet.
    pub fn hear_of(&mut self, epoch: u64) {
        if self.has(Fault::RemembersUnproven) {
            self.highest = self.highest.max(epoch);
        }
    }

    pub fn connect(&mut self, link: usize, is_version_2: bool) {
        self.links.insert(link, Link { is_version_2, ..Link::default() });
    }

    pub fn disconnect(&mut self, link: usize) {
        self.links.remove(&link);
        if self.active.take_if(|(active, _)| *active == link).is_some() && self.has(Fault::ForgetsEpochWithLink) {
            self.highest = 0;
        }
    }

    /// What is to be written, and whether the connection is closed then.
    pub fn take_queued(&mut self, link: usize) -> Option<(Vec<u8>, bool)> {
        let link = self.links.get_mut(&link)?;
        Some((std::mem::take(&mut link.queued), link.closes))
    }

    fn queue(&mut self, link: usize, frame: &[u8]) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.closes) {
            link.queued.extend_from_slice(frame);
        }
    }

    pub fn refuse(&mut self, link: usize, code: ErrorCode) {
        let wrong = self.has(Fault::WrongErrorCode) && code == ErrorCode::Malformed;
        let code = if wrong { ErrorCode::Unexpected } else { code };
        self.queue(link, &Frame::Error { code, text: "by the protocol" }.to_vec());
        if let Some(link) = self.links.get_mut(&link) {
            link.closes = true;
        }
        self.active.take_if(|(active, _)| *active == link);
    }

    pub fn lead(&mut self, link: usize, epoch: u64, group: &str) -> Result<(), Refusal> {
        if self.links[&link].led {
            return if self.has(Fault::ToleratesSecondLead) { Ok(()) } else { Err(Some(ErrorCode::Unexpected)) };
        }
        if group != GROUP && !self.has(Fault::ServesAnyGroup) {
            return Err(Some(ErrorCode::Group));
        }
        if epoch < self.highest && !self.has(Fault::AcceptsLowerEpochs) {
            return Err(Some(ErrorCode::Stale));
        }
        let bound = (since_1970() + Duration::from_secs(24 * 3_600)).as_millis() as u64;
        if epoch > bound && !self.has(Fault::AcceptsAnyEpoch) {
            return Err(Some(ErrorCode::Stale));
        }
        if epoch <= bound {
            // If it remembered the others, it would refuse the leaders of all cases that follow.
            self.highest = self.highest.max(epoch);
        }
        if let Some((replaced, old)) = self.active.take()
            && !self.has(Fault::KeepsReplacedConnections)
        {
            self.refuse(replaced, if old == epoch { ErrorCode::Replaced } else { ErrorCode::Stale });
        }
        self.active = Some((link, epoch));
        self.links.get_mut(&link).expect("it is connected").led = true;
        self.greet(link);
        Ok(())
    }

    fn greet(&mut self, link: usize) {
        let consumer = if self.has(Fault::BadConsumerId) { "has spaces" } else { "scripted" };
        let ready = Frame::Ready { prefetch: PREFETCH as u32, flags: ReadyFlags::CHANNELS, consumer }.to_vec();
        let listed: BTreeSet<u64> =
            self.held.iter().chain(self.kept.keys()).chain(self.failed.keys()).copied().collect();
        let held = Frame::Held(listed.into_iter().map(MessageId).collect()).to_vec();
        let greeting = match self.fault {
            Some(Fault::NoHeld) => vec![ready],
            Some(Fault::HeldBeforeReady) => vec![held, ready],
            _ => vec![ready, held],
        };
        greeting.iter().for_each(|frame| self.queue(link, frame));
        let kept: Vec<Vec<u8>> = self.kept.values().cloned().collect();
        if !self.links[&link].is_version_2 {
            self.kept.clear();
        }
        let failed = std::mem::take(&mut self.failed).into_values();
        kept.into_iter().chain(failed).for_each(|frame| self.queue(link, &frame));
    }

    pub fn hello(&mut self, link: usize) -> Result<(), Refusal> {
        let tolerant = self.has(Fault::ToleratesSecondLead);
        let link = self.links.get_mut(&link).expect("it is connected");
        let fits = link.led && link.is_version_2 && (!std::mem::replace(&mut link.said_hello, true) || tolerant);
        if fits { Ok(()) } else { Err(Some(ErrorCode::Unexpected)) }
    }

    pub fn recorded(&mut self, link: usize, ids: &[MessageId]) -> Result<(), Refusal> {
        if !self.links[&link].is_version_2 {
            return Err(Some(ErrorCode::Unexpected));
        }
        let is_active = self.active.is_some_and(|(active, _)| active == link);
        if is_active && !self.has(Fault::IgnoresRecorded) {
            self.kept.retain(|id, _| !ids.contains(&MessageId(*id)));
        }
        Ok(())
    }

    /// Whether the message is to be run.
    pub fn accept(&mut self, link: usize, id: u64) -> Result<bool, Refusal> {
        if !self.links[&link].led {
            return Err(Some(ErrorCode::Unexpected));
        }
        let replaced = self.active.is_none_or(|(active, _)| active != link);
        if replaced && !self.has(Fault::KeepsReplacedConnections) {
            return Err(Some(ErrorCode::Stale));
        }
        let kept = if self.has(Fault::IgnoresRecorded) { 0 } else { self.kept.len() };
        if (self.held.contains(&id) && !self.has(Fault::RunsTwice)) || self.kept.contains_key(&id) {
            return Ok(false);
        }
        if self.held.len() + kept >= PREFETCH {
            return Err(Some(ErrorCode::OverPrefetch));
        }
        self.held.insert(id);
        Ok(true)
    }

    pub fn finish(&mut self, delivered_by: usize, id: u64, outcome: &Outcome) {
        self.held.remove(&id);
        let (is_result, frame) = frame_of(id, outcome);
        let target = match self.has(Fault::AnswersWhereDelivered) {
            true => Some(delivered_by),
            false => self.active.map(|(link, _)| link),
        };
        match target {
            Some(link) => {
                self.queue(link, &frame);
                let keeps = is_result && self.links.get(&link).is_some_and(|link| link.is_version_2);
                if keeps && !self.has(Fault::ForgetsSentResults) {
                    self.kept.insert(id, frame);
                }
            }
            None if is_result => drop(self.kept.insert(id, frame)),
            None if self.has(Fault::ForgetsFailures) => {}
            None => drop(self.failed.insert(id, frame)),
        }
    }

    /// Reports what is held, on a ping.
    pub fn report(&mut self, link: usize) {
        let is_active = self.active.is_some_and(|(active, _)| active == link);
        if is_active && !self.held.is_empty() && !self.has(Fault::NoProgress) {
            let ids = self.held.iter().copied().map(MessageId).collect();
            self.queue(link, &Frame::Progress(ids).to_vec());
        }
    }
}

/// The frame that answers a message, and whether it is a result.
fn frame_of(id: u64, outcome: &Outcome) -> (bool, Vec<u8>) {
    let id = MessageId(id);
    match outcome {
        Outcome::Result(value) => {
            let field = |value: &'static str, text| Field { name: value.as_bytes(), value: text };
            let fields = value.iter().map(|text| field("message_id", text.as_bytes())).collect();
            (true, Frame::Result { id, fields }.to_vec())
        }
        Outcome::Failure(delay, reason) => {
            (false, Frame::Nack { id, delay: NackDelay::of_wire(*delay), reason }.to_vec())
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}
