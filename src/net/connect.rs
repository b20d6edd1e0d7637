//! Connects, with a time limit for each address of a name.
//!
//! Runs on the caller's thread. Limitation: names are resolved by the system, with time limits of its own. A lookup may
//! take minutes, and none of the limits here includes it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::address::Address;
use super::stream::Stream;

/// Connects to an address. Each address of a name has the time limit `limit`.
pub fn connect(address: &Address, limit: Duration) -> io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => {
            let found: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs()?.collect();
            connect_any(&found, limit).map(|(stream, _)| stream)
        }
        Address::Unix(path) => Stream::over_unix(connect_unix(path, limit)?),
    }
}

/// The addresses of `host:port`, in the order in which to try them.
pub fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    address.to_socket_addrs().map(Iterator::collect)
}

/// Connects to the first of these addresses that accepts, and returns that address. Each has the time limit `limit`.
pub fn connect_any(addresses: &[SocketAddr], limit: Duration) -> io::Result<(Stream, SocketAddr)> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        // The standard library rejects a limit of zero as an invalid argument.
        if limit.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(address, limit) {
            Ok(tcp) => return Ok((Stream::over_tcp(tcp)?, *address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connecting to a Unix socket blocks while its backlog is full, limited by the socket's write timeout.
fn connect_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;
    use crate::net::closed::{wait_until_closed, wait_until_closed_at};

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_address_that_accepts_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("it is bound")
        };
        wait_until_closed(closed.port());
        let (_, used) = connect_any(&[closed, open], LIMIT).expect("the second one listens");
        assert_eq!(used, open);
        let refused = connect_any(&[closed], LIMIT).expect_err("nothing listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connect_any(&[], LIMIT).expect_err("no address").kind(), ErrorKind::NotFound);
        assert_eq!(connect_any(&[open], Duration::ZERO).expect_err("no time").kind(), ErrorKind::TimedOut);
        let address = Address::Tcp { host: "localhost".to_owned(), port: open.port() };
        connect(&address, LIMIT).expect("by name");
        assert_eq!(resolve(&open.to_string()).expect("an address"), [open]);
    }

    /// A listener whose backlog is full does not answer. It simulates an address where packets get lost.
    fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
        socket.listen(0).expect("it listens");
        let listener: TcpListener = socket.into();
        let address = listener.local_addr().expect("it is bound");
        let mut waiting = Vec::new();
        while let Ok(tcp) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(tcp);
        }
        (listener, waiting, address)
    }

    #[test]
    fn a_silent_address_costs_its_own_time_alone() {
        let (_listener, _waiting, silent) = silent();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        let limit = Duration::from_millis(400);
        let began = Instant::now();
        let (_, used) = connect_any(&[silent, open], limit).expect("the second one listens");
        assert_eq!(used, open);
        assert!(began.elapsed() >= limit, "the first was given its time: {:?}", began.elapsed());
        let late = connect_any(&[silent], limit).expect_err("nothing answers");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn unix_sockets_are_connected_by_path() {
        let path = std::env::temp_dir().join(format!("oncecast-net-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a free path");
        let connected = connect(&Address::Unix(path.clone()), LIMIT);
        drop(listener);
        wait_until_closed_at(&Address::Unix(path.clone()));
        let refused = connect(&Address::Unix(path.clone()), LIMIT).map(drop);
        std::fs::remove_file(&path).expect("it was made here");
        connected.expect("it listens");
        assert_eq!(refused.expect_err("nothing listens").kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connect(&Address::Unix(path), LIMIT).expect_err("no file").kind(), ErrorKind::NotFound);
    }
}
