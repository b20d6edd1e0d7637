//! A dispatcher controlled by a test: it leads, sends and reads frames, and makes mistakes on purpose.
//!
//! For tests of consumers. Reading has a deadline, and anything unexpected fails the test.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::RedisServer;
use oncecast::wire::{self, Frame};
use tungstenite::{Message, WebSocket};

use super::redis::elect;
use super::waiting::DEADLINE;

/// See the module's text.
pub struct ScriptedDispatcher {
    socket: WebSocket<TcpStream>,
    frames: VecDeque<String>,
}

impl ScriptedDispatcher {
    pub fn connect(address: SocketAddr) -> ScriptedDispatcher {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.set_nodelay(true).expect("set");
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a handshake");
        ScriptedDispatcher { socket, frames: VecDeque::new() }
    }

    /// Makes this epoch the newest in Redis, connects and leads.
    pub fn elected(redis: &RedisServer, address: SocketAddr, epoch: u64, held: &[u64]) -> ScriptedDispatcher {
        elect(redis, epoch);
        ScriptedDispatcher::lead(address, epoch, held)
    }

    /// Connects, leads, and reads READY and HELD with these ids. The consumer must know the epoch or find it in its
    /// Redis.
    pub fn lead(address: SocketAddr, epoch: u64, held: &[u64]) -> ScriptedDispatcher {
        let mut dispatcher = ScriptedDispatcher::connect(address);
        dispatcher.send(&[Frame::Lead { epoch: Epoch(epoch), group: "messages" }]);
        let ready = dispatcher.next();
        assert!(ready.starts_with("READY"), "{ready}");
        let ids: String = held.iter().map(|id| format!(" {id}")).collect();
        assert_eq!(dispatcher.next(), format!("HELD{ids}"));
        dispatcher
    }

    /// Sends bytes that are no WebSocket handshake, and waits until the socket is closed.
    pub fn raw(address: SocketAddr, bytes: &[u8]) {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write)).expect("it is read");
        // A reset counts as an end.
        let _ = stream.read_to_end(&mut Vec::new()).map_err(|error| {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it stays open");
        });
    }

    pub fn send(&mut self, frames: &[Frame<'_>]) {
        assert!(self.try_send(frames), "the consumer closed the connection");
    }

    /// Sends frames as one message; `false` if the connection is closed.
    pub fn try_send(&mut self, frames: &[Frame<'_>]) -> bool {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.socket.send(Message::binary(bytes)).is_ok()
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("it is read");
    }

    pub fn ping(&mut self) {
        self.send_message(Message::Ping(Default::default()));
    }

    /// Waits until the consumer has processed all frames sent so far.
    pub fn sync(&mut self) {
        self.ping();
        loop {
            match self.socket.read().expect("a pong in time") {
                Message::Pong(_) => return,
                Message::Binary(message) => {
                    self.frames.extend(wire::frames(&message).map(|frame| shown(frame.expect("a good frame"))));
                }
                // The next read answers it.
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Pings without reading, until the consumer stops reading as well.
    pub fn ping_until_stalled(&mut self) {
        self.socket.get_ref().set_write_timeout(Some(Duration::from_millis(200))).expect("set");
        while self.socket.send(Message::Ping(Default::default())).is_ok() {}
    }

    /// The bytes of the next message.
    pub fn next_message(&mut self) -> Vec<u8> {
        loop {
            match self.socket.read().expect("a message in time") {
                Message::Binary(bytes) => return bytes.to_vec(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next frame, as text; lists of ids are sorted.
    pub fn next(&mut self) -> String {
        while self.frames.is_empty() {
            let message = self.next_message();
            self.frames.extend(wire::frames(&message).map(|frame| shown(frame.expect("a good frame"))));
        }
        self.frames.pop_front().expect("there is one")
    }

    pub fn next_but_progress(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let frame = self.next();
            if !frame.starts_with("PROGRESS") {
                return frame;
            }
            assert!(Instant::now() < deadline, "only PROGRESS for {DEADLINE:?}");
        }
    }

    /// Reads ACKs until each of these has arrived once.
    pub fn expect_acks(&mut self, ids: &[u64]) {
        let mut acknowledged: Vec<u64> = Vec::new();
        while acknowledged.len() < ids.len() {
            let frame = self.next_but_progress();
            let Some(list) = frame.strip_prefix("ACK ") else { panic!("{frame}") };
            acknowledged.extend(list.split(' ').map(|id| id.parse::<u64>().expect("an id")));
        }
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, ids);
    }

    /// Reads an ERROR with this code, then the end of the connection.
    pub fn expect_error(&mut self, code: u16) {
        let frame = self.next_but_progress();
        assert!(frame.starts_with(&format!("ERROR {code} ")), "{frame}");
        self.expect_close();
    }

    /// Reads ACKs and PROGRESS, then the end of the connection.
    pub fn expect_close_after_acks(&mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Binary(message)) => {
                    self.frames.extend(wire::frames(&message).map(|frame| shown(frame.expect("a good frame"))));
                }
                Ok(Message::Close(_)) => break,
                Ok(Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        let is_answer = |frame: &String| frame.starts_with("ACK") || frame.starts_with("PROGRESS");
        assert!(self.frames.iter().all(is_answer), "{:?}", self.frames);
        self.expect_close();
    }

    /// Reads the end of the connection, and no frame before it.
    pub fn expect_close(&mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("it stays open")
                }
                Err(_) => return,
            }
        }
    }
}

fn shown(frame: Frame<'_>) -> String {
    let list = |name: &str, mut ids: Vec<MessageId>| {
        ids.sort();
        ids.iter().fold(name.to_owned(), |text, id| format!("{text} {}", id.0))
    };
    match frame {
        Frame::Ack(ids) => list("ACK", ids),
        Frame::Held(ids) => list("HELD", ids),
        Frame::Progress(ids) => list("PROGRESS", ids),
        Frame::Nack { id, delay, reason } => format!("NACK {} {} {reason}", id.0, delay.to_wire()),
        Frame::Error { code, text } => format!("ERROR {} {text}", code.code()),
        frame => frame.name().to_owned(),
    }
}
