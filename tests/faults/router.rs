//! A TCP proxy before several servers: each new connection goes where connections of its kind go at that time, and stays
//! there.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::support::DEADLINE;

/// What a connection is for.
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
    /// Both ends of each connection, whatever has become of it.
    open: Mutex<Vec<(Kind, TcpStream)>>,
    stop: AtomicBool,
}

impl Router {
    /// All connections go to this address at first.
    pub fn to(target: &str) -> Router {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let targets = Mutex::new((target.to_owned(), target.to_owned()));
        let shared = Arc::new(Shared { targets, open: Mutex::default(), stop: AtomicBool::new(false) });
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

    /// Breaks every connection of this kind that there is now.
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
        // The thread waits for a connection: give it one.
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
    fn connect(&self, near: &TcpStream) {
        let Some(kind) = kind_of(near) else { return };
        let target = match (kind, &*self.targets.lock()) {
            (Kind::Commands, (target, _)) | (Kind::Subscription, (_, target)) => target.clone(),
        };
        // Its end tells the client that nobody is there.
        let Ok(far) = TcpStream::connect(&target) else { return drop(near.shutdown(Shutdown::Both)) };
        self.open.lock().extend([near, &far].map(|stream| (kind, clone(stream))));
        let pump = |from: &TcpStream, to: &TcpStream| {
            let (mut from, mut to) = (clone(from), clone(to));
            move || {
                // However it ends, both sides are told.
                let _ = io::copy(&mut from, &mut to);
                let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
            }
        };
        let answers = thread::spawn(pump(&far, near));
        pump(near, &far)();
        let _ = answers.join();
    }
}

/// What a connection is for, by its first command; `None` if it ends before it says so.
fn kind_of(stream: &TcpStream) -> Option<Kind> {
    /// What the shortest first command takes.
    const ENOUGH: usize = 14;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut start = [0; 4_096];
    let count = loop {
        match stream.peek(&mut start) {
            Ok(0) | Err(_) => return None,
            Ok(count) if count >= ENOUGH => break count,
            // The rest of the command is under way.
            Ok(_) => thread::yield_now(),
        }
    };
    stream.set_read_timeout(None).ok()?;
    let has = |word: &[u8]| start[..count].windows(word.len()).any(|window| window == word);
    // A subscription greets and says whose it is.
    Some(if has(b"HELLO") && has(b"oncecast:") { Kind::Subscription } else { Kind::Commands })
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}
