//! A consumer without Redis, written from docs/PROTOCOL.md, that can be told to violate one rule.
//!
//! One thread for each connection writes what is queued for it and reads for a few milliseconds, in turn. Each message
//! has a thread of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use oncecast::wire::{self, ErrorCode, Frame, SUBPROTOCOL_1, SUBPROTOCOL_2};
use parking_lot::Mutex;
use serde_json::Value;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error as WsError, Message, WebSocket};

use super::desk::{Desk, Outcome, Refusal};
use super::gate::Gate;

/// How long a connection is read before what is queued for it is written.
const READ_FOR: Duration = Duration::from_millis(3);

/// A rule that the consumer violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    AcceptsAnyEpoch,
    AcceptsLowerEpochs,
    AcceptsOrigins,
    AnswersWhereDelivered,
    BadConsumerId,
    ForgetsEpochWithLink,
    ForgetsFailures,
    ForgetsSentResults,
    HeldBeforeReady,
    IgnoresProof,
    IgnoresRecorded,
    KeepsReplacedConnections,
    NoHeld,
    NoProgress,
    ProofForAnyEpoch,
    RemembersUnproven,
    ReusesNonce,
    RunsTwice,
    ServesAnyGroup,
    SmallMessagesOnly,
    ToleratesSecondLead,
    VersionOneOnly,
    WrongErrorCode,
}

/// The running consumer; it stops on drop.
pub struct ScriptedConsumer {
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl ScriptedConsumer {
    pub fn start(fault: Option<Fault>) -> ScriptedConsumer {
        ScriptedConsumer::launch(fault, false)
    }

    /// One with a link secret.
    pub fn start_with_secret(fault: Option<Fault>) -> ScriptedConsumer {
        ScriptedConsumer::launch(fault, true)
    }

    fn launch(fault: Option<Fault>, has_secret: bool) -> ScriptedConsumer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stopping = Arc::new(AtomicBool::new(false));
        let desk = Arc::new(Mutex::new(Desk::new(fault)));
        thread::spawn({
            let stopping = stopping.clone();
            move || {
                for (number, stream) in listener.incoming().enumerate() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let (desk, stream) = (desk.clone(), stream.expect("a connection"));
                    thread::spawn(move || serve(&desk, fault, Gate::new(has_secret, fault), number, stream));
                }
            }
        });
        ScriptedConsumer { address, stopping }
    }
}

impl Drop for ScriptedConsumer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Ends the wait for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves one connection until it ends.
fn serve(desk: &Arc<Mutex<Desk>>, fault: Option<Fault>, mut gate: Gate, link: usize, stream: TcpStream) {
    let limit = if fault == Some(Fault::SmallMessagesOnly) { 1 << 20 } else { wire::MAX_WS_MESSAGE_BYTES };
    let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
    let mut is_version_2 = false;
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, mut response: Response| {
        if request.headers().contains_key("Origin") && fault != Some(Fault::AcceptsOrigins) {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        let offered = request.headers().get("Sec-WebSocket-Protocol").and_then(|offer| offer.to_str().ok());
        let offered = |name: &str| offered.is_some_and(|offer| offer.split(", ").any(|one| one == name));
        is_version_2 = offered(SUBPROTOCOL_2) && fault != Some(Fault::VersionOneOnly);
        let selected = if is_version_2 { SUBPROTOCOL_2 } else { SUBPROTOCOL_1 };
        if offered(selected) {
            response.headers_mut().insert("Sec-WebSocket-Protocol", selected.parse().expect("a header's value"));
        }
        gate.answer(request, &mut response);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr_with_config(stream, check, Some(config)) else { return };
    socket.get_ref().set_nodelay(true).expect("set");
    socket.get_ref().set_read_timeout(Some(READ_FOR)).expect("set");
    desk.lock().connect(link, is_version_2);
    if let Err(Some(code)) = gate.check() {
        desk.lock().refuse(link, code);
    }
    loop {
        // Taken by itself: the desk must not stay locked while the connection is read.
        let queued = desk.lock().take_queued(link);
        let Some((queued, closes)) = queued else { break };
        let written = queued.is_empty() || socket.send(Message::binary(queued)).is_ok();
        if closes || !written {
            break;
        }
        match read(desk, &mut gate, link, &mut socket) {
            Ok(()) => {}
            Err(Some(code)) => desk.lock().refuse(link, code),
            Err(None) => break,
        }
    }
    desk.lock().disconnect(link);
    // So that the last frame is not lost to a reset.
    let _ = socket.get_ref().shutdown(std::net::Shutdown::Write);
    thread::sleep(Duration::from_millis(100));
}

/// Reads one message. The error is a code to send, or none if the connection has ended.
fn read(
    desk: &Arc<Mutex<Desk>>,
    gate: &mut Gate,
    link: usize,
    socket: &mut WebSocket<TcpStream>,
) -> Result<(), Refusal> {
    match socket.read() {
        Ok(Message::Binary(message)) => {
            let frames = wire::frames(&message).collect::<Result<Vec<_>, _>>().map_err(|error| Some(error.code()))?;
            frames.iter().try_for_each(|frame| execute(desk, gate, link, frame))
        }
        Ok(Message::Ping(_)) => {
            desk.lock().report(link);
            Ok(())
        }
        Ok(Message::Text(_)) => Err(Some(ErrorCode::Malformed)),
        Ok(_) => Ok(()),
        Err(WsError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(WsError::Capacity(_)) => Err(Some(ErrorCode::TooLarge)),
        Err(_) => Err(None),
    }
}

fn execute(desk: &Arc<Mutex<Desk>>, gate: &mut Gate, link: usize, frame: &Frame<'_>) -> Result<(), Refusal> {
    if let Frame::Lead { epoch, .. } = frame {
        desk.lock().hear_of(epoch.0);
    }
    gate.judge(frame)?;
    let (id, body) = match frame {
        Frame::Lead { epoch, group } => return desk.lock().lead(link, epoch.0, group),
        Frame::Proof(_) if gate.takes_proof() => return Ok(()),
        Frame::Hello(_) => return desk.lock().hello(link),
        Frame::Recorded(ids) => return desk.lock().recorded(link, ids),
        Frame::Error { .. } => return Err(None),
        Frame::Process { id, body, .. } => (*id, body.to_vec()),
        Frame::Deliver { id, channel_bytes, joined, .. } => (*id, joined[usize::from(*channel_bytes)..].to_vec()),
        _ => return Err(Some(ErrorCode::Unexpected)),
    };
    if desk.lock().accept(link, id.0)? {
        let desk = desk.clone();
        thread::spawn(move || {
            let outcome = handle(&body);
            desk.lock().finish(link, id.0, &outcome);
        });
    }
    Ok(())
}

/// The conformance handler.
fn handle(body: &[u8]) -> Outcome {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    thread::sleep(Duration::from_millis(body["ms"].as_u64().unwrap_or(0)));
    let reason = body["reason"].as_str().unwrap_or("as the body asks").to_owned();
    match body["conform"].as_str() {
        Some("nothing") => Outcome::Result(None),
        Some("reject") => Outcome::Failure(u32::MAX, reason),
        Some("retry" | "throw") => Outcome::Failure(body["delay_ms"].as_u64().unwrap_or(0) as u32, reason),
        _ => Outcome::Result(Some(body["fields"]["message_id"].as_str().unwrap_or("none").to_owned())),
    }
}
