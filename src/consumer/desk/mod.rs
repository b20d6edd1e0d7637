//! The consumer's desks, one for each lane: which dispatcher may deliver messages, which messages are held, and where
//! answers go. One mutex guards all of them, since handler threads and limits are common to all lanes.
//!
//! Every thread of the consumer calls it: the sockets' readers with LEAD, PROCESS and DELIVER, their writers for
//! PROGRESS, the pool for work and with failures, the committer with recorded results. No thread waits for IO under the
//! lock: answers are put into the ruling connection's [`Outbox`](super::outbox::Outbox).
//!
//! Guarantees, each because it happens under the one lock:
//! - Only one connection of a lane *rules*: the newest one of the highest epoch seen, unless an earlier one of that
//!   epoch is proven and alive (see `rivals`). Messages from any other connection are refused.
//! - HELD lists all messages that were accepted from earlier rulers and are neither answered nor given up. The answer
//!   to each of them goes to the new ruler or to a later one.
//! - A held message is not run a second time, unless its earlier run was given up.
//! - A message is returned only if no handler has begun on it, and no handler begins on it after that.
//! - Lanes with messages take turns at the handler threads. A turn of a thread lasts for 1 ms, or for one message that
//!   takes longer.
//!
//! `state` is what the mutex holds, and `lane_state` its part for one lane. `rule` and `rivals` decide who rules;
//! `work` is the path of a message through the consumer, `held` keeps the held messages, and `hands` what the handler
//! threads run. `ability` decides whether the consumer can work, and `absence` is what it does while it can't.

mod ability;
mod absence;
mod hands;
mod held;
mod lane_state;
mod rivals;
mod rule;
mod state;
mod work;

pub(super) use self::rivals::{Claim, outlived};
pub(super) use self::state::{Desk, Desks, Terms, Turn};

#[cfg(test)]
pub(super) mod tests;
