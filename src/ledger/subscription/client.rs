//! The subscription of a dispatcher: one connection subscribed to the users' channel, the control channel and the
//! dispatcher's alive channel, so that everything arrives in the order in which Redis sends it.
//!
//! Owned by the listener's thread. It uses RESP3, because a RESP3 connection with subscriptions may also PING and
//! PUBLISH, and parses messages directly in the receive buffer; small ones that arrive together share an allocation
//! (see `gathering`). No message is skipped silently: a broken connection is an error, and messages after the break
//! belong to the next subscription.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::gathering::Gathering;
use super::own_events::OwnEvents;
use super::seen::{Batch, Seen};
use crate::base::error::{Error, Result, Step};
use crate::base::failure::Failure;
use crate::base::id::DispatcherId;
use crate::base::text::Quoted;
use crate::ledger::command::{Command, command};
use crate::ledger::cursor::Marker;
use crate::ledger::keys::Keys;
use crate::ledger::notice::Notice;
use crate::ledger::resp::{EXCERPT_BYTES, Received, Unreadable, receive};
use crate::ledger::server::{CONNECT_TIMEOUT, Server, not_redis};
use crate::ledger::session::{BufferSize, Session};
use crate::net::Wait;
use crate::wire::MAX_BODY_BYTES;

/// What a dispatcher subscribes to, and where.
#[derive(Clone, Debug)]
pub struct Channels {
    /// The server.
    pub server: Server,
    /// The group's keys.
    pub keys: Arc<Keys>,
    /// The channel that users publish on.
    pub published: String,
    /// The dispatcher whose alive channel is subscribed.
    pub dispatcher: DispatcherId,
}

/// See the module's text.
pub struct Subscription {
    session: Session,
    server: Server,
    published: Vec<u8>,
    control: Vec<u8>,
    /// What the present read has found.
    gathering: Gathering,
    /// Bytes of an oversize message still to be skipped.
    skip: u64,
    /// Replies to SUBSCRIBE and to the join marker's PUBLISH that have not arrived yet.
    unanswered: usize,
    /// The numbers of the pings whose pongs have not arrived, in order. Bounded, because the listener sends few.
    pings: VecDeque<u64>,
    /// Whether it was logged that a dispatcher of the group subscribes to another channel.
    warned_of_channel: bool,
    /// Recognises events about the group's own keys.
    own_events: Option<OwnEvents>,
    /// Whether it was logged that another program publishes on the control channel, which may happen often.
    warned_of_stranger: bool,
}

/// One for each channel, and one for the marker.
const SET_UP_ANSWERS: usize = 4;

/// What `CLIENT LIST` shows as the name of a dispatcher's subscription; its id follows.
pub const CLIENT_NAME_PREFIX: &str = "oncecast:";

/// The receive buffer: room for the largest message, and the channel's name before it.
const BUFFER: BufferSize = BufferSize { least_bytes: 256 << 10, most_bytes: 2 * MAX_BODY_BYTES };

/// The step that errors name most of the time.
const READING: &str = "reading the subscription";

impl Subscription {
    /// Connects, subscribes, and publishes the join marker in the same write. `patience` is how long a read waits.
    ///
    /// The greeting selects the database, switches to RESP3, and names the connection. Channels don't depend on
    /// databases, but a database that the commands can't use is a wrong setting, and must not look like a working
    /// subscription.
    pub fn open(channels: &Channels, join: &Marker, patience: Duration) -> Result<Subscription> {
        const SUBSCRIBING: &str = "subscribing";
        let (server, keys) = (channels.server.clone(), &channels.keys);
        let name = format!("{CLIENT_NAME_PREFIX}{}", channels.dispatcher);
        let session = Session::open(&server, CONNECT_TIMEOUT, BUFFER, |greeting| {
            command(greeting, &["HELLO", "3", "SETNAME", &name]);
            1
        })?;
        let mut subscription = Subscription {
            session,
            server,
            published: channels.published.clone().into_bytes(),
            control: keys.control.clone().into_bytes(),
            gathering: Gathering::default(),
            skip: 0,
            unanswered: SET_UP_ANSWERS,
            pings: VecDeque::new(),
            own_events: OwnEvents::on(&channels.published, keys, channels.server.database()),
            warned_of_channel: false,
            warned_of_stranger: false,
        };
        let alive = format!("{}{}", keys.alive_prefix, channels.dispatcher);
        let subscribe = Command::of(&["SUBSCRIBE", &channels.published, &keys.control, &alive]);
        let notice = Notice::Marker(join.clone(), channels.published.clone());
        let publish = Command::of(&["PUBLISH", &keys.control, &notice.to_string()]);
        subscription.send(SUBSCRIBING, &[subscribe.into_bytes(), publish.into_bytes()].concat())?;
        let set = subscription.session.incoming.set_wait(Wait::Each(patience));
        set.map_err(|error| subscription.failed(SUBSCRIBING, error))?;
        Ok(subscription)
    }

    /// Waits for data and parses it. `None`: nothing arrived in time.
    ///
    /// A confirmation is an empty batch.
    pub fn read(&mut self) -> Result<Option<Batch>> {
        let incoming = &mut self.session.incoming;
        incoming.settle();
        // A message over MAX_BODY_BYTES is reported early and skipped, so this is something else.
        if incoming.is_full() {
            return Err(self.unreadable(Unreadable::TooLarge));
        }
        match incoming.receive() {
            Ok(()) => self.take_apart().map(Some),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
            // After SIGSTOP and SIGCONT: neither data nor silence.
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(Batch::default())),
            Err(error) => Err(self.failed(READING, error)),
        }
    }

    /// Sends a ping. A later batch contains this number once the pong has arrived. By then, everything published before
    /// Redis read the ping has arrived, too.
    pub fn ping(&mut self, number: u64) -> Result<()> {
        self.pings.push_back(number);
        self.send("pinging", &Command::of(&["PING"]).into_bytes())
    }

    fn take_apart(&mut self) -> Result<Batch> {
        let (mut released, mut answered) = (None, None);
        loop {
            let incoming = &mut self.session.incoming;
            let skipped = self.skip.min(incoming.received().len() as u64);
            incoming.take(skipped as usize);
            self.skip -= skipped;
            let (received, length) = match receive(incoming.received(), MAX_BODY_BYTES as u64) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(Batch { seen: self.gathering.finish(), released, answered }),
                Err(why) => return Err(self.unreadable(why)),
            };
            match received {
                // Dropped before counting, by a rule that is the same for all dispatchers of the group, so all count
                // the same.
                Received::Message { channel, payload } if channel == self.published => {
                    if !self.own_events.as_ref().is_some_and(|own| own.is_one(payload)) {
                        self.gathering.push_message(payload);
                    }
                }
                Received::Message { channel, payload } if channel == self.control => {
                    let notice = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                    match notice {
                        Some(Notice::Released(epoch)) => released = Some(epoch),
                        Some(Notice::Marker(marker, of)) if of.as_bytes() == self.published => {
                            self.gathering.push(Seen::Marker(marker));
                        }
                        Some(Notice::Marker(marker, of)) => {
                            warn_of_channel(&mut self.warned_of_channel, &of);
                            self.gathering.push(Seen::Elsewhere(marker));
                        }
                        None => warn_of_stranger(&mut self.warned_of_stranger, payload.len()),
                    }
                }
                Received::Oversize { channel, excerpt, length, rest } => {
                    if channel == self.published {
                        self.gathering.push_oversize(&excerpt[..excerpt.len().min(EXCERPT_BYTES)], length);
                    }
                    self.skip = rest;
                }
                Received::Error(text) if self.unanswered > 0 && !text.starts_with(b"LOADING") => {
                    return Err(self.server.error("subscribing", Failure::of_reply(text)));
                }
                // Redis may refuse a PING because of its disk or while it loads its data. The connection works
                // nevertheless.
                Received::Error(_) | Received::Other => match self.unanswered {
                    0 => answered = self.pings.pop_front().or(answered),
                    _ => self.unanswered -= 1,
                },
                Received::Message { .. } => {}
            }
            self.session.incoming.take(length);
        }
    }

    fn send(&mut self, step: impl Into<Step>, bytes: &[u8]) -> Result<()> {
        self.session.send(bytes).map_err(|error| self.failed(step, error))
    }

    fn failed(&self, step: impl Into<Step>, error: io::Error) -> Error {
        self.server.error(step, error)
    }

    fn unreadable(&self, why: Unreadable) -> Error {
        let error = match why {
            Unreadable::NotResp => not_redis(self.session.incoming.received()),
            Unreadable::TooLarge => {
                let most = BUFFER.most_bytes;
                let problem =
                    format!("it sent something other than a message that is larger than the limit of {most} bytes");
                io::Error::new(ErrorKind::InvalidData, problem)
            }
        };
        self.failed(READING, error)
    }
}

fn warn_of_channel(warned: &mut bool, channel: &str) {
    if !std::mem::replace(warned, true) {
        log::warn!(
            "event=other-channel channel={} problem=\"a dispatcher of this group has another --channel\"",
            Quoted(channel)
        );
    }
}

fn warn_of_stranger(warned: &mut bool, bytes: usize) {
    if !std::mem::replace(warned, true) {
        log::warn!("event=control-ignored reason=\"not a notice\" bytes={bytes}");
    }
}
