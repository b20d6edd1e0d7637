//! The committer: records outcomes in Redis, many at a time, and then acknowledges them.
//!
//! Each lane has one: a thread, `commit`, with one connection; its loop is in `commit_loop`. So a lane whose Redis does
//! not answer holds up no other. A result that comes alone is recorded by the thread of its handler, over the same
//! connection. A batch contains the outcomes that arrived while the previous batch was recorded.
//! Messages that no other consumer can hold are recorded in a transaction; all others are recorded by a script, which
//! checks that they are still pending. The script also records what a transaction left undone. While Redis does not
//! answer, the script is retried until the consumer stops: repeating it is harmless, because a recorded message is no
//! longer pending. Results of messages that Redis keeps in one bundle wait a moment for each other, so that the bundle
//! is removed as one member. A message is acknowledged only after Redis has confirmed that its outcome is recorded, by
//! this consumer or by another one.
//!
//! Limitation: one batch at a time, so the rate is limited by Redis's round trip and
//! [`MAX_BATCH_MESSAGES`](crate::ledger::MAX_BATCH_MESSAGES).

mod commit_loop;
mod committer;
mod not_pending;
mod recorder;
mod recording;

pub(super) use self::committer::Committer;
pub(super) use self::recorder::REPLY_TIMEOUT;
