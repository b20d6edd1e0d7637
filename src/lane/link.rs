//! A link: the connection to one consumer as the courier sees it, with what the consumer holds.
//!
//! What waits to be written is bounded, because a consumer is given at most its prefetch and at most [`LINK_BYTES`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tungstenite::WebSocket;

mod frame_socket;

use self::frame_socket::{CHUNK_BYTES, FrameSocket};
pub(super) use self::frame_socket::{EndReason, Incoming};
use super::greeting::{Greeted, MAX_PREFETCH};
use super::handshake::Subprotocol;
use super::places::{LINK_BYTES, Places, TakenPlace};
use super::roster::MemberId;
use super::stats::{LinkFigures, set};
use super::strays::Strays;
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition};
use crate::base::id::{IdSet, MessageId};
use crate::ledger::{DeliveryNumber, Pending};
use crate::net::Stream;
use crate::wire::{self, Frame, ReadyFlags};

/// How long after its last answer a consumer is expected to make room for a whole bundle. Then it is given a part.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(20);
/// A consumer that may hold fewer is given bundles in parts: it would be idle while it waits for room for a whole one.
const LEAST_PREFETCH: u32 = 4 * BUNDLE_MESSAGES as u32;

/// Within this time a consumer answers soon. Most often it has worked on the message for much less, because ACKs are
/// written together for a while. If not, a message behind three others waits for about three times this.
const SOON: Duration = Duration::from_millis(2);

/// Ids in one RECORDED, so that it fills about one message.
const IDS_PER_RECORDED: usize = CHUNK_BYTES / 8;

/// Bytes of results of one consumer without Redis that may wait to be recorded. Beyond that, its link is not read.
const LINK_RESULT_BYTES: usize = 4 << 20;
/// The same for all consumers together; beyond it no link with waiting results is read.
const MAX_RESULT_BYTES: usize = 32 << 20;

/// A link on which the consumer has answered.
pub(super) struct NewLink {
    pub(super) member: MemberId,
    /// The consumer's address.
    pub(super) address: Arc<str>,
    /// Whether whoever reaches the consumer may claim to be its dispatcher, as far as can be told from here.
    pub(super) is_open: bool,
    pub(super) greeted: Greeted,
}

/// See the module's text.
pub(super) struct Link {
    pub(super) serial: u64,
    pub(super) consumer: Arc<str>,
    pub(super) flags: ReadyFlags,
    pub(super) draining: bool,
    /// Whether the consumer is no longer on the roster: it is given nothing more.
    pub(super) leaving: bool,
    pub(super) last_heard: Instant,
    /// When the consumer last answered for a message.
    answered: Instant,
    /// How long the last message took whose result was recorded, since it was delivered.
    finished_in: Option<Duration>,
    pub(super) figures: Arc<LinkFigures>,
    pub(super) places: Places,
    pub(super) strays: Strays,
    /// Bytes of results that the consumer has sent and that wait to be recorded.
    pub(super) result_bytes: usize,
    subprotocol: Subprotocol,
    /// What the consumer listed in HELD, if it keeps results until they are confirmed. It answers for each once more,
    /// also for messages that are done.
    listed: IdSet,
    /// Answers to confirm that are not yet written.
    confirmations: Vec<MessageId>,
    pub(super) socket: FrameSocket,
    /// The suspect that the consumer was given, until it has released it.
    suspect: Option<MessageId>,
}

impl Link {
    /// `strays_paid_until` continues the rate limit of the consumer's last link.
    pub(super) fn new(new: NewLink, serial: u64, strays_paid_until: Option<Instant>) -> Link {
        let now = Instant::now();
        let Greeted { socket, subprotocol, consumer, prefetch, flags, .. } = new.greeted;
        let consumer: Arc<str> = consumer.into();
        let figures = LinkFigures {
            consumer: consumer.clone(),
            slot: new.member.slot,
            address: new.address,
            is_open: new.is_open,
            prefetch: AtomicU64::new(prefetch.into()),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            acked: AtomicU64::new(0),
        };
        Link {
            serial,
            consumer,
            figures: Arc::new(figures),
            flags,
            draining: false,
            leaving: false,
            last_heard: now,
            answered: now,
            finished_in: None,
            places: Places::new(prefetch, subprotocol == Subprotocol::Two),
            strays: Strays::new(prefetch, strays_paid_until, now),
            result_bytes: 0,
            subprotocol,
            listed: IdSet::default(),
            confirmations: Vec::new(),
            socket: FrameSocket::new(socket, now),
            suspect: None,
        }
    }

    /// Returns the connection, so that it can be closed properly.
    pub(super) fn into_socket(self) -> WebSocket<Stream> {
        self.socket.into_inner()
    }

    /// Whether the consumer has room for a message of `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.places.taken() == 0 || self.places.bytes() + bytes <= LINK_BYTES;
        !self.draining && !self.leaving && self.places.room() > 0 && fits
    }

    /// Whether the consumer has room for a message, and for the rest of the bundle that begins with it. If not for
    /// that, the answers for what it works on will make room, so that it gets the bundle whole.
    pub(super) fn has_room_for(&self, message: &Pending) -> bool {
        let begins = message.body.position().is_some_and(BundlePosition::is_first);
        let is_short = self.places.prefetch() >= LEAST_PREFETCH && self.places.room() < BUNDLE_MESSAGES;
        let waits = || self.places.in_hand() > 0 && self.answered.elapsed() < WAIT_FOR_ROOM;
        self.has_room(message.body.bytes()) && !(begins && is_short && waits())
    }

    /// Whether the consumer records results itself, and removes bundles as a whole.
    pub(super) fn removes_bundles(&self) -> bool {
        self.flags.commits() && self.flags.takes_bundles()
    }

    /// Whether a message must be taken out of its bundle before it goes to this consumer, which records results itself
    /// and knows no bundles.
    pub(super) fn needs_alone(&self, message: &Pending) -> bool {
        message.body.position().is_some() && self.flags.commits() && !self.flags.takes_bundles()
    }

    /// Whether the consumer is given nothing more, since it is no longer on the roster.
    pub(super) fn set_leaving(&mut self, leaving: bool) {
        self.leaving = leaving;
        self.figures.leaving.store(leaving, Ordering::Relaxed);
    }

    /// Whether the consumer has answered for everything that it still reports, and was sent every confirmation.
    pub(super) fn is_finished(&self) -> bool {
        self.places.is_idle() && self.result_bytes == 0 && self.confirmations.is_empty()
    }

    /// Whether the consumer has no room for another message and, as far as is known, works on none.
    pub(super) fn is_stuck(&self) -> bool {
        // Below this, any message fits.
        const FULL_BYTES: usize = LINK_BYTES - wire::MAX_BODY_BYTES;
        self.places.is_idle() && (self.places.room() == 0 || self.places.bytes() > FULL_BYTES)
    }

    /// Whether the link may be read. Results that wait to be recorded hold up only their own link. If there are too
    /// many in all, they hold up every link that has some.
    pub(super) fn is_read(&self, all_result_bytes: usize) -> bool {
        let most = if all_result_bytes < MAX_RESULT_BYTES { LINK_RESULT_BYTES } else { 1 };
        self.result_bytes < most
    }

    /// Whether the consumer has room for this message and does not still hold it. If it does, another link may be
    /// better.
    pub(super) fn is_natural_for(&self, message: &Pending) -> bool {
        self.has_room_for(message) && !self.still_holds(message)
    }

    /// Whether the consumer holds a suspect. It is then given no other.
    pub(super) fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// The next message for the consumer is a suspect.
    pub(super) fn note_suspect(&mut self, id: MessageId) {
        self.suspect = Some(id);
    }

    /// Whether the consumer still holds a message that is delivered again.
    pub(super) fn still_holds(&self, message: &Pending) -> bool {
        message.delivery > 1 && self.places.get(message.id).is_some()
    }

    /// Whether this consumer uses a lower share of its prefetch than `other`.
    pub(super) fn is_freer_than(&self, other: &Link) -> bool {
        let weigh = |one: &Places, other: &Places| one.taken() as u64 * u64::from(other.prefetch());
        weigh(&self.places, &other.places) < weigh(&other.places, &self.places)
    }

    /// Whether the consumer was done soon with the last message, so that a few don't wait long for each other.
    pub(super) fn answers_soon(&self) -> bool {
        self.finished_in.is_some_and(|took| took <= SOON)
    }

    /// Delivers a message to the consumer.
    pub(super) fn deliver(&mut self, message: &Pending, now: Instant) -> Result<(), EndReason> {
        // Done first, so that the message comes back with the others if the link fails below.
        self.places.give(message, now);
        let &Pending { id, delivery, ref body } = message;
        let frame = match body.joined() {
            (channel_bytes, joined) if let Some(position) = body.position().filter(|_| self.removes_bundles()) => {
                Frame::Part { id, delivery, position, channel_bytes: channel_bytes.unwrap_or(0), joined }
            }
            (Some(channel_bytes), joined) if self.flags.takes_channels() => {
                Frame::Deliver { id, delivery, channel_bytes, joined }
            }
            _ => Frame::Process { id, delivery, body: body.payload() },
        };
        self.socket.gather(&frame, body.bytes())
    }

    /// Whether the consumer speaks [`Subprotocol::Two`]. It then keeps each result until it is confirmed.
    pub(super) fn confirms(&self) -> bool {
        self.subprotocol == Subprotocol::Two
    }

    /// The consumer need keep no result for this message: its answer is recorded in Redis or has no effect.
    pub(super) fn confirm(&mut self, id: MessageId) {
        if self.confirms() {
            self.confirmations.push(id);
        }
    }

    /// Writes the confirmations that wait. Returns how many these were.
    pub(super) fn write_confirmations(&mut self) -> Result<usize, EndReason> {
        let ids = std::mem::take(&mut self.confirmations);
        for ids in ids.chunks(IDS_PER_RECORDED) {
            self.socket.gather(&Frame::Recorded(ids.to_vec()), 8 * ids.len())?;
        }
        Ok(ids.len())
    }

    /// The consumer has listed these in HELD.
    pub(super) fn note_listed(&mut self, ids: &[MessageId]) {
        if self.confirms() {
            self.listed.extend(ids);
        }
    }

    /// The result of this message is to be recorded.
    pub(super) fn record(&mut self, id: MessageId) {
        self.places.record(id);
        self.listed.remove(&id);
    }

    /// Whether an answer without a place for this message is no mistake: the consumer has listed the message in HELD,
    /// and kept the result because it was not confirmed. Each listed id excuses its first answer.
    pub(super) fn excuses(&mut self, id: MessageId) -> bool {
        self.listed.remove(&id)
    }

    /// Handles CREDIT.
    pub(super) fn set_prefetch(&mut self, prefetch: u32) {
        let prefetch = prefetch.min(MAX_PREFETCH);
        self.places.set_prefetch(prefetch);
        self.strays.raise(prefetch);
        set(&self.figures.prefetch, prefetch.into());
    }

    /// The consumer has answered for a message, which frees its place. `None`: it had no place.
    pub(super) fn answer(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.places.answer(id)?;
        self.answered = Instant::now();
        self.listed.remove(&id);
        self.suspect.take_if(|suspect| *suspect == id);
        Some(held)
    }

    /// The same if the result of the message is recorded.
    pub(super) fn finish(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.answer(id)?;
        self.finished_in = Some(held.age(self.answered));
        Some(held)
    }

    /// Takes out the messages that the consumer has not reported for `limit`.
    pub(super) fn take_overdue(&mut self, limit: Duration, now: Instant) -> Vec<(MessageId, DeliveryNumber)> {
        if self.socket.is_congested() {
            // The messages may not have been sent yet. `reads_nothing` decides whether the peer reads at all.
            return Vec::new();
        }
        let overdue = self.places.expire(limit, now);
        // A suspect that hangs for ever must not keep all other suspects waiting.
        self.suspect.take_if(|suspect| overdue.iter().any(|(id, _)| id == suspect));
        overdue
    }

    /// The link was not read for a while. So the consumer counts as having reported and read everything.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.last_heard = now;
        self.places.received(now);
        self.socket.excuse(now);
    }

    /// Takes out all messages that are at this consumer as far as the leader is concerned.
    pub(super) fn take_attached(&mut self) -> Vec<(MessageId, DeliveryNumber)> {
        self.suspect = None;
        self.places.take_attached()
    }

    /// Writes the gathered frames, as far as the socket accepts them.
    pub(super) fn flush(&mut self) -> Result<(), EndReason> {
        if self.socket.flush()? {
            // The consumer has been sent everything only now.
            self.places.received(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
