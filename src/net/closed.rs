//! For tests: an address at which nothing listens any more.
//!
//! A process that another test starts at the same moment has a copy of every socket until it runs its program. So a
//! listener that was just dropped may still accept.

use std::thread;
use std::time::{Duration, Instant};

use super::{Address, connect};

/// Waits until nothing listens on a port of 127.0.0.1 whose listener was dropped.
pub(crate) fn wait_until_closed(port: u16) {
    wait_until_closed_at(&Address::Tcp { host: "127.0.0.1".to_owned(), port });
}

/// The same for any address.
pub(crate) fn wait_until_closed_at(address: &Address) {
    const LIMIT: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + LIMIT;
    while connect(address, LIMIT).is_ok() {
        assert!(Instant::now() < deadline, "something listens at {address}");
        thread::sleep(Duration::from_millis(1));
    }
}
