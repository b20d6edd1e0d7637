//! Write a consumer for Oncecast: consumer groups for Redis Pub/Sub.
//!
//! Every message that is published on a channel is processed by one consumer of its group, and its result is stored
//! once. Dispatchers (`oncecast-dispatcher`) take messages in and connect to consumers; this library is the consumer.
//!
//! ```no_run
//! use oncecast::{Consumer, Delivery, Outcome};
//!
//! fn main() -> Result<(), oncecast::Error> {
//!     let consumer = Consumer::builder()
//!         .redis_url("redis://127.0.0.1:6379")
//!         .listen("127.0.0.1:6969")
//!         .handler(|message: &Delivery<'_>| {
//!             let text = std::str::from_utf8(message.payload())?;
//!             Ok(Outcome::new().field("shouted", text.to_uppercase()))
//!         })
//!         .bind()?;
//!     let stop = consumer.shutdown_handle();
//!     std::thread::spawn(move || {
//!         // … until it is time to stop.
//!         stop.shutdown();
//!     });
//!     consumer.run()
//! }
//! ```
//!
//! - A [`Handler`] is a closure, called by several threads at the same time. Its [`Outcome`] becomes an entry of the
//!   stream `<group>:processed` in Redis, in the same step that ends the message. A [`HandlerError`] makes the
//!   dispatcher deliver the message again, or move it to the dead letters.
//! - Only one result of a message is recorded, but a handler may run more than once for it: make side effects
//!   idempotent.
//! - [`Consumer::run`] blocks its thread. All work is done by threads; nothing here is async.
//!
//! The library logs through the crate `log`, and installs no logger. It catches no signals unless
//! [`Consumer::stop_on_signals`](Consumer) is called, serves no metrics and does not talk to systemd:
//! [`Consumer::stats`] returns what a program needs to do so.
//!
//! # Features
//!
//! - `programs` (default): the programs `oncecast-dispatcher`, `oncecast-consumer`, `oncecast-publisher` and
//!   `oncecast`, and what they need. Embed the library with `default-features = false`.
//! - `tls` (default): TLS to Redis (`rediss://`) and on the links from dispatchers, by rustls. Without it these
//!   settings are refused.
//! - `signals` (part of `programs`): `Consumer::stop_on_signals`.
//!
//! # Stability
//!
//! Modules and items that this documentation does not show exist for the programs and tests of this package, and may
//! change in any release. `docs/ARCHITECTURE.md` in the repository is the map of the code.

// Reachable for the programs and the tests of this package. Unstable; see above.
#[doc(hidden)]
pub mod base;
#[cfg(feature = "programs")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod consumer;
#[cfg(feature = "programs")]
#[doc(hidden)]
pub mod lab;
#[cfg(feature = "programs")]
#[doc(hidden)]
pub mod lane;
#[doc(hidden)]
pub mod ledger;
#[doc(hidden)]
pub mod net;
#[cfg(feature = "programs")]
#[doc(hidden)]
pub mod process;
#[cfg(feature = "programs")]
#[doc(hidden)]
pub mod programs;
#[doc(hidden)]
pub mod wire;

pub use base::id::MessageId;
pub use base::shutdown::ShutdownHandle;
pub use consumer::{Consumer, ConsumerBuilder, ConsumerStats, Delivery, Error, Handler, HandlerError, Outcome};
