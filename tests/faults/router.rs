//! A TCP proxy in front of several servers: each new connection goes to the current target for its kind and stays
//! there. If nothing listens there, it is accepted and closed. Subscriptions may be slowed down.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::DEADLINE;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Commands,
    Subscription,
}

/// See the module's text. Its connections are closed and its threads joined on drop.
pub struct Router {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    /// Where new connections go, by kind.
    targets: Mutex<(String, String)>,
    /// Both ends of each connection, closed ones included.
    open: Mutex<Vec<(Kind, TcpStream)>>,
    /// How many connections were closed because nothing listens at their target.
    closed: AtomicU64,
    /// The bytes per second of each subscription; 0 means no limit.
    subscription_bytes_per_s: AtomicU64,
    stop: AtomicBool,
}

impl Router {
    /// All connections go to this address at first.
    pub fn to(target: &str) -> Router {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let targets = Mutex::new((target.to_owned(), target.to_owned()));
        let shared = Arc::new(Shared {
            targets,
            open: Mutex::default(),
            closed: AtomicU64::new(0),
            subscription_bytes_per_s: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        Router { address, shared, acceptor: Some(thread::spawn(move || accepting.accept(&listener))) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on new connections of this kind go here.
    pub fn route(&self, kind: Kind, target: &str) {
        let targets = &mut *self.shared.targets.lock();
        match kind {
            Kind::Commands => target.clone_into(&mut targets.0),
            Kind::Subscription => target.clone_into(&mut targets.1),
        }
    }

    /// How many connections were accepted and closed because nothing listens at their target.
    pub fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Limits each subscription to this many bytes per second from now on.
    pub fn slow_subscriptions_down(&self, bytes_per_s: u64) {
        self.shared.subscription_bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Closes every open connection of this kind.
    pub fn cut(&self, kind: Kind) {
        self.shared.open.lock().retain(|(of, stream)| {
            if *of == kind {
                // It may be closed already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            *of != kind
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The thread blocks until a connection arrives, so make one.
        let _ = TcpStream::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut connections = Vec::new();
        for near in listener.incoming() {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            let (near, this) = (near.expect("a connection"), self.clone());
            connections.push((clone(&near), thread::spawn(move || this.connect(&near))));
        }
        for (near, connection) in connections {
            // Its thread then closes the other end.
            let _ = near.shutdown(Shutdown::Both);
            let _ = connection.join();
        }
    }

    /// Passes a connection on until it ends.
    fn connect(self: Arc<Self>, near: &TcpStream) {
        let Some(kind) = kind_of(near) else { return };
        let target = match (kind, &*self.targets.lock()) {
            (Kind::Commands, (target, _)) | (Kind::Subscription, (_, target)) => target.clone(),
        };
        // Closing it tells the client that nothing listens.
        let Ok(far) = TcpStream::connect(&target) else {
            self.closed.fetch_add(1, Ordering::Relaxed);
            return drop(near.shutdown(Shutdown::Both));
        };
        self.open.lock().extend([near, &far].map(|stream| (kind, clone(stream))));
        let (from, to, this) = (clone(&far), clone(near), self.clone());
        let answers = thread::spawn(move || {
            // However it ends, close both sides.
            let _ = this.answer(kind, &from, &to);
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        });
        let _ = io::copy(&mut &*near, &mut &far);
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
        let _ = answers.join();
    }

    /// Copies what the server sends, a subscription at the limited rate.
    fn answer(&self, kind: Kind, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..count])?;
            let bytes_per_s = self.subscription_bytes_per_s.load(Ordering::Relaxed);
            if kind == Kind::Subscription && bytes_per_s > 0 {
                thread::sleep(Duration::from_secs_f64(count as f64 / bytes_per_s as f64));
            }
        }
    }
}

/// The purpose of a connection, by its first command; `None` if it ends before that.
fn kind_of(stream: &TcpStream) -> Option<Kind> {
    /// The length of the shortest first command.
    const ENOUGH: usize = 14;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut start = [0; 4_096];
    let count = loop {
        match stream.peek(&mut start) {
            Ok(0) | Err(_) => return None,
            Ok(count) if count >= ENOUGH => break count,
            // The rest of the command is still to come.
            Ok(_) => thread::yield_now(),
        }
    };
    stream.set_read_timeout(None).ok()?;
    let has = |word: &[u8]| start[..count].windows(word.len()).any(|window| window == word);
    // Only subscriptions send both HELLO and a client name.
    Some(if has(b"HELLO") && has(b"oncecast:") { Kind::Subscription } else { Kind::Commands })
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}
