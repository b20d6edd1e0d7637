//! The subscription of a dispatcher, and what it receives.

mod client;
mod gathering;
mod own_events;
mod rights;
mod seen;

pub use self::client::{CLIENT_NAME_PREFIX, Channels, Subscription};
pub use self::seen::{Batch, Length, Published, Seen};
pub use super::notice::Notice;
