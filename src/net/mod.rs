//! The one place that makes sockets: connecting, listening, accepting, and socket options.
//!
//! [`connect()`] and [`Listener::accept`] give a [`Stream`]. Each direction has its own [`Wait`]: no limit, a limit for
//! each call, or a deadline. For use by two threads a stream is [split](Stream::split) into a [`ReadHalf`] and a
//! [`WriteHalf`]. Either of them, and any [`Closer`], can end the whole connection.
//!
//! A stream is a TCP or a Unix socket. That is private to `raw`, so that TLS can be added: the halves share one value,
//! which could hold the state of TLS under one lock, while the raw socket is read and written outside the lock.

mod address;
mod connect;
mod listener;
mod raw;
mod stream;

pub use self::address::{Address, reachable};
pub use self::connect::{connect, connect_any, resolve};
pub use self::listener::{Listener, NotAccepted};
pub use self::stream::{Closer, Keepalive, ReadHalf, Stream, Wait, WriteHalf, is_transient};
