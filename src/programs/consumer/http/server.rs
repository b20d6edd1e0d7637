//! Whether the HTTP server listens, and at which addresses.
//!
//! One thread looks: once at the start, then whenever a request found that nothing listens, with growing waits until
//! something does. A look is a lookup of the name and a TCP connection that is closed at once. While the server
//! listens, the thread only looks the name up from time to time, so that requests follow a name that moves. Requests
//! use the addresses found last and never wait for a lookup.
//!
//! Limitation: a lookup may take as long as the system allows. Whoever drops the handle does not wait for that: the
//! thread ends as soon as its lookup does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::base::backoff::Backoff;
use crate::net::{connect_any, resolve};

/// The most time for connecting to any of the addresses.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a start waits for the first look. After that the server counts as absent until the look is over.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(2);
/// The waits between looks while nothing listens.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// How often the name is looked up while the server listens.
const LOOKUP_EVERY: Duration = Duration::from_secs(30);

/// See the module's text. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    /// Makes the thread look now. One request to look may wait.
    wake: Sender<()>,
}

#[derive(Debug)]
enum State {
    Listens(Vec<SocketAddr>),
    /// With the reason.
    Absent(String),
}

/// The thread's parts.
struct Watch {
    /// `host:port`.
    address: String,
    state: Arc<Mutex<State>>,
    woken: Receiver<()>,
}

impl Server {
    /// Starts the thread, and waits a moment for its first look. `host` is an IPv6 address without brackets, or
    /// anything else.
    pub(super) fn watch(host: &str, port: u16) -> io::Result<Server> {
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let state = Arc::new(Mutex::new(State::Absent(format!("{address}: the name has not been looked up yet"))));
        let (wake, woken) = bounded(1);
        let (looked, first_look) = bounded(1);
        let watch = Watch { address, state: state.clone(), woken };
        thread::Builder::new().name("http-watch".to_owned()).spawn(move || watch.run(&looked))?;
        let _ = first_look.recv_timeout(FIRST_LOOK_LIMIT);
        Ok(Server { state, wake })
    }

    /// Whether the server listens, as far as is known; the reason if not.
    pub(super) fn ready(&self) -> Result<(), String> {
        self.addresses().map(drop)
    }

    /// The server's addresses, if it listens.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        match &*self.state.lock() {
            State::Listens(addresses) => Ok(addresses.clone()),
            State::Absent(reason) => Err(reason.clone()),
        }
    }

    /// As if the name had these addresses and something listened.
    #[cfg(test)]
    pub(super) fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.state.lock() = State::Listens(addresses);
    }

    /// A request has connected to this address, so it is the first to be tried from now on.
    pub(super) fn note_used(&self, used: SocketAddr) {
        if let State::Listens(addresses) = &mut *self.state.lock() {
            put_first(addresses, used);
        }
    }

    /// A request could not connect: the server counts as absent until the thread finds it.
    pub(super) fn note_absent(&self, reason: &str) {
        *self.state.lock() = State::Absent(reason.to_owned());
        // If it is full, the thread is about to look.
        let _ = self.wake.try_send(());
    }
}

impl Watch {
    /// The thread's main loop.
    fn run(self, looked: &Sender<()>) {
        let (mut backoff, mut listens) = (BACKOFF, false);
        loop {
            let wait = match self.look(listens) {
                Ok((mut addresses, connected)) => {
                    backoff.reset();
                    listens = true;
                    let mut state = self.state.lock();
                    let used = match &*state {
                        State::Listens(before) => connected.or(before.first().copied()),
                        State::Absent(_) => connected,
                    };
                    used.into_iter().for_each(|used| put_first(&mut addresses, used));
                    *state = State::Listens(addresses);
                    LOOKUP_EVERY
                }
                // A name that can't be looked up for a while: the addresses found last may still be right.
                Err(_) if listens => LOOKUP_EVERY,
                Err(problem) => {
                    *self.state.lock() = State::Absent(format!("{}: {problem}", self.address));
                    backoff.next_wait()
                }
            };
            let _ = looked.try_send(());
            match self.woken.recv_timeout(wait) {
                Ok(()) => listens = false,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks the name up, and connects if it is not known that the server listens. Returns the addresses, and the one
    /// to which it has connected.
    fn look(&self, listens: bool) -> io::Result<(Vec<SocketAddr>, Option<SocketAddr>)> {
        let addresses = resolve(&self.address)?;
        if listens {
            return Ok((addresses, None));
        }
        let (_, used) = connect_any(&addresses, CONNECT_LIMIT / addresses.len().max(1) as u32)?;
        Ok((addresses, Some(used)))
    }
}

/// Moves this address to the front, if it is there.
fn put_first(addresses: &mut [SocketAddr], first: SocketAddr) {
    if let Some(at) = addresses.iter().position(|address| *address == first) {
        addresses[..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;
    use crate::net::closed::wait_until_closed;

    #[test]
    fn a_server_that_appears_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        wait_until_closed(address.port());
        let server = Server::watch("127.0.0.1", address.port()).expect("a thread");
        let reason = server.ready().expect_err("nothing listens");
        assert!(reason.starts_with(&format!("{address}: ")) && reason.contains("refused"), "{reason}");
        let _listener = TcpListener::bind(address).expect("it is still free");
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.ready().is_err() {
            assert!(Instant::now() < deadline, "{:?}", server.ready());
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(server.addresses(), Ok(vec![address]));
    }

    #[test]
    fn a_server_that_is_reported_absent_is_looked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = Server::watch("localhost", address.port()).expect("a thread");
        assert_eq!(server.ready(), Ok(()));
        listener.accept().expect("the look");
        server.note_absent("refused");
        // The thread connects again.
        listener.accept().expect("another look");
    }

    #[test]
    fn the_address_used_last_is_tried_first() {
        let mut all: Vec<SocketAddr> = (1..=4).map(|host| SocketAddr::from(([127, 0, 0, host], 80))).collect();
        let (third, absent) = (all[2], SocketAddr::from(([127, 0, 0, 9], 80)));
        put_first(&mut all, third);
        put_first(&mut all, absent);
        assert_eq!(
            all.iter().map(|one| one.ip().to_string()).collect::<Vec<_>>(),
            ["127.0.0.3", "127.0.0.1", "127.0.0.2", "127.0.0.4"]
        );
    }

    #[test]
    fn a_name_that_is_not_found_is_a_reason() {
        let server = Server::watch("no-such-host.invalid", 80).expect("a thread");
        let reason = server.ready().expect_err("there is no such host");
        assert!(reason.starts_with("no-such-host.invalid:80: "), "{reason}");
    }
}
