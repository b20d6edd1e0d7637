//! A socket to Redis, of either kind. Nothing here waits for ever: opening and writing have a limit, reading one that its
//! owner sets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::server::Address;

/// A socket of either kind.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; `timeout` is for each address that a host name has, and for each write later.
    pub(super) fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
        let stream = match address {
            Address::Tcp(host, port) => {
                let mut last = io::Error::new(ErrorKind::NotFound, "the host name has no address");
                let mut connected = None;
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => {
                            connected = Some(stream);
                            break;
                        }
                        Err(error) => last = error,
                    }
                }
                let stream = connected.ok_or(last)?;
                stream.set_nodelay(true)?;
                let keepalive =
                    TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                stream.set_write_timeout(Some(timeout))?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(timeout))?;
                Stream::Unix(stream)
            }
        };
        Ok(stream)
    }

    /// How long a read waits.
    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }
}
