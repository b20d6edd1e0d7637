//! The committer: records outcomes in Redis, many at a time, and then has them acknowledged.
//!
//! One thread with one connection. A batch is what has come in while the one before was recorded. What is surely this
//! consumer's alone goes in a transaction, everything else through a script, which looks; so does what a transaction
//! left undone. When Redis does not answer, the script is tried again for ever: repeating it is harmless, since what
//! was recorded is no longer pending. Nothing is acknowledged before Redis has said that it is recorded, by us or by
//! somebody else.
//!
//! Limitation: one batch at a time, so the rate is limited by Redis's round trip and
//! [`MAX_BATCH_MESSAGES`](crate::ledger::MAX_BATCH_MESSAGES).

mod committer;
mod not_pending;
mod recorder;
mod recording;

pub(super) use self::committer::Committer;
pub(super) use self::recorder::{Finished, REPLY_TIMEOUT};
