//! The dialers of a lane, one for each member of the roster: started and ended one by one.
//!
//! Whoever adds a member starts its dialer first, and whoever releases it ends the dialer. A dialer that ends may be
//! connecting or greeting, for seconds at most; its thread is joined once it has ended, or with the lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tungstenite::WebSocket;

use super::dialer::{Dial, Dialer, Request};
use super::roster::{Member, MemberId};
use super::shared::Shared;
use crate::base::error::Result;
use crate::net::Stream;

/// A dialer's stack; it does little.
const STACK_BYTES: usize = 256 << 10;

/// How a dialer is reached.
#[derive(Debug)]
struct Line {
    serial: u64,
    requests: Sender<Request>,
    /// Takes back a request that the dialer has not begun.
    waiting: Receiver<Request>,
    /// Set when the dialer is to end.
    ended: Arc<AtomicBool>,
}

/// Requests links. Clones reach the same dialers.
#[derive(Clone, Debug, Default)]
pub(super) struct DialRequests(Arc<Mutex<HashMap<usize, Line>>>);

impl DialRequests {
    /// Requests a link to a member. Does nothing if its dialer has been ended.
    pub(super) fn request(&self, member: MemberId, dial: Dial) {
        let lines = self.0.lock();
        if let Some(line) = lines.get(&member.slot).filter(|line| line.serial == member.serial) {
            line.send(Request::Dial(dial));
        }
    }

    /// Ends a member's dialer. It first closes `farewell`, a connection on which the consumer should read what is left.
    pub(super) fn end(&self, member: MemberId, farewell: Option<WebSocket<Stream>>) {
        let mut lines = self.0.lock();
        if lines.get(&member.slot).is_none_or(|line| line.serial != member.serial) {
            return;
        }
        let Some(line) = lines.remove(&member.slot) else { return };
        line.ended.store(true, Ordering::Release);
        farewell.into_iter().for_each(|socket| line.send(Request::Close(socket)));
    }
}

impl Line {
    /// A dialer that is still busy for an old term may have a request of another old term waiting. The newest request
    /// replaces it.
    fn send(&self, mut request: Request) {
        while let Err(TrySendError::Full(unsent)) = self.requests.try_send(request) {
            let _ = self.waiting.try_recv();
            request = unsent;
        }
    }
}

/// The handle: ends and joins the threads when dropped.
pub(super) struct Dialers {
    shared: Arc<Shared>,
    lines: DialRequests,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Dialers {
    /// Starts a dialer for each present member of the roster.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Dialers> {
        let dialers = Dialers { shared: shared.clone(), lines: DialRequests::default(), threads: Mutex::default() };
        shared.roster.members().iter().try_for_each(|member| dialers.start_for(member))?;
        Ok(dialers)
    }

    /// Starts the dialer of a new member.
    pub(super) fn start_for(&self, member: &Member) -> Result<()> {
        let (requests, waiting) = bounded(1);
        let ended = Arc::new(AtomicBool::new(false));
        let dialer = Dialer::new(&self.shared, member, waiting.clone(), ended.clone());
        let stack = thread::Builder::new().stack_size(STACK_BYTES);
        let name = format!("dialer-{}", member.id.slot);
        self.threads.lock().push(self.shared.spawn_with(stack, &name, move || dialer.run())?);
        let line = Line { serial: member.id.serial, requests, waiting, ended };
        self.lines.0.lock().insert(member.id.slot, line);
        Ok(())
    }

    /// Ends the dialer of a member that was released.
    pub(super) fn end(&self, member: MemberId) {
        self.lines.end(member, None);
    }

    /// Joins the threads that have ended.
    pub(super) fn join_ended(&self) {
        let ended: Vec<_> = self.threads.lock().extract_if(.., |thread| thread.is_finished()).collect();
        ended.into_iter().for_each(join);
    }

    pub(super) fn requests(&self) -> DialRequests {
        self.lines.clone()
    }
}

impl Drop for Dialers {
    fn drop(&mut self) {
        for (_, line) in self.lines.0.lock().drain() {
            line.ended.store(true, Ordering::Release);
        }
        self.threads.lock().drain(..).for_each(join);
    }
}

impl std::fmt::Debug for Dialers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialers").field("threads", &self.threads.lock().len()).finish_non_exhaustive()
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("event=panic thread=dialer");
    }
}
