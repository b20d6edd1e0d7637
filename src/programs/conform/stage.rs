//! A case's connections. Reads them all while a step waits, pings them as a dispatcher does, and checks what every
//! frame must keep, whichever case runs: the order of READY and HELD, that the frame is a consumer's, that it names
//! only messages that were delivered, and that nothing follows an ERROR.
//!
//! Everything is bounded: each wait has a deadline, and a case may receive [`MAX_FRAMES`] and [`MAX_BYTES`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::case::{LinkName, Local};
use super::group::Group;
use super::handshake::Offer;
use super::heard::{Answer, Heard, heard};
use super::link::{Greeting, Link};
use super::peer::{Arrival, ConnectError, Peer};
use super::report::Failure;
use super::target::Target;
use crate::base::id::MessageId;
use crate::wire::{self, Frame};

/// The most frames that a consumer may send in one case.
const MAX_FRAMES: usize = 200_000;
/// The most bytes.
const MAX_BYTES: usize = 256 << 20;
/// How often a connection gets a ping. The shortest link timeout for which this is right is 1.5 s.
const PING_EVERY: Duration = Duration::from_millis(500);
/// How long one connection is read before the next one's turn.
const READ_FOR: Duration = Duration::from_millis(4);
/// The most lines of a transcript.
const MAX_LINES: usize = 40;

/// What has arrived, and where.
pub(super) struct Entry {
    pub(super) link: LinkName,
    pub(super) heard: Heard,
    /// A step has waited for it and got it.
    pub(super) used: bool,
}

/// See the module's text.
pub(super) struct Stage<'a> {
    pub(super) target: &'a mut Target,
    pub(super) group: &'a mut Group,
    pub(super) links: BTreeMap<LinkName, Link>,
    pub(super) entries: Vec<Entry>,
    /// The ids of the case's messages.
    pub(super) ids: BTreeMap<Local, u64>,
    /// Whether results are confirmed as soon as they arrive.
    confirms: bool,
    /// Results that a consumer with subprotocol `oncecast.2` must keep.
    pub(super) unconfirmed: BTreeSet<u64>,
    /// Results that need not be kept any longer.
    pub(super) confirmed: BTreeSet<u64>,
    /// The epoch that the case counts from.
    pub(super) epoch: u64,
    /// What went over the connections, newest last.
    pub(super) transcript: Vec<String>,
    bytes: usize,
    /// The consumer may hold messages from before the run.
    tolerant: bool,
    violation: Option<String>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(target: &'a mut Target, group: &'a mut Group, confirms: bool) -> Stage<'a> {
        Stage {
            epoch: target.next_epoch(),
            target,
            group,
            links: BTreeMap::new(),
            entries: Vec::new(),
            ids: BTreeMap::new(),
            confirms,
            unconfirmed: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            transcript: Vec::new(),
            bytes: 0,
            tolerant: false,
            violation: None,
        }
    }

    pub(super) fn connect(&mut self, name: &str, offer: &Offer<'_>) -> Result<(), ConnectError> {
        let peer = self.target.connect(offer)?;
        self.note(format!("{name} connected"));
        self.links.insert(name.to_owned(), Link::new(peer, offer.nonce.as_deref()));
        Ok(())
    }

    /// Accepts ids that were not delivered in this run.
    pub(super) fn tolerates_unknown_ids(&mut self) {
        self.tolerant = true;
    }

    /// Whether every message that was delivered or listed is answered, and every result confirmed.
    pub(super) fn is_settled(&self) -> bool {
        let mut open: BTreeSet<u64> = self.ids.values().copied().collect();
        for entry in &self.entries {
            match &entry.heard {
                Heard::Held(ids) => open.extend(ids),
                Heard::Answer { id, .. } => {
                    open.remove(id);
                }
                _ => {}
            }
        }
        open.is_empty() && self.unconfirmed.is_empty()
    }

    /// Adds a line to the transcript.
    pub(super) fn note(&mut self, line: String) {
        if self.transcript.last() != Some(&line) {
            self.transcript.push(line);
        }
        if self.transcript.len() > MAX_LINES {
            self.transcript.remove(0);
        }
    }

    /// Notes the frames in what is being sent.
    pub(super) fn note_sent(&mut self, name: &str, message: &[u8]) {
        for frame in wire::frames(message) {
            match frame {
                Ok(frame) => self.note(format!("{name} D→C {frame}")),
                Err(error) => self.note(format!("{name} D→C not a frame: {error}")),
            }
        }
    }

    /// Reads until `found` gives something or the time is over; `None` if it is over.
    pub(super) fn wait<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&mut Stage<'_>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(violation) = self.violation.take() {
                return Err(Failure::new("what a consumer may send", violation));
            }
            if let Some(found) = found(self) {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.read_all();
        }
    }

    fn read_all(&mut self) {
        let names: Vec<LinkName> = self.links.keys().cloned().collect();
        let mut read = false;
        for name in names {
            read |= self.read(&name);
        }
        if !read {
            std::thread::sleep(READ_FOR);
        }
    }

    /// Reads one message from this connection, if it is open.
    fn read(&mut self, name: &str) -> bool {
        let Some(link) = self.links.get_mut(name).filter(|link| !link.frozen && link.ended.is_none()) else {
            return false;
        };
        let Some(peer) = &mut link.peer else { return false };
        if link.greeting == Greeting::Held && link.pinged.elapsed() >= PING_EVERY {
            link.pinged = Instant::now();
            // The next read reports the end of the connection.
            let _ = peer.ping(Vec::new());
        }
        match peer.read(READ_FOR) {
            Arrival::Binary(message) => self.take(name, &message),
            Arrival::Pong(said) => link.pongs.push(said.to_vec()),
            Arrival::Wrong(what) => self.violate(name, &what),
            Arrival::End(why) => {
                link.ended = Some(why.clone());
                self.note(format!("{name} ended: {why}"));
            }
            Arrival::Other | Arrival::Nothing => {}
        }
        true
    }

    fn violate(&mut self, name: &str, what: &str) {
        self.violation.get_or_insert_with(|| format!("on {name}: {what}"));
        // What follows may be anything.
        if let Some(link) = self.links.get_mut(name) {
            link.ended = Some(what.to_owned());
        }
    }

    /// Takes a message's frames apart and checks them.
    fn take(&mut self, name: &str, message: &[u8]) {
        self.bytes += message.len();
        for frame in wire::frames(message) {
            let outcome = match &frame {
                Err(error) => Err(format!("not a frame: {error}")),
                Ok(frame) => {
                    self.note(format!("{name} C→D {frame}"));
                    if matches!(frame, Frame::Results(_) | Frame::Credit { .. }) && !self.link(name).is_version_2() {
                        return self.violate(name, &format!("{} without oncecast.2", frame.name()));
                    }
                    heard(frame).map_err(|command| format!("{command}, which only a dispatcher sends"))
                }
            };
            let outcome = outcome.and_then(|all| all.into_iter().try_for_each(|heard| self.enter(name, heard)));
            if let Err(problem) = outcome {
                return self.violate(name, &problem);
            }
        }
        if self.confirms {
            let ids: Vec<u64> = self.unconfirmed.iter().copied().collect();
            // If it can't be written, the connection has ended, which the next read reports.
            let _ = self.confirm(name, &ids);
        }
        if self.entries.len() > MAX_FRAMES || self.bytes > MAX_BYTES {
            self.violate(name, "more than any consumer sends in so short a time");
        }
    }

    fn enter(&mut self, name: &str, heard: Heard) -> Result<(), String> {
        let link = self.links.get_mut(name).expect("it was read");
        let is_version_2 = link.is_version_2();
        if link.errored {
            return Err("a frame after ERROR".to_owned());
        }
        match (&heard, link.greeting) {
            (Heard::Error { .. }, _) => link.errored = true,
            (Heard::Ready { .. }, Greeting::Led) => link.greeting = Greeting::Ready,
            (Heard::Held(_), Greeting::Ready) => link.greeting = Greeting::Held,
            (_, Greeting::NotLed) => return Err("a frame before LEAD".to_owned()),
            (_, Greeting::Led) => return Err("another frame where READY is expected".to_owned()),
            (_, Greeting::Ready) => return Err("another frame where HELD is expected".to_owned()),
            (Heard::Ready { .. } | Heard::Held(_), Greeting::Held) => return Err("a second READY or HELD".to_owned()),
            _ => {}
        }
        let named: &[u64] = match &heard {
            Heard::Answer { id, .. } => &[*id],
            Heard::Held(ids) | Heard::Progress(ids) => ids,
            _ => &[],
        };
        if self.tolerant {
            named.iter().for_each(|id| self.target.learn(*id));
        }
        if let Some(unknown) = named.iter().find(|id| !self.target.knows(**id)) {
            return Err(format!("the id {unknown}, which was never delivered"));
        }
        if let Heard::Answer { id, answer } = &heard
            && is_version_2
            && (matches!(answer, Answer::Result(_)) || (*answer == Answer::Ack && !self.target.facts.records))
        {
            self.unconfirmed.insert(*id);
        }
        self.entries.push(Entry { link: name.to_owned(), heard, used: false });
        Ok(())
    }

    /// Sends RECORDED for these messages.
    pub(super) fn confirm(&mut self, name: &str, ids: &[u64]) -> Result<(), Failure> {
        let ids: Vec<u64> = ids.iter().copied().filter(|id| self.unconfirmed.remove(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.confirmed.extend(&ids);
        let frame = Frame::Recorded(ids.into_iter().map(MessageId).collect()).to_vec();
        self.note_sent(name, &frame);
        self.send(name, |peer| peer.send(frame))
    }

    /// The connection of this name; the cases connect before they use one, which a test checks.
    pub(super) fn link(&mut self, name: &str) -> &mut Link {
        self.links.get_mut(name).expect("a case uses a connection only after connecting it")
    }

    /// Sends with this function, and reports a connection that is gone.
    pub(super) fn send(
        &mut self,
        name: &str,
        send: impl FnOnce(&mut Peer) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let link = self.link(name);
        let sent = match &mut link.peer {
            Some(peer) => send(peer),
            None => Err("it was closed here".to_owned()),
        };
        sent.map_err(|problem| Failure::new(format!("the connection {name} to be open"), problem))
    }

    /// Takes the first unused entry of a connection for which `take` gives something.
    pub(super) fn first<T>(&mut self, name: &str, mut take: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let mut unused = self.entries.iter_mut().filter(|entry| !entry.used && entry.link == name);
        unused.find_map(|entry| {
            let taken = take(&entry.heard);
            entry.used = taken.is_some();
            taken
        })
    }

    /// What a failed step got: the last lines from the consumer since the step began, or nothing.
    pub(super) fn since(&self, begin: usize, name: &str) -> String {
        let new = self.transcript.iter().skip(begin.min(self.transcript.len()));
        let lines: Vec<&String> = new.filter(|line| line.contains("C→D") || line.contains(" ended: ")).collect();
        let last: Vec<String> = lines.iter().rev().take(4).rev().map(|line| (*line).clone()).collect();
        match self.links.get(name).and_then(|link| link.ended.as_ref()) {
            _ if !last.is_empty() => last.join("; "),
            Some(why) => format!("the end of the connection: {why}"),
            None => "nothing in time".to_owned(),
        }
    }
}
