//! TLS over the sockets of this room: who is trusted (`config`), the state machine of a connection (`session`), and
//! what is wrong if it fails (`problem`).
//!
//! The peer's certificate is always checked, its names included. Nothing turns that off.

mod config;
mod der;
mod pem;
mod problem;
mod session;

pub use self::config::{ClientTls, ServerTls};
pub use self::der::not_after;
pub(super) use self::session::Session;

/// Whether TLS is built in.
pub const IS_BUILT_IN: bool = true;

#[cfg(test)]
mod tests;
