//! One dispatcher's connection: a thread that reads, and one that writes what is in its [`Outbox`].
//!
//! Reading blocks, so it needs a thread of its own; so does writing, since a dispatcher that does not read must not
//! stall the committer. A mistake of the peer costs this connection and nothing else: it gets an ERROR and is closed.
//!
//! Weak at: bodies are not copied, so one message in hand keeps all bytes alive that came with it, if these are not more
//! than [`SHARED_BYTES`]. A connection costs two threads; their number is limited by the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::{debug, info, warn};
use tungstenite::error::CapacityError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error as WsError, Message, WebSocket};

use super::desk::{Desk, LinkId, Refusal};
use super::epochs::Epochs;
use super::outbox::{MAX_OUTBOX_BYTES, Next, Outbox};
use super::socket::Socket;
use crate::id::Epoch;
use crate::log::Quoted;
use crate::wire::{self, ErrorCode, Frame};

/// How long a peer may take from its connection to its LEAD.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message of a peer that has not introduced itself.
const MAX_GREETING_BYTES: usize = 64 << 10;
/// How often the ruler hears what is being worked on: a third of a dispatcher's default link timeout.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The largest WebSocket message whose bodies are not copied: what dispatchers send together, about.
const SHARED_BYTES: usize = 256 << 10;
/// How long a closed connection waits for its peer to close, too.
const LINGER: Duration = Duration::from_millis(500);

/// See the module's text.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: SocketAddr,
    pub(super) socket: Socket,
    pub(super) outbox: Arc<Outbox>,
    /// Set once the peer has said LEAD.
    pub(super) greeted: Arc<AtomicBool>,
    pub(super) desk: Arc<Desk>,
    pub(super) epochs: Arc<Epochs>,
}

/// Why a connection ends.
enum End {
    /// The peer closed it, or the system did.
    Gone(String),
    /// It is closed for a mistake of the peer's, or because its time is over.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

impl Link {
    /// Serves the connection until it ends.
    pub(super) fn run(mut self) {
        self.serve();
        // The server holds the socket, too: letting go of ours does not close it.
        self.socket.shutdown();
    }

    fn serve(&mut self) {
        let greeting_deadline = Instant::now() + GREETING_TIMEOUT;
        let Some(mut reader) = self.handshake(greeting_deadline) else {
            self.desk.stats().strangers.add(1);
            debug!("event=stranger-left peer={}", self.peer);
            return;
        };
        let (reading, reader_ended) = bounded(0);
        let writer = Writer {
            link: self.id,
            greeted: self.greeted.clone(),
            outbox: self.outbox.clone(),
            endpoint: WebSocket::from_raw_socket(self.socket.clone(), Role::Server, Some(limits(MAX_GREETING_BYTES))),
            desk: self.desk.clone(),
            reader_ended,
        };
        let writer = thread::Builder::new().name(format!("write-{}", self.id)).spawn(move || writer.run());
        let end = match &writer {
            Ok(_) => self.read(&mut reader),
            Err(error) => End::Gone(format!("starting a thread: {error}")),
        };
        self.goodbye(&end);
        drop(reading);
        if let Ok(writer) = writer
            && writer.join().is_err()
        {
            warn!("event=bug thread=write-{} problem=panicked", self.id);
        }
        self.socket.linger(LINGER);
    }

    fn handshake(&mut self, deadline: Instant) -> Option<WebSocket<Socket>> {
        self.socket.set_read_deadline(Some(deadline)).ok()?;
        tungstenite::accept_with_config(self.socket.clone(), Some(limits(MAX_GREETING_BYTES))).ok()
    }

    /// Reads and obeys until the connection ends: the link's main loop.
    fn read(&self, reader: &mut WebSocket<Socket>) -> End {
        loop {
            let outcome = match reader.read() {
                Ok(Message::Binary(message)) => self.obey(reader, &message),
                // The peer wonders whether we live: say also what we work on, its time limits may be short.
                Ok(Message::Ping(_)) => {
                    if self.is_greeted() {
                        self.desk.report(self.id, Instant::now()).map_err(End::from)
                    } else {
                        Ok(())
                    }
                }
                Ok(Message::Text(_)) => {
                    Err(Refusal::new(ErrorCode::Malformed, "a text message; frames are binary").into())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(self.end_by(error)),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Does what the frames of one message say; all of them must be frames before the first is obeyed.
    fn obey(&self, reader: &mut WebSocket<Socket>, message: &Bytes) -> Result<(), End> {
        let frames = wire::frames(message).collect::<Result<Vec<_>, _>>().map_err(Refusal::from)?;
        let mut messages = Vec::with_capacity(frames.len());
        for frame in frames {
            match frame {
                Frame::Process { id, delivery, body } if self.is_greeted() => {
                    let shared = message.len() <= SHARED_BYTES;
                    let body = if shared { message.slice_ref(body) } else { Bytes::copy_from_slice(body) };
                    messages.push((id, delivery, body));
                }
                Frame::Lead { epoch, group } if !self.is_greeted() => {
                    let held = self.lead(epoch, group)?;
                    self.greeted.store(true, Ordering::Release);
                    reader.set_config(|config| *config = limits(wire::MAX_WS_MESSAGE_BYTES));
                    reader.get_mut().set_read_deadline(None).map_err(|error| End::Gone(error.to_string()))?;
                    crate::log::set_role("consumer", epoch);
                    info!("event=dispatcher-rules peer={} ruling_epoch={epoch} held={held}", self.peer);
                }
                Frame::Error { code, text } => {
                    return Err(End::Gone(format!("the dispatcher says {code}: {text}")));
                }
                frame => {
                    let text = format!("{} has no place here", frame.name());
                    return Err(Refusal::new(ErrorCode::Unexpected, text).into());
                }
            }
        }
        if !messages.is_empty() {
            self.desk.accept(self.id, messages, Instant::now())?;
            self.desk.wait_for_room(self.id);
        }
        Ok(())
    }

    /// LEAD. Redis is asked before the desk is, since under the desk's lock everybody else would wait for it; what
    /// changes meanwhile the desk sees.
    fn lead(&self, epoch: Epoch, group: &str) -> Result<usize, Refusal> {
        if self.desk.is_news(epoch, group)? {
            self.epochs.confirm(epoch)?;
        }
        self.desk.lead(self.id, &self.outbox, epoch, group, Instant::now())
    }

    fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    fn end_by(&self, error: WsError) -> End {
        let code = match &error {
            WsError::Io(problem) if problem.kind() == io::ErrorKind::TimedOut && !self.is_greeted() => {
                return Refusal::new(ErrorCode::Unexpected, "no LEAD in time").into();
            }
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => ErrorCode::TooLarge,
            // The end of a stream without a goodbye.
            WsError::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                return End::Gone("the connection dropped".to_owned());
            }
            WsError::Protocol(_) | WsError::Capacity(_) | WsError::Utf8(_) => ErrorCode::Malformed,
            _ => return End::Gone(error.to_string()),
        };
        Refusal::new(code, error.to_string()).into()
    }

    /// Leaves the desk, tells the peer why, counts and logs it.
    fn goodbye(&self, end: &End) {
        let stats = self.desk.stats();
        let ruled = self.desk.leave(self.id);
        match end {
            End::Refused(Refusal { code, text }) => {
                if self.outbox.close(Some(&Frame::Error { code: *code, text })) {
                    match code {
                        ErrorCode::Stale | ErrorCode::Replaced => stats.stale.add(1),
                        // Nothing is wrong with the dispatcher, and who could not be asked has counted it.
                        ErrorCode::Unavailable => {}
                        _ => stats.bad_frames.add(1),
                    }
                }
                let (peer, code, reason) = (self.peer, code.code(), Quoted(text));
                warn!("event=connection-refused peer={peer} code={code} ruled={ruled} reason={reason}");
            }
            End::Gone(reason) => {
                self.outbox.close(None);
                if self.is_greeted() {
                    info!("event=dispatcher-left peer={} ruled={ruled} reason={}", self.peer, Quoted(reason));
                } else {
                    stats.strangers.add(1);
                }
            }
        }
    }
}

fn limits(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        // Nothing is kept back: the outbox has gathered already.
        .write_buffer_size(0)
        // One message of all that an outbox holds, with the frame that made it full.
        .max_write_buffer_size(2 * MAX_OUTBOX_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}

/// Writes what is in a connection's outbox.
struct Writer {
    link: LinkId,
    greeted: Arc<AtomicBool>,
    outbox: Arc<Outbox>,
    endpoint: WebSocket<Socket>,
    desk: Arc<Desk>,
    /// Disconnected when the reader has ended.
    reader_ended: Receiver<()>,
}

impl Writer {
    fn run(mut self) {
        let mut tick = Instant::now() + REPORT_INTERVAL;
        loop {
            if Instant::now() >= tick {
                tick = Instant::now() + REPORT_INTERVAL;
                self.report();
            }
            let written = match self.outbox.next(tick) {
                Next::Tick => Ok(()),
                Next::Write(frames) => self.endpoint.send(Message::binary(frames)),
                Next::Close(frames) => return self.close(frames),
                Next::Abort => Err(WsError::WriteBufferFull(Box::new(Message::Close(None)))),
            };
            if let Err(error) = written {
                warn!("event=write-failed link={} reason={}", self.link, Quoted(error));
                // The reader comes back at once and says goodbye.
                return self.endpoint.get_ref().shutdown();
            }
        }
    }

    fn report(&self) {
        if !self.greeted.load(Ordering::Acquire) {
            return;
        }
        if let Err(Refusal { code, text }) = self.desk.report(self.link, Instant::now())
            && self.outbox.close(Some(&Frame::Error { code, text: &text }))
        {
            // Whoever was replaced learns it within a second, even if it has nothing to send.
            self.desk.stats().stale.add(1);
        }
    }

    fn close(mut self, frames: Vec<u8>) {
        let written = if frames.is_empty() { Ok(()) } else { self.endpoint.send(Message::binary(frames)) };
        let goodbye = CloseFrame { code: CloseCode::Away, reason: "".into() };
        let written = written.and_then(|()| self.endpoint.close(Some(goodbye)));
        if let Err(error) = written {
            debug!("event=close-failed link={} reason={}", self.link, Quoted(error));
        }
        self.endpoint.get_ref().finish_writing();
        // The peer closes its side on this, and the reader sees that. A peer that does not is cut off.
        if self.reader_ended.recv_timeout(LINGER) == Err(RecvTimeoutError::Timeout) {
            self.endpoint.get_ref().shutdown();
        }
    }
}
