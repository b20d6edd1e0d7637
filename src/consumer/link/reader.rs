//! The reading side of a dispatcher's connection: handshake, LEAD, then frames.
//!
//! Reading blocks, so it needs a thread of its own. Writing has a thread of its own as well, because a dispatcher that
//! does not read must not stall the committer. A mistake of the peer affects only this connection: the peer gets an
//! ERROR, and the connection is closed. Until a connection rules, its peer may be any client, so its messages must be
//! small and there is a deadline. A peer that does not prove the link secret, if there is one, is told so before its
//! LEAD has any effect.
//!
//! Limitations: the payloads in a WebSocket message of up to [`SHARED_BYTES`] are not copied, so one held payload keeps
//! the whole WebSocket message in memory; of a larger one a payload keeps at most twice its size. A connection costs
//! two threads; the server limits the number of connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{debug, warn};
use tungstenite::error::CapacityError;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Error as WsError, Message, WebSocket};

use super::common::{Common, LINGER, LinkLane};
use super::writer::Writer;
use crate::base::id::Epoch;
use crate::base::log_context;
use crate::base::text::Quoted;
use crate::base::tls::TlsProblem;
use crate::consumer::desk::{Claim, outlived};
use crate::consumer::epochs::QUESTION_LIMIT;
use crate::consumer::guard::{Guard, unproven};
use crate::consumer::handshake::{self, Failed};
use crate::consumer::inlet::{Inlet, MAX_SMALL_BYTES};
use crate::consumer::lane::ConsumerLane;
use crate::consumer::outbox::{MAX_OUTBOX_BYTES, Outbox};
use crate::consumer::peer::{CloseReason, LinkId};
use crate::consumer::refusals::{EventKind, Example, PeerText};
use crate::consumer::socket::Socket;
use crate::consumer::stats::ConsumerStats;
use crate::ledger::Body;
use crate::net::ReadHalf;
use crate::wire::{self, ErrorCode, Frame, ReadyFlags};

/// How long a peer may take from its connection to its LEAD.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that rules may take to answer a ping when another connection of its epoch has sent LEAD.
const ALIVE_LIMIT: Duration = Duration::from_millis(500);
/// What is logged of a client without TLS, if it is needed.
const NOT_TLS: &str = "it speaks no TLS, which this consumer requires; a dispatcher's address for it must begin with \
                       wss://";
/// What is logged of a client that must show a certificate and doesn't.
const NO_CERTIFICATE: &str = "it showed no certificate, which this consumer requires (--tls-client-ca); a dispatcher \
                              needs --tls-cert and --tls-key";
/// The largest WebSocket message whose payloads are not copied: about what dispatchers send in one. Of a larger one a
/// payload is not copied that is most of it.
const SHARED_BYTES: usize = 256 << 10;

/// See the module's text.
pub(in crate::consumer) struct DispatcherLink {
    pub(in crate::consumer) id: LinkId,
    pub(in crate::consumer) peer: SocketAddr,
    pub(in crate::consumer) socket: Socket,
    pub(in crate::consumer) outbox: Arc<Outbox>,
    pub(in crate::consumer) lane: Arc<LinkLane>,
    pub(in crate::consumer) common: Arc<Common>,
}

/// Why a connection ends.
enum End {
    /// The peer closed it, or the system did.
    Gone(String),
    /// The consumer closes it: for a mistake of the peer, or because another connection rules.
    Refused(CloseReason),
}

impl From<CloseReason> for End {
    fn from(refusal: CloseReason) -> End {
        End::Refused(refusal)
    }
}

impl DispatcherLink {
    /// Serves the connection until it ends.
    pub(in crate::consumer) fn run(self, reader: ReadHalf) {
        log_context::enter(&self.common.lanes.context());
        self.serve(reader);
        // The server also has a handle to the socket, so dropping ours does not close it.
        self.socket.shutdown();
    }

    fn serve(&self, mut reader: ReadHalf) {
        let deadline = Instant::now() + GREETING_TIMEOUT;
        if let Some(tls) = &self.common.tls
            && let Err(error) = reader.secure_as_server(tls, deadline)
        {
            return self.insecure(reader, &error);
        }
        let mut inlet = Inlet::new(reader, self.socket.clone(), deadline);
        let mut guard = Guard::new(self.common.secret.as_ref());
        let group = self.common.lanes.group();
        if let Err(failed) = handshake::accept(&mut inlet, |nonce| guard.answer(nonce, group)) {
            return self.reject(inlet, failed);
        }
        let mut reader = WebSocket::from_raw_socket(inlet, Role::Server, Some(limits(MAX_SMALL_BYTES)));
        let (reading, reader_ended) = bounded(0);
        let writer = Writer {
            link: self.id,
            peer: self.peer,
            lane: self.lane.clone(),
            outbox: self.outbox.clone(),
            endpoint: WebSocket::from_raw_socket(self.socket.clone(), Role::Server, Some(limits(MAX_SMALL_BYTES))),
            common: self.common.clone(),
            reader_ended,
        };
        let writer = thread::Builder::new().name(format!("write-{}", self.id)).spawn(move || writer.run());
        let end = match &writer {
            Ok(_) => match guard.check_handshake() {
                Ok(()) => self.read(&mut reader, guard),
                Err(refusal) => refusal.into(),
            },
            Err(error) => End::Gone(format!("starting a thread: {error}")),
        };
        // A partly received message is dropped.
        let mut reader = reader.into_inner().into_reader();
        self.finish(&end);
        drop(reading);
        if let Ok(writer) = writer
            && writer.join().is_err()
        {
            warn!("event=bug thread=write-{} problem=panicked", self.id);
        }
        reader.linger(Instant::now() + LINGER, None);
    }

    /// Ends a connection whose TLS handshake failed. The peer was told why, if it speaks TLS.
    fn insecure(&self, mut reader: ReadHalf, error: &io::Error) {
        self.outbox.close(None);
        self.stats().strangers.add(1);
        match TlsProblem::of(error) {
            // For instance a check whether the port is open.
            Some(TlsProblem::Closed) => {
                self.common.refusals.charge(Instant::now());
                debug!("event=stranger-left peer={} reason={}", self.peer, Quoted(error));
            }
            Some(TlsProblem::NotTls) => self.useless(EventKind::Tls, format_args!(""), NOT_TLS),
            Some(TlsProblem::NoCertificate) => self.useless(EventKind::Tls, format_args!(""), NO_CERTIFICATE),
            _ => self.useless(EventKind::Tls, format_args!(""), &error.to_string()),
        }
        self.socket.finish_writing();
        reader.linger(Instant::now() + LINGER, Some(MAX_SMALL_BYTES));
    }

    /// Ends a connection whose handshake failed.
    fn reject(&self, inlet: Inlet, failed: Failed) {
        self.outbox.close(None);
        self.stats().strangers.add(1);
        match failed {
            Failed::Rejected(rejection) => {
                self.useless(
                    EventKind::Handshake(rejection.status),
                    format_args!("status={}", rejection.status),
                    rejection.text,
                );
                self.socket.finish_writing();
                inlet.into_reader().linger(Instant::now() + LINGER, None);
            }
            // For instance a check whether the port is open.
            Failed::Gone(_, 0) if !self.socket.is_read_no_more() => {
                self.common.refusals.charge(Instant::now());
                debug!("event=stranger-left peer={}", self.peer);
            }
            Failed::Gone(error, _) => self.useless(EventKind::Stranger, format_args!(""), &error.to_string()),
        }
    }

    /// Notes a useless connection.
    fn useless(&self, kind: EventKind, details: fmt::Arguments<'_>, reason: &str) {
        let now = Instant::now();
        self.common.refusals.charge(now);
        self.common.refusals.note(kind, Example { peer: self.peer, details, reason }, now);
    }

    fn stats(&self) -> &ConsumerStats {
        self.common.lanes.stats()
    }

    /// The link's main loop: reads frames and executes them until the connection ends.
    fn read(&self, reader: &mut WebSocket<Inlet>, mut guard: Guard) -> End {
        loop {
            let outcome = match reader.read() {
                Ok(Message::Binary(message)) => {
                    reader.get_mut().message_is_whole();
                    self.execute(reader, &mut guard, &message)
                }
                // The peer checks whether this consumer is alive. Report the held messages too, as its time limits may
                // be short.
                Ok(Message::Ping(_)) => {
                    let lane = self.lane.get();
                    lane.map_or(Ok(()), |lane| lane.desk.report(self.id, Instant::now()).map_err(End::from))
                }
                Ok(Message::Pong(said)) => {
                    self.outbox.note_pong(&said);
                    Ok(())
                }
                Ok(Message::Text(_)) => {
                    Err(CloseReason::new(ErrorCode::Malformed, "a text message; frames are binary").into())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(self.end_by(error)),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Executes the frames of one message. All are decoded before the first is executed.
    fn execute(&self, reader: &mut WebSocket<Inlet>, guard: &mut Guard, message: &Bytes) -> Result<(), End> {
        let frames = wire::frames(message).collect::<Result<Vec<_>, _>>().map_err(CloseReason::from)?;
        let mut messages = Vec::with_capacity(frames.len());
        for frame in frames {
            match frame {
                Frame::Process { id, delivery, body } if self.is_greeted() => {
                    messages.push((id, delivery, Body::of(kept(message, body))));
                }
                Frame::Deliver { id, delivery, channel_bytes, joined } if self.is_greeted() => {
                    let body = Body::of_joined(kept(message, joined), channel_bytes.into());
                    messages.push((id, delivery, body));
                }
                Frame::Part { id, delivery, position, channel_bytes, joined } if self.is_greeted() => {
                    let mut body = Body::of_joined(kept(message, joined), channel_bytes.into());
                    body.set_position(Some(position));
                    messages.push((id, delivery, body));
                }
                Frame::Proof(proof) if guard.take(proof) => {}
                Frame::Lead { epoch, group } if !self.is_greeted() => {
                    guard.admit(epoch, group)?;
                    self.take_lead(reader, epoch, group)?;
                }
                Frame::Error { code, text } => {
                    return Err(End::Gone(format!("the dispatcher says {code}: {}", PeerText(text))));
                }
                frame if guard.wants_proof() => return Err(unproven(frame.name()).into()),
                frame => {
                    let text = format!("{} has no place here", frame.name());
                    return Err(CloseReason::new(ErrorCode::Unexpected, text).into());
                }
            }
        }
        if let Some(lane) = self.lane.get().filter(|_| !messages.is_empty()) {
            let has_room = lane.desk.accept(self.id, messages, Instant::now())?;
            if !has_room {
                lane.desk.wait_for_room(self.id);
            }
        }
        Ok(())
    }

    /// Accepts LEAD, or returns why not.
    fn take_lead(&self, reader: &mut WebSocket<Inlet>, epoch: Epoch, group: &str) -> Result<(), CloseReason> {
        let deadline = Instant::now() + QUESTION_LIMIT;
        let (lane, confirmed) = self.common.lanes.find(epoch, group, deadline)?;
        let held = self.lead(&lane, epoch, confirmed, deadline).inspect_err(|_| {
            lane.desk.leave(self.id);
        })?;
        // This connection sends LEAD only once.
        let _ = self.lane.set(lane.clone());
        log_context::enter(&lane.context);
        reader.set_config(|config| *config = limits(wire::MAX_WS_MESSAGE_BYTES));
        reader.get_mut().trust(&lane.permits);
        self.common.regulars.add(self.peer.ip());
        lane.note_ruler(epoch);
        let example = format_args!("peer={} ruling_epoch={epoch} ruled_lane={} held={held}", self.peer, lane.number);
        self.common.refusals.note(EventKind::Rules, example, Instant::now());
        Ok(())
    }

    /// Handles LEAD, whose epoch may have been confirmed just now. Redis and a rival are asked before the desk is
    /// called, because under the desk's lock all other threads would have to wait for the answers. The desk then checks
    /// again, so it notices changes made in the meantime.
    fn lead(
        &self,
        lane: &ConsumerLane,
        epoch: Epoch,
        confirmed: bool,
        deadline: Instant,
    ) -> Result<usize, CloseReason> {
        let desk = &lane.desk;
        match desk.claim(epoch)? {
            Claim::Known => {}
            Claim::Higher if confirmed => {}
            Claim::Higher => lane.epochs.confirm(epoch, deadline)?,
            Claim::Lower(seen) => return Err(lane.epochs.refuse_lower(epoch, seen, deadline)),
        }
        if let Some((rival, outbox)) = desk.rival(epoch) {
            if outbox.answers(ALIVE_LIMIT) {
                return Err(outlived(epoch));
            }
            desk.note_silence(rival);
        }
        let flags = ReadyFlags::COMMITS.and(ReadyFlags::CHANNELS);
        let flags = if lane.epochs.takes_bundles(deadline) { flags.and(ReadyFlags::BUNDLES) } else { flags };
        desk.lead(self.id, &self.outbox, epoch, flags, Instant::now())
    }

    fn is_greeted(&self) -> bool {
        self.lane.get().is_some()
    }

    fn end_by(&self, error: WsError) -> End {
        let code = match &error {
            WsError::Io(problem) if problem.kind() == io::ErrorKind::TimedOut && !self.is_greeted() => {
                return CloseReason::new(ErrorCode::Unexpected, "no LEAD in time").into();
            }
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => ErrorCode::TooLarge,
            // The stream ended without a close frame.
            _ if self.outbox.is_closing() => return End::Gone("it was closed here".to_owned()),
            WsError::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                return End::Gone("the connection dropped".to_owned());
            }
            WsError::Protocol(_) | WsError::Capacity(_) | WsError::Utf8(_) => ErrorCode::Malformed,
            _ => return End::Gone(error.to_string()),
        };
        CloseReason::new(code, error.to_string()).into()
    }

    /// Leaves the desk, sends the peer the reason, and counts and logs the end.
    fn finish(&self, end: &End) {
        let stats = self.stats();
        let ruled = self.lane.get().is_some_and(|lane| lane.desk.leave(self.id));
        match end {
            End::Refused(CloseReason { code, text }) => {
                if self.outbox.close(Some(&Frame::Error { code: *code, text })) {
                    match code {
                        ErrorCode::Stale | ErrorCode::Replaced => stats.stale.add(1),
                        // The dispatcher is not at fault, and `epochs` has already counted this.
                        ErrorCode::Unavailable => {}
                        ErrorCode::NotAuthenticated => stats.unauthenticated.add(1),
                        _ => stats.bad_frames.add(1),
                    }
                }
                let code = code.code();
                self.useless(EventKind::Refused(code), format_args!("code={code} ruled={ruled}"), text);
            }
            End::Gone(reason) => {
                let closed_here = !self.outbox.close(None);
                if !self.is_greeted() {
                    stats.strangers.add(1);
                    self.useless(EventKind::Stranger, format_args!(""), reason);
                } else {
                    let now = Instant::now();
                    let mut reason = reason.as_str();
                    if closed_here && !ruled {
                        reason = "closed here: it was replaced, or the dispatcher should reconnect";
                        // A client can repeat this, too.
                        self.common.refusals.charge(now);
                    }
                    let example = Example { peer: self.peer, details: format_args!("ruled={ruled}"), reason };
                    self.common.refusals.note(EventKind::Left, example, now);
                }
            }
        }
    }
}

/// A part of a WebSocket message, so that it keeps no more memory than it should.
fn kept(message: &Bytes, part: &[u8]) -> Bytes {
    let is_mostly_this = 2 * part.len() >= message.len();
    if message.len() <= SHARED_BYTES || is_mostly_this { message.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

fn limits(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        // Nothing is buffered here: the outbox has already gathered the frames.
        .write_buffer_size(0)
        // Everything in an outbox may be one message, including the frame that exceeded the outbox's limit.
        .max_write_buffer_size(2 * MAX_OUTBOX_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}
