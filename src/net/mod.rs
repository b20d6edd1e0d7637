//! The one place that makes sockets: connecting, listening, accepting, and what every socket is set to.
//!
//! [`connect()`] and [`Listener::accept`] give a [`Stream`]. Each direction waits as its [`Wait`] says: without a
//! limit, for each call, or until a deadline. A stream that two threads use is [split](Stream::split) into a
//! [`ReadHalf`] and a [`WriteHalf`], one owner each; either of them, and any [`Closer`], can end the whole connection.
//!
//! A stream is plain TCP or a Unix socket today. What it is made of is private to `raw`, so that it can become TLS: the
//! halves share one value, which can then hold the state of TLS under one lock, while the raw socket is read and
//! written outside it.

mod address;
mod connect;
mod listener;
mod raw;
mod stream;

pub use self::address::{Address, reachable};
pub use self::connect::{connect, connect_any, resolve};
pub use self::listener::{Listener, NotAccepted};
pub use self::stream::{Closer, Keepalive, ReadHalf, Stream, Wait, WriteHalf, is_transient};
