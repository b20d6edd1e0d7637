//! The writing side of a connection: a thread that writes the frames in its outbox, and reports the held messages every
//! second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::debug;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Error as WsError, Message, WebSocket};

use super::common::{Common, LINGER, LinkLane};
use crate::base::log_context;
use crate::base::text::Quoted;
use crate::consumer::outbox::{Outbox, WriterTask};
use crate::consumer::peer::{CloseReason, LinkId};
use crate::consumer::refusals::{EventKind, Example};
use crate::consumer::socket::Socket;
use crate::wire::Frame;

/// How often the held messages are reported to the ruler: a third of a dispatcher's default link timeout.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Writer {
    pub(super) link: LinkId,
    pub(super) peer: SocketAddr,
    pub(super) lane: Arc<LinkLane>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) endpoint: WebSocket<Socket>,
    pub(super) common: Arc<Common>,
    /// Disconnected when the reader has ended.
    pub(super) reader_ended: Receiver<()>,
}

impl Writer {
    /// The thread's main loop: writes until the outbox is closed or writing fails.
    pub(super) fn run(mut self) {
        log_context::enter(&self.common.lanes.context());
        let mut tick = Instant::now() + REPORT_INTERVAL;
        loop {
            if Instant::now() >= tick {
                tick = Instant::now() + REPORT_INTERVAL;
                self.report();
            }
            let written = match self.outbox.next(tick) {
                WriterTask::Tick => Ok(()),
                WriterTask::Ping(number) => self.endpoint.send(Message::Ping(Bytes::copy_from_slice(&number))),
                WriterTask::Write(frames) => self.endpoint.send(Message::binary(frames)),
                WriterTask::Close(frames) => return self.close(frames),
                WriterTask::Abort => Err(WsError::WriteBufferFull(Box::new(Message::Close(None)))),
            };
            if let Err(error) = written {
                let reason = &error.to_string();
                let example = Example { peer: self.peer, details: format_args!("link={}", self.link), reason };
                self.common.refusals.note(EventKind::WriteFailed, example, Instant::now());
                // The reader then returns at once and ends the connection.
                return self.endpoint.get_ref().shutdown();
            }
        }
    }

    fn report(&self) {
        let Some(lane) = self.lane.get() else { return };
        log_context::enter(&lane.context);
        if let Err(CloseReason { code, text }) = lane.desk.report(self.link, Instant::now())
            && self.outbox.close(Some(&Frame::Error { code, text: &text }))
        {
            lane.desk.stats().stale.add(1);
        }
    }

    fn close(mut self, frames: Vec<u8>) {
        self.endpoint.get_ref().stop_reading();
        let written = if frames.is_empty() { Ok(()) } else { self.endpoint.send(Message::binary(frames)) };
        let goodbye = CloseFrame { code: CloseCode::Away, reason: "".into() };
        let written = written.and_then(|()| self.endpoint.close(Some(goodbye)));
        if let Err(error) = written {
            debug!("event=close-failed link={} reason={}", self.link, Quoted(error));
        }
        let socket = self.endpoint.get_ref();
        socket.finish_writing();
        let rules = self.lane.get().is_some_and(|lane| lane.desk.ruler() == Some(self.link));
        if socket.reads_much() && !rules {
            // This connection was replaced. Close it immediately, to free its partly received message and its thread's
            // memory.
            socket.shutdown();
        }
        // Normally the peer now closes its side, and the reader notices that. If it does not, the socket is shut down.
        if self.reader_ended.recv_timeout(LINGER) == Err(RecvTimeoutError::Timeout) {
            self.endpoint.get_ref().shutdown();
        }
    }
}
