//! Listens and accepts. A failure to accept is sorted by what the accepting thread should do about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

use super::stream::Stream;

/// Too many open files in this process, and in the whole system. All Unix systems have these numbers; std has no names.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// Why no connection was accepted. The text of a failure says what to do about it.
#[derive(Debug)]
pub enum NotAccepted {
    /// No connection is waiting and the listener does not block, none arrived in time, or a signal came.
    Nothing,
    /// A connection failed before it was accepted, which says nothing about the next one: accept again at once.
    Passing(io::Error),
    /// The system refuses a socket, usually for lack of files (`EMFILE`, `ENFILE`) or memory. The connection stays in
    /// the queue, so accepting again at once would spin: pause, or close a connection first.
    Exhausted(io::Error),
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAccepted::Nothing => f.write_str("no connection is waiting"),
            NotAccepted::Passing(error) | NotAccepted::Exhausted(error) => write!(f, "{error}: {}", advice(error)),
        }
    }
}

/// What to do about a failure to accept.
fn advice(error: &io::Error) -> &'static str {
    match (error.raw_os_error(), error.kind()) {
        (Some(EMFILE), _) => "raise this process's limit of files (LimitNOFILE, ulimit -n)",
        (Some(ENFILE), _) => "raise the system's limit of files (fs.file-max)",
        (_, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
            "the peer gave up; if that continues, find out who connects"
        }
        (_, ErrorKind::NetworkDown | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            "check this machine's network"
        }
        (_, ErrorKind::PermissionDenied) => "check this machine's firewall",
        _ => "it is tried again; if that continues, check this machine's memory and network, then restart",
    }
}

impl std::error::Error for NotAccepted {}

impl From<io::Error> for NotAccepted {
    fn from(error: io::Error) -> NotAccepted {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => NotAccepted::Nothing,
            // Linux also returns pending network errors of the connection that is accepted. A refusal by a security
            // module is not among them: it may hold for every connection.
            ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable => NotAccepted::Passing(error),
            _ => NotAccepted::Exhausted(error),
        }
    }
}

impl Listener {
    /// Listens on `host:port`; port 0 selects any free port.
    pub fn bind(address: &str) -> io::Result<Listener> {
        TcpListener::bind(address).map(Listener)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// From now on [`accept`](Listener::accept) does not wait for a connection.
    pub fn unblock(&self) -> io::Result<()> {
        self.0.set_nonblocking(true)
    }

    /// From now on [`accept`](Listener::accept) waits for a connection for at most `limit`.
    pub fn set_wait(&self, limit: Duration) -> io::Result<()> {
        // On a listening socket this timeout applies to accepting.
        SockRef::from(&self.0).set_read_timeout(Some(limit))
    }

    /// Refuses connections from now on, and ends a wait in [`accept`](Listener::accept) on another thread at once. If
    /// the system can't do that, the wait ends after its limit.
    pub fn close(&self) {
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }

    /// Accepts a connection, which blocks whether or not the listener does. Also returns the peer's address.
    pub fn accept(&self) -> Result<(Stream, SocketAddr), NotAccepted> {
        let (tcp, peer) = self.0.accept()?;
        // The peer may be gone already.
        let prepared = tcp.set_nonblocking(false).and_then(|()| Stream::over_tcp(tcp));
        Ok((prepared.map_err(NotAccepted::Passing)?, peer))
    }

    /// Whether `files` more files can be opened.
    pub fn has_spare_files(&self, files: usize) -> bool {
        (0..files).map(|_| self.0.try_clone()).collect::<io::Result<Vec<_>>>().is_ok()
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_connection_is_accepted_with_its_address_and_blocks() {
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        listener.unblock().expect("our own socket");
        assert!(matches!(listener.accept(), Err(NotAccepted::Nothing)));
        let mut peer = TcpStream::connect(listener.address().expect("it is bound")).expect("it listens");
        let (mut stream, address) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(NotAccepted::Nothing) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(address, peer.local_addr().expect("it is connected"));
        let reader = std::thread::spawn(move || {
            let mut byte = [0];
            stream.read_exact(&mut byte).map(|()| byte)
        });
        peer.write_all(b"x").expect("it is buffered");
        assert_eq!(reader.join().expect("no panic").expect("it waited"), *b"x");
    }

    #[test]
    fn a_wait_ends_in_its_time_or_when_the_listener_is_closed() {
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        listener.set_wait(Duration::from_millis(20)).expect("our own socket");
        assert!(matches!(listener.accept(), Err(NotAccepted::Nothing)));
        listener.set_wait(Duration::from_secs(3600)).expect("our own socket");
        let address = listener.address().expect("it is bound");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept().map(drop));
            listener.close();
            assert!(matches!(waiting.join().expect("no panic"), Err(NotAccepted::Exhausted(_))));
        });
        assert!(TcpStream::connect(address).is_err(), "it is refused");
    }

    #[test]
    fn failures_are_sorted_by_what_to_do() {
        let of = |code| NotAccepted::from(io::Error::from_raw_os_error(code));
        for (code, advice) in [(EMFILE, "LimitNOFILE"), (ENFILE, "fs.file-max")] {
            assert!(matches!(of(code), NotAccepted::Exhausted(_)));
            assert!(of(code).to_string().contains(advice), "{}", of(code));
        }
        let down = NotAccepted::from(io::Error::from(ErrorKind::NetworkDown));
        assert!(matches!(down, NotAccepted::Passing(_)) && down.to_string().ends_with("network"), "{down}");
        let passing = NotAccepted::from(io::Error::from(ErrorKind::ConnectionAborted));
        assert!(matches!(passing, NotAccepted::Passing(_)));
        assert!(Listener::bind("127.0.0.1:0").expect("a free port").has_spare_files(4));
    }
}
