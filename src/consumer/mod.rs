//! The consumer: a WebSocket server that runs a handler on each message that it receives and records each outcome once.
//!
//! ```text
//!  dispatcher ──► read-N ──PROCESS──► desk ──► handler-N ──outcome──► commit ──► Redis
//!      ▲                               │           │                    │
//!      └───────── write-N ◄── outbox ◄─┴── NACK ◄──┴───────── ACK ◄─────┘
//! ```
//!
//! In reading order: `handler` is what a user writes. `builder` checks the settings, and `error` says what was wrong
//! with them or why the consumer ended. `service` starts the other parts, runs the main loop, and stops them in order.
//! `server` accepts connections and owns their threads; `refusals` limits the cost of useless connections, and
//! `regulars` remembers the addresses of earlier rulers. `link` is one connection, and `peer` is its number and the
//! reason to end it. A connection begins with a `handshake`, and `guard` demands what proves the link secret; `inlet`
//! is its reading side; its two threads share a `socket` and an `outbox`. `lanes` finds or makes the `lane` that LEAD
//! names: `epochs` asks Redis whether a new leader's epoch is genuine, which `asking` limits for lanes that are not
//! known, `desk` decides which dispatcher may deliver and
//! where answers go, and `commit` records outcomes, which come through the lane's `outlet`; some need no check
//! according to `trust`. `pool` runs handlers. `stats` has the counters of all these parts, and `observer` is the
//! interface for a program that monitors them.
//!
//! The consumer knows nothing of the process that it runs in. It has no settings except the builder's, serves no
//! metrics, does not talk to systemd, and catches signals only if `Consumer::stop_on_signals` is called. The
//! surrounding program reads [`ConsumerStats`] and may pass an [`observer`].
//!
//! Guarantees: A message is acknowledged only after Redis has confirmed that its outcome is recorded. Of several
//! outcomes for one message, the first is recorded and the others are dropped. An accepted message is answered to the
//! dispatcher that rules at that time, unless its run is given up or the consumer stops before it is done. Everything
//! that can grow has a limit: connections (`server`), messages held (prefetch), their bytes (`desk`), bytes of results
//! that wait for Redis (`pool`), and bytes that wait for a socket (`outbox`).

mod asking;
mod builder;
mod commit;
mod desk;
mod epochs;
mod error;
mod finished;
mod guard;
mod handler;
pub mod handshake;
mod incomplete;
mod inlet;
mod lane;
mod lanes;
mod link;
pub mod observer;
mod outbox;
mod outlet;
mod peer;
mod pool;
mod refusals;
mod regulars;
mod server;
mod service;
mod socket;
mod stats;
pub mod trust;

pub use self::builder::ConsumerBuilder;
pub use self::error::Error;
pub use self::handler::{Delivery, Handler, HandlerError, Outcome};
pub use self::service::Consumer;
pub use self::stats::{ConsumerStats, LaneStats};
