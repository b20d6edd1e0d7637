//! A slow cluster bus: what other nodes send to one node of a Redis Cluster arrives late, in order, as when a machine
//! is busy or far away. What that node sends is not delayed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

/// See the module's text. Its threads end and are joined on drop.
pub struct SlowBus {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    /// The node's own bus port.
    node: u16,
    delay: Duration,
    open: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

impl SlowBus {
    /// In front of a node's bus port.
    pub fn start(node: u16, delay: Duration) -> SlowBus {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let shared = Arc::new(Shared { node, delay, open: Mutex::default(), stop: AtomicBool::new(false) });
        let accepting = shared.clone();
        SlowBus { port, shared, acceptor: Some(thread::spawn(move || accepting.accept(&listener))) }
    }

    /// The port that the node must announce.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for SlowBus {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The acceptor blocks until a connection arrives, so make one.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for stream in self.shared.open.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for other in listener.incoming() {
                let mut open = self.open.lock();
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(other) = other else { continue };
                let Ok(node) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.node)) else { continue };
                open.extend([&other, &node].map(shared));
                let (from_other, to_node, from_node, to_other) =
                    (shared(&other), shared(&node), shared(&node), shared(&other));
                let (late, due) = crossbeam_channel::unbounded();
                let delay = self.delay;
                scope.spawn(move || read(from_other, |bytes| late.send((Instant::now() + delay, bytes)).is_ok()));
                scope.spawn(move || write_when_due(&due, to_node));
                scope.spawn(move || read(from_node, |bytes| (&to_other).write_all(&bytes).is_ok()));
            }
        });
    }
}

/// Reads until either side ends.
fn read(mut from: TcpStream, mut pass_on: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !pass_on(buffer[..count].to_vec()) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

fn write_when_due(due: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (at, bytes) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn shared(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}
