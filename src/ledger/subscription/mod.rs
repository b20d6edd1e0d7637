//! The subscription of a dispatcher or a shadow, and what it receives.

mod bus;
mod channels;
mod client;
mod copies;
mod gathering;
mod own_events;
mod rights;
mod seen;

pub use self::channels::{Channels, Subscriber};
pub use self::client::{CLIENT_NAME_PREFIX, Subscription};
pub use self::seen::{Batch, Length, Published, Seen};
pub use super::notice::Notice;
