//! The subscription of a dispatcher: one connection that listens on the user's channel, the control channel and the
//! dispatcher's alive channel, so that all of it comes in the one order in which Redis sends it.
//!
//! Owned by the listener's thread. It speaks RESP3 over its own socket, since there a connection with subscriptions may
//! also PING and PUBLISH, and since each message is taken from the receive buffer without a detour: small ones that
//! came together share an allocation (see `gathering`). Nothing is ever left out: a broken connection is an error, and what
//! came after the break belongs to the next subscription.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

mod gathering;
mod own_events;

use self::gathering::Gathering;
use self::own_events::OwnEvents;
use super::command::command;
use super::connection::error_of;
use super::resp::{EXCERPT_BYTES, Received, Unreadable, receive};
use super::server::{CONNECT_TIMEOUT, not_redis};
use super::{Command, Keys, Marker, Payload, Server};
use crate::base::error::{CONNECTING, Error, Result};
use crate::base::id::{DispatcherId, Epoch};
use crate::net::{Stream, Wait};
use crate::process::log::Quoted;
use crate::wire::MAX_BODY_BYTES;

/// A message on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `marker <marker> <channel>`: names this place among the messages of a user's channel. Dispatchers of another
    /// channel pass it over: a cursor that counts another channel's messages must mean nothing to them.
    Marker(Marker, String),
    /// `released <epoch>`: the leader of this epoch has given the lease back.
    Released(Epoch),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Marker(marker, channel) => write!(f, "marker {marker} {channel}"),
            Notice::Released(epoch) => write!(f, "released {epoch}"),
        }
    }
}

impl FromStr for Notice {
    type Err = ();

    fn from_str(text: &str) -> Result<Notice, ()> {
        match text.split_once(' ') {
            Some(("marker", place)) => {
                let (marker, channel) = place.split_once(' ').ok_or(())?;
                Ok(Notice::Marker(marker.parse()?, channel.to_owned()))
            }
            Some(("released", epoch)) => epoch.parse().map(|epoch| Notice::Released(Epoch(epoch))).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

/// What a dispatcher subscribes to, and where.
#[derive(Clone, Debug)]
pub struct Channels {
    /// The server.
    pub server: Server,
    /// The group's keys.
    pub keys: Arc<Keys>,
    /// The channel that users publish on.
    pub published: String,
    /// Whose alive channel.
    pub dispatcher: DispatcherId,
}

/// A message as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// One that can be delivered.
    Message(Payload),
    /// One over the size limit: its first bytes and its length.
    Oversize {
        /// The first bytes.
        excerpt: Payload,
        /// The length of the whole.
        length: u64,
    },
}

/// Something the listener saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message on the user's channel.
    Published(Published),
    /// A marker on the control channel.
    Marker(Marker),
    /// A marker of a dispatcher that listens to another channel: it names no place here, but says who joined.
    Elsewhere(Marker),
}

/// What one read brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages and markers, in order.
    pub seen: Vec<Seen>,
    /// The epoch whose leader has given the lease back, if one said so.
    pub released: Option<Epoch>,
    /// What the last ping said that was answered, if one was.
    pub answered: Option<u64>,
}

/// See the module's text.
pub struct Subscription {
    stream: Stream,
    server: Server,
    published: Vec<u8>,
    control: Vec<u8>,
    buffer: Vec<u8>,
    /// The part of the buffer that is filled and not yet taken apart.
    filled: std::ops::Range<usize>,
    /// What the present read brought.
    gathering: Gathering,
    /// Bytes of an oversize message still to be skipped.
    skip: u64,
    /// Answers that are still to come to SUBSCRIBE and to the join marker's PUBLISH.
    unanswered: usize,
    /// What pings said whose pongs have not come, in order. Bounded by the listener, which sends few.
    pings: VecDeque<u64>,
    /// Whether it was said that a dispatcher of the group listens to another channel.
    warned_of_channel: bool,
    /// Which messages tell of the group's own keys.
    own_events: Option<OwnEvents>,
    /// Whether it was said that somebody publishes on the control channel what is no notice: that may be each second.
    warned_of_stranger: bool,
}

/// One for each channel, and one for the marker.
const SET_UP_ANSWERS: usize = 4;

/// What `CLIENT LIST` shows as the name of a dispatcher's subscription; its id follows.
pub const CLIENT_NAME_PREFIX: &str = "oncecast:";

/// The receive buffer while messages are small.
const BUFFER_BYTES: usize = 256 << 10;
/// The receive buffer at most: room for the largest message, and the channel's name before it.
const MAX_BUFFER_BYTES: usize = 2 * MAX_BODY_BYTES;

impl Subscription {
    /// Connects, subscribes, and publishes the join marker in the same breath. `patience` is how long a read waits.
    pub fn open(channels: &Channels, join: &Marker, patience: Duration) -> Result<Subscription> {
        let server = channels.server.clone();
        let stream = server.connect(CONNECT_TIMEOUT).map_err(|error| server.error(CONNECTING, error.into()))?;
        let keys = &channels.keys;
        let mut subscription = Subscription {
            stream,
            server,
            published: channels.published.clone().into_bytes(),
            control: keys.control.clone().into_bytes(),
            buffer: vec![0; BUFFER_BYTES],
            filled: 0..0,
            gathering: Gathering::default(),
            skip: 0,
            unanswered: SET_UP_ANSWERS,
            pings: VecDeque::new(),
            own_events: OwnEvents::on(&channels.published, keys, channels.server.database()),
            warned_of_channel: false,
            warned_of_stranger: false,
        };
        subscription.greet(&channels.dispatcher)?;
        let alive = format!("{}{}", keys.alive_prefix, channels.dispatcher);
        let subscribe = Command::of(&["SUBSCRIBE", &channels.published, &keys.control, &alive]);
        let publish = Command::of(&[
            "PUBLISH",
            &keys.control,
            &Notice::Marker(join.clone(), channels.published.clone()).to_string(),
        ]);
        subscription.send("subscribing", &[subscribe.into_bytes(), publish.into_bytes()].concat())?;
        let set = subscription.stream.set_read_wait(Wait::Each(patience));
        set.map_err(|error| subscription.server.error("subscribing", error.into()))?;
        Ok(subscription)
    }

    /// Waits for something to come and takes apart what has come. `None`: nothing within the patience.
    ///
    /// A confirmation is an empty batch.
    pub fn read(&mut self) -> Result<Option<Batch>> {
        self.make_room()?;
        let count = match self.stream.read(&mut self.buffer[self.filled.end..]) {
            Ok(0) => return Err(self.failed("reading the subscription", ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            // After SIGSTOP and SIGCONT: neither data nor silence.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Some(Batch::default())),
            Err(error) => return Err(self.failed("reading the subscription", error)),
        };
        self.filled.end += count;
        self.take_apart().map(Some)
    }

    /// Asks for a sign of life. When the answer has come, and so has all that was published before Redis read the ping, a
    /// batch says this number.
    pub fn ping(&mut self, number: u64) -> Result<()> {
        self.pings.push_back(number);
        self.send("pinging", &Command::of(&["PING"]).into_bytes())
    }

    /// Logs in, chooses the database, switches to RESP3, and says whose connection it is. Channels know no databases; but a
    /// database that the commands can't use is a wrong setting, and must not look like a subscription that works.
    fn greet(&mut self, dispatcher: &DispatcherId) -> Result<()> {
        let set = self.stream.set_read_wait(Wait::Each(CONNECT_TIMEOUT));
        set.map_err(|error| self.failed(CONNECTING, error))?;
        let mut greeting = Vec::new();
        let answers = self.server.greet(&mut greeting) + 1;
        command(&mut greeting, &["HELLO", "3", "SETNAME", &format!("{CLIENT_NAME_PREFIX}{dispatcher}")]);
        self.stream.write_all(&greeting).map_err(|error| self.server.unanswered(CONNECTING, error))?;
        for answered in 0..answers {
            self.take_answer(answered > 0)?;
        }
        Ok(())
    }

    /// Waits for one answer to the greeting and takes it.
    fn take_answer(&mut self, answered: bool) -> Result<()> {
        loop {
            let received = &self.buffer[self.filled.clone()];
            match receive(received, MAX_BODY_BYTES as u64) {
                Ok(Some((Received::Error(text), _))) => return Err(self.refused(CONNECTING, text)),
                Ok(Some((_, length))) => {
                    self.filled.start += length;
                    return Ok(());
                }
                Ok(None) => {}
                Err(why) => return Err(self.unreadable(CONNECTING, why)),
            }
            match self.stream.read(&mut self.buffer[self.filled.end..]) {
                Ok(count) if count > 0 => self.filled.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => {
                    let error = outcome.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
                    return Err(match answered {
                        true => self.failed(CONNECTING, error),
                        false => self.server.unanswered(CONNECTING, error),
                    });
                }
            }
        }
    }

    fn take_apart(&mut self) -> Result<Batch> {
        let (mut released, mut answered) = (None, None);
        loop {
            let skipped = self.skip.min(self.filled.len() as u64);
            self.filled.start += skipped as usize;
            self.skip -= skipped;
            let (received, length) = match receive(&self.buffer[self.filled.clone()], MAX_BODY_BYTES as u64) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(Batch { seen: self.gathering.finish(), released, answered }),
                Err(why) => return Err(self.unreadable("reading the subscription", why)),
            };
            match received {
                // Before it is counted, by what all dispatchers of the group have in common: so all count the same.
                Received::Message { channel, payload } if channel == self.published && self.is_own_event(payload) => {}
                Received::Message { channel, payload } if channel == self.published => {
                    self.gathering.push_message(payload);
                }
                Received::Message { channel, payload } if channel == self.control => {
                    match std::str::from_utf8(payload).map(str::parse) {
                        Ok(Ok(Notice::Marker(marker, of))) if of.as_bytes() == self.published => {
                            self.gathering.push(Seen::Marker(marker));
                        }
                        Ok(Ok(Notice::Marker(marker, of))) => {
                            if !std::mem::replace(&mut self.warned_of_channel, true) {
                                log::warn!(
                                    "event=other-channel channel={} problem=\"a dispatcher of this group has another --channel\"",
                                    Quoted(of)
                                );
                            }
                            self.gathering.push(Seen::Elsewhere(marker));
                        }
                        Ok(Ok(Notice::Released(epoch))) => released = Some(epoch),
                        _ if std::mem::replace(&mut self.warned_of_stranger, true) => {}
                        _ => log::warn!("event=control-ignored reason=\"not a notice\" bytes={}", payload.len()),
                    }
                }
                Received::Oversize { channel, excerpt, length, rest } => {
                    if channel == self.published {
                        self.gathering.push_oversize(&excerpt[..excerpt.len().min(EXCERPT_BYTES)], length);
                    }
                    self.skip = rest;
                }
                Received::Error(text) if self.unanswered > 0 && !text.starts_with(b"LOADING") => {
                    return Err(self.refused("subscribing", text));
                }
                // Redis may refuse a PING for the state of its disk or while it loads: it lives all the same.
                Received::Error(_) | Received::Other => match self.unanswered {
                    0 => answered = self.pings.pop_front().or(answered),
                    _ => self.unanswered -= 1,
                },
                Received::Message { .. } => {}
            }
            self.filled.start += length;
        }
    }

    fn is_own_event(&self, payload: &[u8]) -> bool {
        self.own_events.as_ref().is_some_and(|own| own.tells(payload))
    }

    /// Moves what is left to the front, and grows the buffer for a message that is larger than it.
    fn make_room(&mut self) -> Result<()> {
        if self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.filled.is_empty() && self.buffer.len() > BUFFER_BYTES {
            self.buffer = vec![0; BUFFER_BYTES];
        }
        if self.filled.end == self.buffer.len() {
            // A message over MAX_BODY_BYTES is reported by its head and skipped: this is something else.
            if self.buffer.len() >= MAX_BUFFER_BYTES {
                return Err(self.unreadable("reading the subscription", Unreadable::TooLarge));
            }
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        Ok(())
    }

    fn send(&mut self, doing: &'static str, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|error| self.failed(doing, error))
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> Error {
        self.server.error(doing, error.into())
    }

    fn refused(&self, doing: &'static str, text: &[u8]) -> Error {
        self.server.error(doing, error_of(text))
    }

    fn unreadable(&self, doing: &'static str, why: Unreadable) -> Error {
        let error = match why {
            Unreadable::NotResp => not_redis(&self.buffer[self.filled.clone()]),
            Unreadable::TooLarge => {
                let problem = format!(
                    "what it sends is no message and too large: more than {MAX_BUFFER_BYTES} bytes, the most that is read"
                );
                io::Error::new(ErrorKind::InvalidData, problem)
            }
        };
        if doing == CONNECTING { self.server.unanswered(doing, error) } else { self.failed(doing, error) }
    }
}
