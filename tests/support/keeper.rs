//! A consumer without Redis on a thread of its own, written from section 9 of docs/PROTOCOL.md. With the subprotocol
//! oncecast.2 it keeps each result until it is confirmed, and panics if the dispatcher breaks a rule.
//!
//! Cutting its link drops the connection with everything that has not been read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId};
use oncecast::wire::{self, Field, Frame, MessageResult, ReadyFlags};
use tungstenite::{Message, WebSocket};

use super::peer::accept_selecting;
use super::results::id_in_payload;
use super::waiting::{DEADLINE, wait_until};

const PREFETCH: usize = 64;
/// How long a message takes at most.
const MOST_WORK_MS: u64 = 20;
/// Between two iterations.
const PAUSE: Duration = Duration::from_millis(1);
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What a keeper has done so far.
#[derive(Default)]
pub struct Tally {
    /// Messages run.
    pub runs: AtomicU64,
    /// Messages run that this consumer had run before.
    pub runs_again: AtomicU64,
    /// Results sent again after the loss of a connection.
    pub sent_again: AtomicU64,
    /// Results named in RECORDED.
    pub confirmed: AtomicU64,
    /// Results that are kept now, and messages that are held.
    pub kept: AtomicU64,
}

/// See the module's text.
pub struct Keeper {
    pub address: String,
    pub tally: Arc<Tally>,
    cut: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn start(name: &'static str, subprotocol: &'static str) -> Keeper {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("our own socket");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (tally, cut, stop) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let worker = Worker {
            name,
            subprotocol,
            listener,
            tally: tally.clone(),
            cut: cut.clone(),
            stop: stop.clone(),
            highest: Epoch(0),
            active: None,
            jobs: VecDeque::new(),
            results: BTreeMap::new(),
            done: BTreeSet::new(),
            reported: Instant::now(),
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || worker.run()).expect("a thread");
        Keeper { address, tally, cut, stop, thread: Some(thread) }
    }

    /// Drops the active connection.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Waits until nothing is held or kept.
    pub fn finish(&self) {
        wait_until("every result to be confirmed", || {
            assert!(!self.thread.as_ref().expect("it was started").is_finished(), "the consumer failed");
            (self.tally.kept.load(Ordering::Relaxed) == 0).then_some(())
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().expect("it was started").join();
        assert!(ended.is_ok() || thread::panicking(), "the consumer failed");
    }
}

struct Connection {
    socket: WebSocket<TcpStream>,
    /// Sent on this connection and not confirmed.
    unconfirmed: BTreeSet<MessageId>,
}

struct Worker {
    name: &'static str,
    subprotocol: &'static str,
    listener: TcpListener,
    tally: Arc<Tally>,
    cut: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    highest: Epoch,
    active: Option<Connection>,
    /// Held messages: when each is done, and the result's field.
    jobs: VecDeque<(Instant, MessageId, String)>,
    /// Kept results.
    results: BTreeMap<MessageId, String>,
    done: BTreeSet<MessageId>,
    reported: Instant,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.accept();
            if self.cut.swap(false, Ordering::Relaxed) {
                self.active = None;
            }
            if self.read().is_none() || self.answer().is_none() {
                self.active = None;
            }
            self.tally.kept.store((self.jobs.len() + self.results.len()) as u64, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }

    fn keeps(&self) -> bool {
        self.subprotocol == wire::SUBPROTOCOL_2
    }

    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("accepting: {error}"),
        };
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(DEADLINE))).expect("our own socket");
        // The dispatcher may be killed at any moment.
        let Ok(mut socket) = accept_selecting(stream, Some(self.subprotocol)) else { return };
        let Ok(Message::Binary(message)) = socket.read() else { return };
        let frames: Vec<_> = wire::frames(&message).collect::<Result<_, _>>().expect("a dispatcher sends frames");
        let epoch = match frames[..] {
            [Frame::Lead { epoch, group: "messages" }, Frame::Hello(_)] if self.keeps() => epoch,
            [Frame::Lead { epoch, group: "messages" }] if !self.keeps() => epoch,
            ref other => panic!("{other:?} instead of LEAD"),
        };
        if epoch < self.highest {
            return;
        }
        self.highest = epoch;
        let held = self.jobs.iter().map(|(_, id, _)| *id).chain(self.results.keys().copied()).collect();
        let ready = Frame::Ready { prefetch: PREFETCH as u32, flags: ReadyFlags(0), consumer: self.name };
        self.active = Some(Connection { socket, unconfirmed: BTreeSet::new() });
        let ids: Vec<_> = self.results.keys().copied().collect();
        self.tally.sent_again.fetch_add(ids.len() as u64, Ordering::Relaxed);
        if self.send(&[ready, Frame::Held(held)]).is_none() || self.send_results(&ids).is_none() {
            self.active = None;
        }
        if let Some(Connection { socket, .. }) = &self.active {
            socket.get_ref().set_nonblocking(true).expect("our own socket");
        }
    }

    /// `None`: the connection has ended.
    fn send(&mut self, frames: &[Frame<'_>]) -> Option<()> {
        let Some(Connection { socket, .. }) = &mut self.active else { return Some(()) };
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_vec).collect();
        socket.get_ref().set_nonblocking(false).ok()?;
        let sent = socket.send(Message::binary(bytes));
        socket.get_ref().set_nonblocking(true).ok()?;
        sent.ok()
    }

    /// Sends kept results over the active connection.
    fn send_results(&mut self, ids: &[MessageId]) -> Option<()> {
        let Some(connection) = &mut self.active else { return Some(()) };
        if ids.is_empty() {
            return Some(());
        }
        connection.unconfirmed.extend(ids);
        let results: Vec<_> = ids.iter().map(|id| (*id, self.results[id].clone())).collect();
        if self.keeps() {
            let results = results.iter().map(|(id, text)| MessageResult { id: *id, fields: fields(text) });
            return self.send(&[Frame::Results(results.collect())]);
        }
        self.results.clear();
        let frames: Vec<_> = results.iter().map(|(id, text)| Frame::Result { id: *id, fields: fields(text) }).collect();
        self.send(&frames)
    }

    fn read(&mut self) -> Option<()> {
        while let Some(Connection { socket, .. }) = &mut self.active {
            let message = match socket.read() {
                Ok(Message::Binary(message)) => message,
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            };
            for frame in wire::frames(&message) {
                match frame.expect("a dispatcher sends frames") {
                    Frame::Process { id, body, .. } => self.accept_message(id, body),
                    Frame::Recorded(ids) if self.keeps() => ids.into_iter().for_each(|id| self.confirmed(id)),
                    Frame::Error { code, text } => panic!("{}: the dispatcher says {code}: {text}", self.name),
                    other => panic!("{}: {other:?}", self.name),
                }
            }
        }
        Some(())
    }

    fn accept_message(&mut self, id: MessageId, body: &[u8]) {
        if self.results.contains_key(&id) || self.jobs.iter().any(|(_, job, _)| *job == id) {
            return;
        }
        let load = self.jobs.len() + self.results.len();
        assert!(load < PREFETCH, "{}: {load} messages are held and results kept", self.name);
        let text = id_in_payload(std::str::from_utf8(body).expect("a payload of the load")).expect("it has an id");
        self.jobs.push_back((Instant::now() + Duration::from_millis(fastrand::u64(..MOST_WORK_MS)), id, text));
    }

    fn confirmed(&mut self, id: MessageId) {
        let Some(connection) = &mut self.active else { return };
        assert!(connection.unconfirmed.remove(&id), "{}: {id} was not sent, or is confirmed twice", self.name);
        assert!(self.results.remove(&id).is_some(), "{}: {id} is not kept", self.name);
        self.tally.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the results of what is done, and reports the rest.
    fn answer(&mut self) -> Option<()> {
        let now = Instant::now();
        let mut ids = Vec::new();
        for (due, id, text) in std::mem::take(&mut self.jobs) {
            if due > now {
                self.jobs.push_back((due, id, text));
                continue;
            }
            self.tally.runs.fetch_add(1, Ordering::Relaxed);
            if !self.done.insert(id) {
                self.tally.runs_again.fetch_add(1, Ordering::Relaxed);
            }
            self.results.insert(id, text);
            ids.push(id);
        }
        self.send_results(&ids)?;
        if now.duration_since(self.reported) >= REPORT_EVERY {
            self.reported = now;
            let held = self.jobs.iter().map(|(_, id, _)| *id).collect();
            self.send(&[Frame::Progress(held)])?;
        }
        Some(())
    }
}

fn fields(text: &str) -> Vec<Field<'_>> {
    vec![Field { name: b"message_id", value: text.as_bytes() }]
}
