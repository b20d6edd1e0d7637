//! The built-in handler `http`: sends each message to an HTTP server as a POST, and makes an outcome of the answer.
//!
//! In reading order: `settings` reads the URL, `target` checks it, `handler` is what runs for each message, and
//! `answer` decides what an answer means. `request` has the headers. `connection` is what ureq sends and receives over,
//! and `server` knows whether the server listens.
//!
//! The handler runs on the threads of the pool. `server` has a thread of its own, so that no handler waits for a name
//! to be looked up.
//!
//! Guarantees: A request that could not be sent is not a delivery: the consumer is not ready until something listens. A
//! request is sent once for each delivery, with one exception: a kept connection that the server closes within
//! `STALE_WITHIN` without a byte of an answer. Then the request was most likely not read,
//! and is sent once more, over a new connection, with a line in the log. Each request has one time limit, from the
//! connection to the last byte of the answer. There are at most as many connections as handler threads, and the size
//! of an answer and of its headers is limited. No proxy is used, and no redirect is followed.
//!
//! Limitations: There is no TLS. An answer of HTTP/1.0 without a Content-Length ends with the connection, so one that
//! is cut off can't be told from a whole one.

mod answer;
mod connection;
mod handler;
mod request;
mod server;
pub mod settings;
mod target;

pub use self::answer::retry_after;
pub(super) use self::handler::{DEFAULT_LIMIT, HttpHandler};
pub use self::target::Target;

#[cfg(test)]
mod tests;
