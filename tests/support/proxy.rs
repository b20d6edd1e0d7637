//! A TCP proxy whose connections the test cuts.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// Forwards connections to one address; stopped on drop.
pub struct Proxy {
    pub address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn to(target: &str) -> Proxy {
        Proxy::at("127.0.0.1:0", target)
    }

    /// A proxy that listens on a given address.
    pub fn at(address: &str, target: &str) -> Proxy {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (open, stopping) = (Arc::default(), Arc::default());
        let acceptor =
            Acceptor { listener, target: target.to_owned(), open: Arc::clone(&open), stopping: Arc::clone(&stopping) };
        Proxy { address, open, stopping, thread: Some(thread::spawn(move || acceptor.run())) }
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        for stream in self.open.lock().drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // The thread blocks until a connection arrives, so make one.
        let _ = TcpStream::connect(&self.address);
        self.cut();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Acceptor {
    listener: TcpListener,
    target: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopping: Arc<AtomicBool>,
}

impl Acceptor {
    fn run(self) {
        let mut pumps = Vec::new();
        for near in self.listener.incoming() {
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            let near = near.expect("a connection");
            let Ok(far) = TcpStream::connect(&self.target) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (clone(from), clone(to));
                self.open.lock().push(clone(&from));
                pumps.push(thread::spawn(move || {
                    // However it ends, close both sides.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                }));
            }
        }
        for pump in pumps {
            let _ = pump.join();
        }
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}
