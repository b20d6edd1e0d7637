//! The subscription: one connection subscribed to the channels and patterns that the group listens to, the control
//! channel and the subscriber's own channel, so that everything arrives in the order in which Redis sends it.
//!
//! Owned by the listener's thread. It uses RESP3, because a RESP3 connection with subscriptions may also PING and
//! PUBLISH, and parses messages directly in the receive buffer; small ones that arrive together share an allocation
//! (see `gathering`). No message is skipped silently: a broken connection is an error, and messages after the break
//! belong to the next subscription.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bus::{await_bus, node_of};
use super::channels::{Channels, OWN_CHANNELS, Subscriber};
use super::copies::Copies;
use super::gathering::Gathering;
use super::own_events::is_own_event;
use super::rights::rights;
use super::seen::{Batch, Length, Seen};
use crate::base::error::{Error, Result, Step};
use crate::base::failure::Failure;
use crate::base::text::Quoted;
use crate::ledger::command::{Command, command};
use crate::ledger::cursor::Marker;
use crate::ledger::interests::{Interests, identity_hash};
use crate::ledger::keys::Keys;
use crate::ledger::notice::{Notice, interests_and_node, on_node};
use crate::ledger::receiving::not_redis;
use crate::ledger::resp::{EXCERPT_BYTES, Received, Unreadable, bulk_bytes, receive};
use crate::ledger::server::errors::name_the_rights;
use crate::ledger::server::{CONNECT_TIMEOUT, Server};
use crate::ledger::session::{BufferSize, Session};
use crate::net::Wait;
use crate::wire::{MAX_BODY_BYTES, MAX_CHANNEL_BYTES};

/// See the module's text.
pub struct Subscription {
    session: Session,
    server: Server,
    interests: Arc<Interests>,
    keys: Arc<Keys>,
    subscriber: Subscriber,
    /// In a Redis Cluster, the node that it is subscribed on.
    node: Option<String>,
    /// What markers name that stand among the same messages.
    identity: String,
    copies: Copies,
    /// What the present read has found.
    gathering: Gathering,
    /// Bytes of an oversize message still to be skipped.
    skip: u64,
    /// Whether a payload follows whose channel was skipped.
    skips_payload: bool,
    /// Replies to the subscriptions and to the join marker's PUBLISH that have not arrived yet.
    unanswered: usize,
    /// Whether all subscriptions are being ended.
    leaving: bool,
    /// The sharded channel of the notices, if Redis has ended the subscription to it.
    ended: Option<String>,
    /// Other sharded channels of which Redis has done so.
    silent: Option<Silent>,
    /// The numbers of the pings whose pongs have not arrived, in order. Bounded, because the listener sends few.
    pings: VecDeque<u64>,
    /// Whether it was logged that a dispatcher of the group has other interests.
    warned_of_interests: bool,
    /// Messages on channels with longer names than are read, since the last batch.
    on_long_channels: u64,
    /// Whether such a message was logged.
    warned_of_long_channel: bool,
    /// Whether it was logged that another program publishes on the control channel, which may happen often.
    warned_of_stranger: bool,
}

/// Sharded channels whose slots have moved to other nodes: nothing comes on them any more. Redis says so to all
/// subscribers at the same place among the messages, so that they still count alike.
struct Silent {
    /// The first of them, for errors.
    channel: String,
    since: Instant,
    channels: usize,
}

/// How long a subscription goes on without some of its channels. Its lane is planned anew meanwhile. If that does not
/// replace it, the slot may have come back, and a dispatcher that subscribes now hears more.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// What `CLIENT LIST` shows as the name of a dispatcher's subscription; its id follows.
pub const CLIENT_NAME_PREFIX: &str = "oncecast:";

/// The receive buffer: room for the largest message, and the channel's name before it.
const BUFFER: BufferSize = BufferSize { least_bytes: 256 << 10, most_bytes: 2 * MAX_BODY_BYTES };

/// The step that errors name most of the time.
const READING: &str = "reading the subscription";

impl Subscription {
    /// Connects, subscribes, and publishes the join marker, if there is one, in the same write. `patience` is how long
    /// a read waits. In a Redis Cluster a dispatcher first waits for the [bus](super::bus).
    ///
    /// The greeting selects the database, switches to RESP3, and names the connection. Channels don't depend on
    /// databases, but a database that the commands can't use is a wrong setting, and must not look like a working
    /// subscription.
    pub fn open(channels: &Channels, join: Option<&Marker>, patience: Duration) -> Result<Subscription> {
        const SUBSCRIBING: &str = "subscribing";
        let (server, keys) = (channels.server.for_key(&channels.keys.control), &channels.keys);
        let name = format!("{CLIENT_NAME_PREFIX}{}", channels.subscriber.id());
        let expected = match join {
            Some(_) => await_bus(&server, channels)
                .map_err(|error| name_the_rights(error, || rights(&channels.interests, keys, &channels.subscriber)))?,
            None => None,
        };
        let mut session = Session::open(&server, CONNECT_TIMEOUT, BUFFER, |greeting| {
            command(greeting, &["HELLO", "3", "SETNAME", &name]);
            1
        })?;
        let node = if server.is_cluster() { Some(node_of(&mut session, &server)?) } else { None };
        if expected.is_some() && expected != node {
            return Err(Error::Failed("the keys have moved again".to_owned()));
        }
        let may_listen = |node: &String| channels.interests.is_none() || server.may_listen_on(node);
        if join.is_some() && !node.as_ref().is_none_or(may_listen) {
            let problem = "the lane's keys are on another node now, where another lane may listen: it waits for a plan";
            return Err(Error::Failed(problem.to_owned()));
        }
        session.outlive_its_generation();
        let identity = on_node(channels.interests.identity(), node.as_deref());
        server.note_subscribed_on(node.clone());
        let mut subscription = Subscription {
            session,
            server,
            interests: channels.interests.clone(),
            keys: keys.clone(),
            subscriber: channels.subscriber.clone(),
            node,
            identity,
            copies: Copies::default(),
            gathering: Gathering::default(),
            skip: 0,
            skips_payload: false,
            unanswered: 0,
            leaving: false,
            ended: None,
            silent: None,
            pings: VecDeque::new(),
            warned_of_interests: false,
            on_long_channels: 0,
            warned_of_long_channel: false,
            warned_of_stranger: false,
        };
        let (commands, answers) = channels.set_up(join, &subscription.identity);
        subscription.unanswered = answers;
        subscription.send(SUBSCRIBING, &commands)?;
        let set = subscription.session.incoming.set_wait(Wait::Each(patience));
        set.map_err(|error| subscription.failed(SUBSCRIBING, error))?;
        Ok(subscription)
    }

    /// Waits for data and parses it. `None`: nothing arrived in time.
    ///
    /// A confirmation is an empty batch.
    pub fn read(&mut self) -> Result<Option<Batch>> {
        if let Some(channel) = &self.ended {
            return Err(self.failed(READING, slot_moved(channel)));
        }
        if let Some(silent) = self.silent.as_ref().filter(|silent| silent.since.elapsed() >= SILENT_FOR) {
            return Err(self.failed(READING, slot_moved(&silent.channel)));
        }
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

    /// Whether the server is elsewhere now, so that this subscription must be replaced.
    pub fn is_outdated(&self) -> bool {
        self.session.is_outdated(&self.server)
    }

    /// Whether the server is a node of a Redis Cluster.
    pub fn is_in_cluster(&self) -> bool {
        self.node.is_some()
    }

    /// Whether Redis has confirmed everything that was subscribed to.
    pub fn is_established(&self) -> bool {
        self.unanswered == 0
    }

    /// Sends a ping. A later batch contains this number once the pong has arrived. By then, everything published before
    /// Redis read the ping has arrived, too.
    pub fn ping(&mut self, number: u64) -> Result<()> {
        self.pings.push_back(number);
        self.send("pinging", &Command::of(&["PING"]).into_bytes())
    }

    /// Ends all subscriptions. A later batch contains the number once that is done: everything has arrived then that
    /// Redis sent to this subscriber, so each message whose `PUBLISH` has counted it.
    pub fn leave(&mut self, number: u64) -> Result<()> {
        let mut commands = Vec::new();
        let patterns = self.interests.patterns().count();
        if patterns > 0 {
            command(&mut commands, &["PUNSUBSCRIBE"]);
        }
        let control = usize::from(self.interests.is_sharded());
        if control > 0 {
            command(&mut commands, &["SUNSUBSCRIBE"]);
        }
        command(&mut commands, &["UNSUBSCRIBE"]);
        command(&mut commands, &["PING"]);
        let silent = self.silent.as_ref().map_or(0, |silent| silent.channels);
        self.unanswered += patterns + self.interests.channels().count() + control + OWN_CHANNELS - silent;
        self.leaving = true;
        self.pings.push_back(number);
        self.send("ending a subscription", &commands)
    }

    fn take_apart(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        loop {
            let incoming = &mut self.session.incoming;
            let skipped = self.skip.min(incoming.received().len() as u64);
            incoming.take(skipped as usize);
            self.skip -= skipped;
            if self.skips_payload && self.skip == 0 {
                match bulk_bytes(incoming.received()) {
                    Ok(Some(bytes)) => (self.skip, self.skips_payload) = (bytes, false),
                    Ok(None) => return Ok(self.finish(batch)),
                    Err(why) => return Err(self.unreadable(why)),
                }
                continue;
            }
            let (received, length) = match receive(incoming.received(), MAX_BODY_BYTES as u64) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(self.finish(batch)),
                Err(why) => return Err(self.unreadable(why)),
            };
            match received {
                Received::Message { pattern: None, channel, payload } if channel == self.keys.control.as_bytes() => {
                    let notice = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                    match notice {
                        Some(notice) => self.take_notice(notice, &mut batch),
                        None => warn_of_stranger(&mut self.warned_of_stranger, payload.len()),
                    }
                }
                Received::Message { pattern, channel, payload } => {
                    // Keyspace events are not published on sharded channels.
                    let is_own = |database| is_own_event(channel, payload, &self.keys, database);
                    if self.copies.count(&self.interests, &self.keys, pattern, channel)
                        && (self.interests.is_sharded() || !is_own(self.server.database()))
                    {
                        gather(&mut self.gathering, &self.interests, channel, payload, None);
                    }
                }
                Received::Oversize { pattern, channel, excerpt, length, rest } => {
                    if self.copies.count(&self.interests, &self.keys, pattern, channel) {
                        gather(&mut self.gathering, &self.interests, channel, excerpt, Some(length));
                    }
                    self.skip = rest;
                }
                Received::LongChannel { rest } => {
                    self.on_long_channels += 1;
                    warn_of_long_channel(&mut self.warned_of_long_channel, rest);
                    (self.skip, self.skips_payload) = (rest, true);
                }
                Received::Ended { .. } if self.leaving => self.unanswered = self.unanswered.saturating_sub(1),
                Received::Ended { channel } if channel != self.keys.control.as_bytes() => {
                    let channel = || channel.escape_ascii().to_string();
                    let first = || Silent { channel: channel(), since: Instant::now(), channels: 0 };
                    self.silent.get_or_insert_with(first).channels += 1;
                    batch.moved = true;
                }
                // What came before it is returned first.
                Received::Ended { channel } => {
                    self.ended = Some(channel.escape_ascii().to_string());
                    return Ok(self.finish(batch));
                }
                Received::Error(text) if self.unanswered > 0 && !text.starts_with(b"LOADING") => {
                    let failure = Failure::of_reply(text);
                    let (error, _) = self.session.refusal(&self.server, "subscribing", failure);
                    return Err(name_the_rights(error, || rights(&self.interests, &self.keys, &self.subscriber)));
                }
                // Redis may refuse a PING because of its disk or while it loads its data. The connection works
                // nevertheless.
                Received::Error(_) | Received::Other => match self.unanswered {
                    0 => batch.answered = self.pings.pop_front().or(batch.answered),
                    _ => self.unanswered -= 1,
                },
            }
            self.session.incoming.take(length);
        }
    }

    fn take_notice(&mut self, notice: Notice, batch: &mut Batch) {
        match notice {
            Notice::Released(epoch) => batch.released = Some(epoch),
            Notice::Returned(ids) => batch.returned.extend(ids),
            Notice::Settings => batch.settings = true,
            Notice::Where(question) => batch.asked.push(question),
            Notice::Marker(marker, of) if of == self.identity => self.gathering.push(Seen::Marker(marker)),
            Notice::Marker(marker, of) => self.take_others_marker(marker, &of),
        }
    }

    /// Another node of a Redis Cluster sends the messages in another order, so a marker that stands among them names no
    /// place here.
    fn take_others_marker(&mut self, marker: Marker, of: &str) {
        let (interests, node) = match self.node {
            Some(_) => interests_and_node(of),
            None => (of, None),
        };
        if interests != self.interests.identity() {
            warn_of_interests(&mut self.warned_of_interests, interests);
        }
        if node == self.node.as_deref() {
            self.gathering.push(Seen::OtherInterests(marker, identity_hash(of)));
        }
    }

    fn finish(&mut self, batch: Batch) -> Batch {
        let on_long_channels = std::mem::take(&mut self.on_long_channels);
        let overlaps = self.copies.take_overlaps();
        Batch { seen: self.gathering.finish(), overlaps, on_long_channels, ..batch }
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

/// Keeps a message, with its channel if that is recorded. Of one over a limit only the beginning is kept: `payload` is
/// all of it, or the beginning of so many bytes.
fn gather(gathering: &mut Gathering, interests: &Interests, channel: &[u8], payload: &[u8], bytes: Option<u64>) {
    let excerpt = &payload[..payload.len().min(EXCERPT_BYTES)];
    let channel = interests.record_channels().then_some(channel);
    match (channel.filter(|channel| channel.len() > MAX_CHANNEL_BYTES), bytes) {
        (Some(long), _) => {
            let length = Length::Channel(long.len() as u64);
            gathering.push_oversize(Some(&long[..MAX_CHANNEL_BYTES]), excerpt, length);
        }
        (None, Some(bytes)) => gathering.push_oversize(channel, excerpt, Length::Payload(bytes)),
        (None, None) => gathering.push_message(channel, payload),
    }
}

/// Nothing is unsubscribed from here, so Redis has ended the subscription.
fn slot_moved(channel: &str) -> io::Error {
    let problem = format!("Redis ended the subscription to the sharded channel {channel}: its slot is on another node");
    io::Error::new(ErrorKind::ConnectionReset, problem)
}

fn warn_of_interests(warned: &mut bool, identity: &str) {
    if !std::mem::replace(warned, true) {
        log::warn!(
            "event=other-interests interests={} problem=\"a dispatcher of this group listens to something else: \
             compare --channel, --sharded-channel, --pattern, --keyevent, --keyspace-db, and with keyspace events \
             --deliver and --stream\"",
            Quoted(identity)
        );
    }
}

fn warn_of_long_channel(warned: &mut bool, bytes: u64) {
    if !std::mem::replace(warned, true) {
        log::warn!(
            "event=channel-ignored bytes={bytes} problem=\"a message was published on a channel with a longer name \
             than is read; such messages are not stored\""
        );
    }
}

fn warn_of_stranger(warned: &mut bool, bytes: usize) {
    if !std::mem::replace(warned, true) {
        log::warn!("event=control-ignored reason=\"not a notice\" bytes={bytes}");
    }
}
