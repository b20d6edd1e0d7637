//! The one place that makes sockets: connecting, listening, accepting, and socket options.
//!
//! [`connect()`] and [`Listener::accept`] give a [`Stream`]. Each direction has its own [`Wait`]: no limit, a limit for
//! each call, or a deadline. For use by two threads a stream is [split](Stream::split) into a [`ReadHalf`] and a
//! [`WriteHalf`]. Either of them, and any [`Closer`], can end the whole connection.
//!
//! [`LinkSecret`] is the file by which both ends of a link know each other.
//!
//! A stream is a TCP or a Unix socket, which is private to `raw`, or TLS over a TCP socket ([`Stream::secure`]). Then
//! the halves share the state of TLS under one lock, and read and write the raw socket outside the lock.

mod address;
#[cfg(test)]
pub(crate) mod closed;
mod connect;
mod kept;
mod link_secret;
mod listener;
mod raw;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_absent.rs"]
mod tls;
mod tls_files;
mod wait;

pub use self::address::{Address, reachable};
pub use self::connect::{connect, connect_any, resolve};
pub use self::link_secret::{LinkSecret, SECRET_TAKES, Secret, random_bytes};
pub use self::listener::{Listener, NotAccepted};
pub use self::stream::{Closer, Keepalive, ReadHalf, Stream, WriteHalf};
#[cfg(feature = "tls")]
pub use self::tls::not_after;
pub use self::tls::{ClientTls, IS_BUILT_IN as HAS_TLS, ServerTls};
pub use self::tls_files::{ClientFiles, FileProblem, Identity, PemFile, ServerFiles};
pub use self::wait::{Wait, is_transient};
