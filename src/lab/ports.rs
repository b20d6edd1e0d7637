//! Free ports on 127.0.0.1, for child processes that need to know their port before they start.
//!
//! Limitations: another process may take the port before the child binds it. Callers must then try another.

use crate::base::error::{Error, Result};
use crate::net::Listener;

/// Below the ports of outgoing connections (from 32768 on Linux, 49152 elsewhere). An outgoing connection may take one
/// of those ports while the child is down. Even a connection to the child itself may take it, and then connects to
/// itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
const TRIES: usize = 64;

/// A port of 127.0.0.1 on which no process listens at the moment.
pub fn free_port() -> Result<u16> {
    let listen = |port| Listener::bind(&format!("127.0.0.1:{port}"));
    let random = (0..TRIES).map(|_| fastrand::u16(RANGE)).find(|port| listen(*port).is_ok());
    match random {
        Some(port) => Ok(port),
        // None in the range is free: take any that the system offers.
        None => listen(0)
            .and_then(|listener| listener.address())
            .map(|address| address.port())
            .map_err(Error::io("looking for a free port on 127.0.0.1")),
    }
}
