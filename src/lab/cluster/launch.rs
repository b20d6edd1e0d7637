//! Starting a process that listens on a port of 127.0.0.1.
//!
//! A port that was free a moment ago may be taken before the process binds it. Then another port is tried, or, if the
//! process must have this one, the same port again.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::lab::child::ChildProcess;
use crate::lab::ports;
use crate::lab::wait::wait_until;
use crate::net;

/// How long a process may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How many ports are tried.
const PORT_TRIES: usize = 8;

/// Calls `start` with one free port after another until the process listens there. Returns the port and the process.
pub(super) fn on_free_port(start: impl Fn(SocketAddr) -> Result<ChildProcess>) -> Result<(u16, ChildProcess)> {
    let mut tries = 1;
    loop {
        let port = ports::free_port()?;
        match start((Ipv4Addr::LOCALHOST, port).into()) {
            Ok(process) => return Ok((port, process)),
            Err(error) if tries < PORT_TRIES && is_port_taken(&error) => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Calls `start` until the process listens on the port that it had before.
pub(super) fn on_former_port(
    address: SocketAddr,
    start: impl Fn(SocketAddr) -> Result<ChildProcess>,
) -> Result<ChildProcess> {
    wait_until(LISTEN_LIMIT, format!("{address} to be free again"), || match start(address) {
        Err(error) if is_port_taken(&error) => Ok(None),
        outcome => outcome.map(Some),
    })
}

/// Starts `command` and waits until it listens on `address`.
pub(super) fn listening(name: &str, command: Command, address: SocketAddr) -> Result<ChildProcess> {
    let mut process = ChildProcess::spawn(name, command)?;
    wait_until(LISTEN_LIMIT, format!("{name} to listen on {address}"), || {
        process.must_run()?;
        Ok(net::connect_any(&[address], CONNECT_LIMIT).ok())
    })?;
    // Another program may have taken the port first and accepted the connection.
    process.must_run()?;
    Ok(process)
}

fn is_port_taken(error: &Error) -> bool {
    // Node writes "address already in use".
    let text = error.to_string().to_lowercase();
    text.contains("address already in use") || text.contains("os error 98")
}
