//! Free ports on 127.0.0.1, for children that must be told their port before they start.
//!
//! A port is free when it is looked at, not when the child binds it: whoever uses one must be ready to try another.

use std::net::{Ipv4Addr, TcpListener};

use crate::base::error::{Error, Result};

/// Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere). One of those may be
/// taken by any connection while its child is down; even by one that tries to reach the child and so reaches itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
const TRIES: usize = 64;

/// A port on 127.0.0.1 that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let random = (0..TRIES).map(|_| fastrand::u16(RANGE)).find(|port| listen(*port).is_ok());
    match random {
        Some(port) => Ok(port),
        // A crowded machine: whatever the system has.
        None => listen(0)
            .and_then(|listener| listener.local_addr())
            .map(|address| address.port())
            .map_err(Error::io("looking for a free port on 127.0.0.1")),
    }
}
