//! The consumer's desk: which dispatcher may deliver messages, which messages are held, and where answers go. One mutex
//! guards all of it.
//!
//! Every thread of the consumer calls it: the sockets' readers with LEAD, PROCESS and DELIVER, their writers for
//! PROGRESS, the pool for work and with failures, the committer with recorded results. No thread waits for IO under the
//! lock: answers are put into the ruling connection's [`Outbox`](super::outbox::Outbox).
//!
//! Guarantees, each because it happens under the one lock:
//! - Only one connection *rules*: the newest one of the highest epoch seen, unless an earlier one of that epoch is
//!   proven and alive (see `rivals`). Messages from any other connection are refused.
//! - HELD lists all messages that were accepted from earlier rulers and are neither answered nor given up. The answer
//!   to each of them goes to the new ruler or to a later one.
//! - A held message is not run a second time, unless its earlier run was given up.
//! - A message is returned only if no handler has begun on it, and no handler begins on it after that.
//!
//! `state` is what the mutex holds. `rule` and `rivals` decide who rules; `work` is the path of a message through the
//! consumer, and `held` keeps the held messages. `ability` decides whether the consumer can work, and `absence` is what
//! it does while it can't.

mod ability;
mod absence;
mod held;
mod rivals;
mod rule;
mod state;
mod work;

pub(super) use self::held::Job;
pub(super) use self::rivals::{Claim, outlived};
pub(super) use self::state::{Desk, Terms};

#[cfg(test)]
pub(super) mod tests;
