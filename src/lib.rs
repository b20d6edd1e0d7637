//! Consumer groups for Redis Pub/Sub: every message that is published on a channel is processed by one consumer, and
//! its result is stored once. Publishers go on calling `PUBLISH` and notice nothing.
//!
//! To write a consumer, begin with [`Consumer::builder`] and `examples/smallest.rs`. To read the code, follow a message:
//!
//! ```text
//!  PUBLISH ──▶ listener ──▶ ring ──▶ ingest ──▶ sorted set      a dispatcher; the leader's ingest
//!                                      └──────▶ courier ──▶ frames ──▶ desk ──▶ pool ──▶ committer ──▶ stream
//!                                      ACK ◀──────────────────────────────────────────────────┘  a consumer
//! ```
//!
//! # The map, in reading order
//!
//! | module | holds |
//! |---|---|
//! | [`base`] | ids, errors, durations, waiting, counting: what everything stands on |
//! | [`wire`] | the frames between dispatcher and consumer: pure encoding and decoding |
//! | [`net`] | the one place that makes sockets: connecting, accepting, deadlines |
//! | [`ledger`] | everything that knows a Redis key: one typed operation for each thing done there, a script or a transaction |
//! | [`consumer`] | the library people build consumers with: server, desk, handlers, commit |
//! | [`lane`] | a group's way from Redis to its consumers: subscription, ring, lease, election, and a term's three workers |
//! | [`process`] | what every program has: settings, log, metrics, supervision, standard output |
//! | [`programs`] | publisher, `audit`, `status` |
//! | [`lab`] | a whole cluster on this machine, struck by faults or measured if wanted: `demo`, `chaos`, `bench`, the tests |
//!
//! # What always holds
//!
//! 1. A message goes out only after it is in the sorted set, in the step that moved the cursor past it.
//! 2. A result is stored only in the step that removes its message from the sorted set, so there is at most one.
//! 3. Whatever a leader writes carries its epoch and is refused once a newer one has begun; consumers do the same.
//! 4. A dispatcher keeps what it has seen until the cursor has been past it for a while, so any that is in sync can go
//!    on exactly where another stopped.
//! 5. Every queue, buffer, batch and frame has a named limit; a backlog lives in Redis.
//! 6. What cannot be kept is counted, logged and recorded as a gap.

pub mod base;
pub mod cli;
pub mod consumer;
pub mod lab;
pub mod lane;
pub mod ledger;
pub mod net;
pub mod process;
pub mod programs;
pub mod wire;

pub use consumer::{Consumer, ConsumerBuilder, ConsumerStats, Delivery, Handler, HandlerError, Outcome};
