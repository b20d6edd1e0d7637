//! The consumer: a WebSocket server that runs a handler on each message that it receives and records each outcome once.
//!
//! ```text
//!  dispatcher ──► read-N ──PROCESS──► desk ──► handler-N ──outcome──► commit ──► Redis
//!      ▲                               │           │                    │
//!      └───────── write-N ◄── outbox ◄─┴── NACK ◄──┴───────── ACK ◄─────┘
//! ```
//!
//! In reading order: `handler` is what a user writes; `builder` checks the settings; `service` starts and stops the
//! rest. `server` accepts connections and owns their threads, `refusals` limits what useless connections cost; `link`
//! is one connection, which begins with a `handshake`; `inlet` is its reading side; its two threads share `socket` and
//! `outbox`. `lane` is the state of one group: `epochs` asks Redis whether a new leader's epoch is genuine, `desk`
//! decides which dispatcher may deliver and where answers go, `commit` records outcomes. `pool` runs handlers.
//!
//! It knows nothing of the process that it runs in: no settings but the builder's, no metrics, no signals, no systemd.
//! The program around it reads [`ConsumerStats`], and may pass an [`observer`].
//!
//! Guarantees: a message is acknowledged only after Redis has said that its outcome is recorded; of several outcomes
//! for one message the first is recorded and the others dropped; every accepted message is answered, to the dispatcher
//! that rules at that time. Everything that can grow has a limit: connections (`server`), messages held (prefetch),
//! their bytes (`desk`), results that wait for Redis (`pool`), and bytes that wait for a socket (`outbox`).

mod builder;
mod commit;
mod desk;
mod epochs;
mod error;
mod handler;
mod handshake;
mod inlet;
mod lane;
mod link;
pub mod observer;
mod outbox;
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
pub use self::stats::ConsumerStats;
