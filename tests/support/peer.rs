//! Scripted peers: a consumer and a dispatcher, controlled by a test.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId};
use oncecast::wire::{self, ErrorCode, Frame, ReadyFlags};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use super::waiting::DEADLINE;

/// The pause between two polls of a socket.
const LOOK: Duration = Duration::from_millis(10);

/// What a peer received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Process {
        id: MessageId,
        delivery: u16,
        body: Vec<u8>,
    },
    Deliver {
        id: MessageId,
        channel: String,
        body: String,
    },
    Lead(Epoch),
    Hello(String),
    Ready {
        prefetch: u32,
        consumer: String,
    },
    Ids(&'static str, Vec<MessageId>),
    Error(ErrorCode, String),
    Other(&'static str),
    /// The connection is closed.
    Closed,
}

/// A scripted consumer that listens.
pub struct Peer {
    listener: TcpListener,
    pub name: &'static str,
}

impl Peer {
    pub fn bind(name: &'static str) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("our own socket");
        Peer { listener, name }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().expect("it listens").to_string()
    }

    /// Accepts a dispatcher and answers its LEAD with READY and an empty HELD, like a consumer without Redis.
    pub fn accept(&self, prefetch: u32) -> Line {
        self.accept_with(prefetch, ReadyFlags(0), &[])
    }

    /// Accepts a dispatcher and answers its LEAD with READY and HELD.
    pub fn accept_with(&self, prefetch: u32, flags: ReadyFlags, held: &[MessageId]) -> Line {
        let mut line = self.accept_only();
        line.send(&[Frame::Ready { prefetch, flags, consumer: self.name }, Frame::Held(held.to_vec())]);
        line
    }

    /// Accepts a dispatcher without answering its LEAD.
    pub fn accept_only(&self) -> Line {
        let mut line = self.accept_unread();
        assert!(matches!(line.next(), Heard::Lead(_)), "the first frame is LEAD");
        line
    }

    /// Accepts a dispatcher with the subprotocol oncecast.2 and answers its LEAD and HELLO with READY, HELD and these
    /// frames.
    pub fn accept_2(&self, prefetch: u32, held: &[MessageId], frames: &[Frame<'_>]) -> Line {
        let mut line = self.accept_unread_with(Some(wire::SUBPROTOCOL_2));
        assert!(matches!(line.next(), Heard::Lead(_)), "the first frame is LEAD");
        assert!(matches!(line.next(), Heard::Hello(_)), "the second frame is HELLO");
        let ready = Frame::Ready { prefetch, flags: ReadyFlags(0), consumer: self.name };
        line.send(&[&[ready, Frame::Held(held.to_vec())], frames].concat());
        line
    }

    /// Accepts a dispatcher without reading its LEAD.
    pub fn accept_unread(&self) -> Line {
        self.accept_unread_with(None)
    }

    /// The same, and selects a subprotocol.
    pub fn accept_unread_with(&self, subprotocol: Option<&'static str>) -> Line {
        let deadline = Instant::now() + DEADLINE;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Err(error) => panic!("no dispatcher connected to {}: {error}", self.name),
            }
        };
        stream.set_nonblocking(false).expect("our own socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("our own socket");
        Line::new(accept_selecting(stream, subprotocol).expect("a WebSocket handshake"))
    }
}

/// The handshake of a consumer that selects a subprotocol.
pub fn accept_selecting(stream: TcpStream, subprotocol: Option<&'static str>) -> Result<WebSocket<TcpStream>, String> {
    // The callback's type is the library's.
    #[allow(clippy::result_large_err)]
    let select = |_: &Request, mut response: Response| {
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
        }
        Ok(response)
    };
    tungstenite::accept_hdr(stream, select).map_err(|error| error.to_string())
}

/// A connection, from either side.
pub struct Line {
    socket: WebSocket<TcpStream>,
    heard: std::collections::VecDeque<Heard>,
}

impl Line {
    fn new(socket: WebSocket<TcpStream>) -> Line {
        socket.get_ref().set_read_timeout(Some(LOOK)).expect("our own socket");
        Line { socket, heard: Default::default() }
    }

    /// Connects to a consumer as a dispatcher does and sends LEAD.
    pub fn lead(address: &str, epoch: Epoch) -> Line {
        let stream = TcpStream::connect(address).expect("the consumer listens");
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a WebSocket handshake");
        let mut line = Line::new(socket);
        line.send(&[Frame::Lead { epoch, group: "messages" }]);
        line
    }

    /// Sends frames in one message.
    pub fn send(&mut self, frames: &[Frame<'_>]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.send_raw(Message::Binary(bytes.into()));
    }

    /// The socket itself.
    pub fn tcp(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    pub fn send_raw(&mut self, message: Message) {
        self.socket.send(message).expect("the other side reads");
    }

    /// Sends a message; `false` if the connection has ended.
    pub fn try_send_raw(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// The next frame, or the end of the connection.
    pub fn next(&mut self) -> Heard {
        self.next_within(DEADLINE).unwrap_or_else(|| panic!("nothing came within {DEADLINE:?}"))
    }

    /// The next message as it came.
    pub fn next_bytes(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            match self.socket.read() {
                Ok(Message::Binary(message)) => return message.to_vec(),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(error) => panic!("the connection ended: {error}"),
            }
        }
        panic!("nothing came within {DEADLINE:?}")
    }

    /// The next frame, if one arrives in time. Pings are answered meanwhile.
    pub fn next_within(&mut self, limit: Duration) -> Option<Heard> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            match self.socket.read() {
                Ok(Message::Binary(message)) => {
                    let frames = wire::frames(&message).map(|frame| heard(frame.expect("a dispatcher sends frames")));
                    self.heard.extend(frames);
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(_) => return Some(Heard::Closed),
            }
        }
    }

    /// The next PROCESS: its id, the number of the delivery, and the body as text.
    pub fn next_message(&mut self) -> (MessageId, u16, String) {
        match self.next() {
            Heard::Process { id, delivery, body } => (id, delivery, String::from_utf8_lossy(&body).into_owned()),
            other => panic!("expected PROCESS, got {other:?}"),
        }
    }

    /// The next RECORDED frames, up to so many ids in all.
    pub fn next_recorded(&mut self, ids: usize) -> Vec<MessageId> {
        let mut all = Vec::new();
        while all.len() < ids {
            match self.next() {
                Heard::Ids("RECORDED", ids) => all.extend(ids),
                other => panic!("expected RECORDED, got {other:?}"),
            }
        }
        assert_eq!(all.len(), ids, "{all:?}");
        all
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            match self.next() {
                Heard::Closed => return all,
                heard => all.push(heard),
            }
        }
    }
}

fn heard(frame: Frame<'_>) -> Heard {
    let name = frame.name();
    match frame {
        Frame::Process { id, delivery, body } => Heard::Process { id, delivery, body: body.to_vec() },
        Frame::Deliver { id, channel_bytes, joined, .. } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (channel, body) = joined.split_at(channel_bytes.into());
            Heard::Deliver { id, channel: text(channel), body: text(body) }
        }
        Frame::Lead { epoch, .. } => Heard::Lead(epoch),
        Frame::Ready { prefetch, consumer, .. } => Heard::Ready { prefetch, consumer: consumer.to_owned() },
        Frame::Ack(ids) | Frame::Held(ids) | Frame::Progress(ids) | Frame::Recorded(ids) => Heard::Ids(name, ids),
        Frame::Hello(settings) => Heard::Hello(settings.to_owned()),
        Frame::Error { code, text } => Heard::Error(code, text.to_owned()),
        _ => Heard::Other(name),
    }
}
