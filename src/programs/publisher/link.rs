//! The publisher's connection: reopened after a failure, with backoff.
//!
//! An error reply to a single message means that it was not published. In a longer pipeline some messages may have been
//! published before the error, so after any failure a single message is published first.
//!
//! In a Redis Cluster `PUBLISH` counts only the subscribers of the node that executes it. The dispatchers subscribe on
//! the node that has the group's keys, so messages are published there, and with each pipeline a key of the group is
//! asked for, since only that is refused once the keys have moved. While they move, no subscriber on one node may mean
//! one on another. So a message that reached none is unknown there, and before the first message the link waits until a
//! dispatcher is subscribed.
//!
//! `SPUBLISH` is refused by a node that has not the channel's slot, but not by a replica of the one that has it, as a
//! primary is after a failover: it counts its own subscribers and passes the message on. So a key of the channel's slot
//! is asked for here, too, which a replica refuses. Only a message that reached nobody in such a pipeline is unknown.

use std::time::{Duration, Instant};

use redis::Value;

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result, Step};
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;
use crate::ledger::{Command, Connection, Keys, Server, slot_of};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// The waits between two attempts to connect.
const CONNECT_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often it is asked whether a dispatcher has subscribed, in a Redis Cluster.
const DISPATCHER_WAIT: Duration = Duration::from_millis(100);
/// How often continuing trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The outcome of a pipeline.
#[derive(Debug, PartialEq)]
pub(super) enum PublishOutcome {
    /// The number of subscribers that each message reached.
    Receivers(Vec<u64>),
    /// None of the messages was published.
    NotPublished,
    /// Each of the messages may have been published.
    Unknown,
}

/// What is asked for beside publishing, in a Redis Cluster.
struct Asked {
    /// A key of the group, or one in the slot of the sharded channels.
    key: Vec<u8>,
    /// The dispatchers' control channel, unless the channels are sharded.
    control: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum LinkState {
    Down,
    /// Connected, but nothing was published since.
    Trying,
    Up,
}

/// See the module's text.
pub(super) struct RedisLink {
    connection: Connection,
    state: LinkState,
    backoff: Backoff,
    /// How long a refused login or command is retried.
    refusal_patience: Duration,
    retry_at: Instant,
    trouble: Option<RedisTrouble>,
    /// Whether Redis ever answered.
    reached: bool,
    /// In a Redis Cluster.
    asked: Option<Asked>,
    /// Whether messages of the last pipeline that no subscriber received may have reached one on another node.
    unsure: bool,
}

struct RedisTrouble {
    since: Instant,
    refused_since: Option<Instant>,
    logged_at: Instant,
    last: String,
}

impl RedisLink {
    /// `sharded` is one of the sharded channels, if messages are published on such.
    pub(super) fn new(
        server: &Server,
        keys: &Keys,
        sharded: Option<&[u8]>,
        refusal_patience: Duration,
        now: Instant,
    ) -> RedisLink {
        let asked = || match sharded {
            // Any key of this slot will do.
            Some(channel) => Asked { key: channel.to_vec(), control: None },
            None => Asked { key: keys.leader.clone().into_bytes(), control: Some(keys.control.clone()) },
        };
        let server_of_channels = sharded.map(|channel| server.for_slot(slot_of(channel)));
        RedisLink {
            connection: Connection::new(server_of_channels.unwrap_or_else(|| server.for_key(&keys.leader)), REPLY_TIME),
            asked: server.is_cluster().then(asked),
            unsure: false,
            state: LinkState::Down,
            backoff: Backoff::new(CONNECT_WAIT.0, CONNECT_WAIT.1),
            refusal_patience,
            retry_at: now,
            trouble: None,
            reached: false,
        }
    }

    /// Connects if there is no connection and the next attempt is due. Returns whether messages can be published now.
    ///
    /// An error means that retrying is useless.
    pub(super) fn connect(&mut self, now: Instant) -> Result<bool> {
        if now < self.retry_at {
            return Ok(false);
        }
        let is_ready = match (&self.asked, self.state) {
            (_, LinkState::Up) => return Ok(true),
            (Some(Asked { key, control: Some(control) }), _) => has_dispatcher(&mut self.connection, key, control),
            (_, LinkState::Down) => self.connection.query(Step::Connecting, Command::of(&["PING"])).map(|_| true),
            _ => return Ok(true),
        };
        match is_ready {
            Ok(ready) => {
                self.reached = true;
                if ready {
                    self.state = LinkState::Trying;
                } else {
                    self.retry_at = now + DISPATCHER_WAIT;
                }
                Ok(ready)
            }
            Err(error) => {
                self.state = LinkState::Down;
                self.failed(error)?;
                Ok(false)
            }
        }
    }

    /// Whether a message of the last pipeline that no subscriber received may have reached one on another node.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Some messages reached no subscriber.
    pub(super) fn note_unheard(&mut self) {
        if self.is_unsure() && self.state == LinkState::Up {
            self.state = LinkState::Trying;
        }
    }

    /// When to try again after [`RedisLink::connect`] returned `false`.
    pub(super) fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// The most messages of the next pipeline, of which `most` fit into one.
    pub(super) fn room(&self, most: usize) -> usize {
        if self.state == LinkState::Up { most } else { 1 }
    }

    /// Publishes one pipeline.
    pub(super) fn publish(&mut self, commands: Vec<Command>, now: Instant) -> Result<PublishOutcome> {
        let count = commands.len();
        let replies = self.exchange(commands).and_then(|replies| {
            let receivers: Option<Vec<u64>> = replies.iter().map(receivers).collect();
            receivers.filter(|receivers| receivers.len() == count).ok_or_else(|| Error::Answer {
                server: self.connection.server().shown(),
                step: "publishing".into(),
                got: "something other than numbers of receivers".to_owned(),
            })
        });
        match replies {
            Ok(receivers) => {
                self.state = LinkState::Up;
                self.backoff.reset();
                if let Some(trouble) = self.trouble.take() {
                    let down_ms = now.saturating_duration_since(trouble.since).as_millis();
                    log::info!("event=redis-recovered down_ms={down_ms}");
                }
                Ok(PublishOutcome::Receivers(receivers))
            }
            Err(error) => {
                let refused = error.refusal().is_some();
                self.state = if refused { LinkState::Trying } else { LinkState::Down };
                self.failed(error)?;
                Ok(if refused && count == 1 { PublishOutcome::NotPublished } else { PublishOutcome::Unknown })
            }
        }
    }

    fn exchange(&mut self, mut commands: Vec<Command>) -> Result<Vec<Value>> {
        const DOING: &str = "publishing";
        let Some(asked) = &self.asked else { return self.connection.pipeline(DOING, commands) };
        commands.push(exists(&asked.key));
        let mut replies = self.connection.pipeline_each(DOING, commands)?;
        // If the keys have moved, the connection has noticed it. What was published is published all the same.
        let elsewhere = replies.pop().and_then(Result::err);
        self.unsure = asked.control.is_some()
            || elsewhere.as_ref().is_some_and(|error| error.refusal() == Some(Refusal::Cluster));
        if let Some(error) = elsewhere {
            log::debug!("event=keys-elsewhere reason={}", Quoted(error));
        }
        replies.into_iter().collect()
    }

    /// The error of a run in which Redis never answered.
    pub(super) fn never_reached(&self) -> Option<Error> {
        let last = self.trouble.as_ref().filter(|_| !self.reached)?;
        Some(Error::Failed(format!("nothing was published: {}", last.last)))
    }

    /// Schedules the next attempt, and logs the trouble when it begins and then every [`LOG_EVERY`].
    fn failed(&mut self, error: Error) -> Result<()> {
        let now = Instant::now();
        let wait = self.backoff.next_wait();
        self.retry_at = now + wait;
        let is_new = self.trouble.is_none();
        let trouble = self.trouble.get_or_insert_with(|| RedisTrouble {
            since: now,
            refused_since: None,
            logged_at: now,
            last: String::new(),
        });
        trouble.last = error.to_string();
        trouble.refused_since = if is_refusal(&error) { trouble.refused_since.or(Some(now)) } else { None };
        if trouble.refused_since.is_some_and(|since| now.duration_since(since) >= self.refusal_patience) {
            return Err(error);
        }
        if is_new || now.duration_since(trouble.logged_at) >= LOG_EVERY {
            trouble.logged_at = now;
            let down_ms = now.duration_since(trouble.since).as_millis();
            log::warn!("event=redis-trouble down_ms={down_ms} error={}", Quoted(error));
        }
        Ok(())
    }
}

/// Whether a dispatcher is subscribed on the node that has the group's keys.
fn has_dispatcher(connection: &mut Connection, key: &[u8], control: &str) -> Result<bool> {
    let commands = vec![exists(key), Command::of(&["PUBSUB", "NUMSUB", control])];
    let replies = connection.pipeline("looking for dispatchers", commands)?;
    Ok(matches!(replies.get(1), Some(Value::Array(parts)) if matches!(parts.get(1), Some(Value::Int(1..)))))
}

/// Asks for a key, which only the node that owns its slot answers.
fn exists(key: &[u8]) -> Command {
    Command::new(2).arg("EXISTS").arg(key)
}

/// Whether a setting is the likely cause, so that waiting is unlikely to help.
fn is_refusal(error: &Error) -> bool {
    error.is_denied()
}

fn receivers(reply: &Value) -> Option<u64> {
    match reply {
        Value::Int(receivers) => u64::try_from(*receivers).ok(),
        _ => None,
    }
}
