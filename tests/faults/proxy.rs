//! A proxy in front of Redis that loses replies: it forwards a chosen request, waits until Redis has answered, and
//! closes the connection without forwarding the answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

/// How soon a stop is noticed.
const LOOK: Duration = Duration::from_millis(20);

/// See the module's text. Its threads end and are joined on drop.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    redis: String,
    /// A request whose reply may be lost contains one of these.
    needles: [&'static [u8]; 2],
    /// Chooses the requests that lose theirs.
    dice: Mutex<Dice>,
    lost: AtomicU64,
    stop: AtomicBool,
}

struct Dice {
    random: fastrand::Rng,
    one_in: u64,
}

impl Proxy {
    /// One of `one_in` requests that contain one of `needles` loses its reply, or the rest of its replies.
    pub fn start(redis: &str, needles: [&'static [u8]; 2], random: fastrand::Rng, one_in: u64) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it listens");
        listener.set_nonblocking(true).expect("our own socket");
        let shared = Arc::new(Shared {
            redis: redis.to_owned(),
            needles,
            dice: Mutex::new(Dice { random, one_in }),
            lost: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Proxy { address, shared, acceptor: Some(acceptor) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many replies were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Loses no replies from now on.
    pub fn heal(&self) {
        self.shared.dice.lock().one_in = u64::MAX;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut pairs = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((client, _)) = listener.accept() else {
                thread::sleep(LOOK / 10);
                continue;
            };
            let Ok(redis) = TcpStream::connect(&self.redis) else { continue };
            for stream in [&client, &redis] {
                stream.set_nonblocking(false).expect("our own socket");
                stream.set_nodelay(true).expect("our own socket");
                stream.set_read_timeout(Some(LOOK)).expect("our own socket");
            }
            let doomed = Arc::new(AtomicBool::new(false));
            for there in [true, false] {
                let (this, doomed) = (self.clone(), doomed.clone());
                let (client, redis) = (client.try_clone().expect("a socket"), redis.try_clone().expect("a socket"));
                pairs.push(thread::spawn(move || {
                    if there {
                        this.pass_on(&client, &redis, &doomed)
                    } else {
                        this.answer(&redis, &client, &doomed)
                    }
                    let _ = (client.shutdown(Shutdown::Both), redis.shutdown(Shutdown::Both));
                }));
            }
        }
        pairs.into_iter().for_each(|thread| drop(thread.join()));
    }

    /// From the client to Redis. Sets `doomed` before it forwards a request whose reply must be lost.
    fn pass_on(&self, client: &TcpStream, redis: &TcpStream, doomed: &AtomicBool) {
        // The bytes read last, since a request may arrive in pieces.
        let mut tail: Vec<u8> = Vec::new();
        self.copy(client, redis, |bytes| {
            tail.extend_from_slice(bytes);
            let found = |needle: &&[u8]| tail.windows(needle.len()).any(|window| window == *needle);
            if self.needles.iter().any(found) {
                tail.clear();
                let Dice { random, one_in } = &mut *self.dice.lock();
                if random.u64(0..*one_in) == 0 {
                    doomed.store(true, Ordering::SeqCst);
                }
            }
            let longest = self.needles.iter().map(|needle| needle.len()).max().unwrap_or(0);
            tail.drain(..tail.len().saturating_sub(longest.saturating_sub(1)));
            true
        });
    }

    /// From Redis to the client, until a reply must be lost. The answer shows that Redis has executed the request.
    fn answer(&self, redis: &TcpStream, client: &TcpStream, doomed: &AtomicBool) {
        self.copy(redis, client, |_| {
            let lose = doomed.load(Ordering::SeqCst);
            self.lost.fetch_add(lose.into(), Ordering::Relaxed);
            !lose
        });
    }

    /// Copies until one side ends or `look` returns `false` for the bytes read.
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, mut look: impl FnMut(&[u8]) -> bool) {
        let mut buffer = vec![0; 64 << 10];
        while !self.stop.load(Ordering::Relaxed) {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if !look(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() => return,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                Err(_) => return,
            }
        }
    }
}
