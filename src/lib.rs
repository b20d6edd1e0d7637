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
//! | [`id`] | message ids, epochs, dispatcher ids |
//! | [`wire`] | the frames between dispatcher and consumer: pure encoding and decoding |
//! | [`ledger`] | everything that knows a Redis key: one typed operation for each thing done there, a script or a transaction |
//! | [`ring`] | what a dispatcher has seen on the channel; markers, segments, positions |
//! | [`listener`], [`hearing`] | the subscription, in every dispatcher; fills the ring; whether it hears what it should |
//! | [`lease`] | leadership: taking it, keeping it, and when it may be gone |
//! | [`dispatcher`] | the election, and a term's three workers: ingest, courier, redistributor |
//! | [`consumer`] | the library people build consumers with: server, desk, handlers, commit |
//! | [`shutdown`] | the kill switch of a term, and requests to stop a program |
//! | [`publisher`] | load for tests and demonstrations |
//! | [`audit`] | counts results: lost, foreign, recorded twice |
//! | [`status`] | how a group stands |
//! | [`local`] | a whole cluster on this machine, struck by faults or measured if wanted: `demo`, `chaos`, `bench`, the tests |
//! | [`metrics`], [`log`] | what the programs tell their operator: numbers, whether they are ready, lines |
//! | [`pulse`], [`supervision`] | which loops turn, and what systemd hears of it |
//! | [`program`], [`output`] | what every `main` does, and standard output |
//! | [`config`], [`error`], [`refusal`] | settings, checked once; errors, by what they make us do; why Redis refuses |
//! | [`mask`] | passwords in URLs are shown nowhere |
//! | [`backoff`], [`trouble`], [`budget`], [`rate`] | waiting between attempts; one trouble told once; bytes kept in memory; events per second |
//! | [`retry_policy`], [`duration`] | when a message that failed is delivered again; durations as people write them |
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

pub mod audit;
pub mod backoff;
pub mod budget;
pub mod config;
pub mod consumer;
pub mod dispatcher;
pub mod duration;
pub mod error;
pub mod hearing;
pub mod id;
pub mod lease;
pub mod ledger;
pub mod listener;
pub mod local;
pub mod log;
pub mod mask;
pub mod metrics;
pub mod output;
pub mod program;
pub mod publisher;
pub mod pulse;
pub mod rate;
pub mod refusal;
pub mod retry_policy;
pub mod ring;
pub mod shutdown;
pub mod status;
pub mod supervision;
pub mod trouble;
pub mod wire;

pub use consumer::{Consumer, ConsumerBuilder, ConsumerStats, Delivery, Handler, HandlerError, Outcome};
