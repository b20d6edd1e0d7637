//! The consumer's desk: who may hand messages over, what is in hand, and where the answers go. One mutex.
//!
//! Every thread of the consumer comes by: the sockets' readers with LEAD and PROCESS, their writers for PROGRESS, the
//! pool for work and with failures, the committer with what is recorded. Nobody waits for IO under the lock: answers
//! are put into the ruling connection's [`Outbox`](super::outbox::Outbox).
//!
//! Guarantees, each because it happens under the one lock:
//! - Only one connection *rules*: that of the highest epoch seen, and of those the latest, unless an earlier one is
//!   proven and lives (see `rivals`). Whatever any other hands over is refused.
//! - HELD lists all that was accepted from earlier rulers and has not been answered; each of these is answered to the
//!   new ruler or to a later one.
//! - A message in hand is not run a second time, unless its earlier run was given up.
//! - A message is handed back only if no handler has begun on it, and no handler begins on it after that.
//!
//! `state` is what the mutex holds. `rule` and `rivals` decide who rules; `work` is the way of a message through the
//! consumer, `hand` what is in hand, `ability` tells whether the consumer can work, and `absence` what it does while it
//! can't.

mod ability;
mod absence;
mod hand;
mod rivals;
mod rule;
mod state;
mod work;

pub(super) use self::hand::Job;
pub(super) use self::rivals::{Claim, outlived};
pub(super) use self::state::{Desk, Terms};

#[cfg(test)]
pub(super) mod tests;
