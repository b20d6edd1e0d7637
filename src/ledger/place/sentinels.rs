//! Asks Sentinels where the primary is.
//!
//! Each Sentinel has a thread, `sentinel-<n>`, that asks it several times a second, and at once when a connection is to
//! be opened. So a Sentinel that does not answer holds up nothing but its own thread, and a failover is noticed
//! although nobody closes a connection. The threads start with the first lookup, and end with the last clone of the
//! server.
//!
//! Which answer is believed, `board` decides.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::Value;

use super::answer::{Told, failed, read};
use super::asker::Asker;
use super::board::{ANSWER_LIMIT, Board};
use super::guides::{Witness, ask_all};
use super::known::{Found, Known};
use crate::base::text::Quoted;
use crate::ledger::command::command;
use crate::net::Address;

/// How often a Sentinel is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long the end waits for the threads. A name that is being looked up may take longer.
const END_PATIENCE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 256 << 10;

/// The handle: ends the threads when dropped.
pub(super) struct Sentinels {
    inquiry: Arc<Inquiry>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The Sentinels of the URL.
    addresses: Vec<Address>,
    /// Makes what asks one of them.
    asker: Box<MakeAsker>,
}

type MakeAsker = dyn Fn(&Address) -> Asker + Send + Sync;

/// What the threads share.
struct Inquiry {
    /// The name of the primary.
    name: String,
    known: Arc<Known>,
    board: Mutex<Board>,
    changed: Condvar,
}

impl Sentinels {
    /// Nothing is asked yet.
    pub(super) fn new(name: &str, addresses: Vec<Address>, asker: Box<MakeAsker>, known: Arc<Known>) -> Sentinels {
        let board = Board::new(addresses.iter().cloned());
        let inquiry = Inquiry { name: name.to_owned(), known, board: Mutex::new(board), changed: Condvar::new() };
        Sentinels { inquiry: Arc::new(inquiry), threads: Mutex::default(), addresses, asker }
    }

    /// The name of the primary.
    pub(super) fn name(&self) -> &str {
        &self.inquiry.name
    }

    /// The Sentinels' addresses.
    pub(super) fn shown(&self) -> String {
        self.inquiry.board.lock().sentinels()
    }

    /// Asks all Sentinels, and returns where the primary is once more than half of them have answered, or all that
    /// have done so in time. If none has, those are waited for that are still finding out what is wrong.
    pub(super) fn find(&self, limit: Duration) -> io::Result<Found> {
        self.start()?;
        let now = Instant::now();
        let (soon, at_last) = (now + limit.min(ANSWER_LIMIT), now + limit);
        let inquiry = &*self.inquiry;
        let mut board = inquiry.board.lock();
        board.lookups += 1;
        let lookup = board.lookups;
        inquiry.changed.notify_all();
        while !board.is_decided(lookup) {
            let deadline = if board.is_told(lookup) { soon } else { at_last };
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            // Also when it is time to be content with what was said.
            let wake = if now < soon { soon } else { deadline };
            inquiry.changed.wait_until(&mut board, wake);
        }
        let address = board.judge(lookup).map_err(io::Error::other)?;
        let generation = inquiry.known.note_found(&address);
        Ok(Found { address, generation })
    }

    /// What each of them says, asked on connections of their own, each within `limit`.
    pub(super) fn ask_each(&self, limit: Duration) -> Vec<(Address, Result<Witness, String>)> {
        let questions = questions(self.name());
        ask_all(self.addresses.clone(), |address| {
            let replies = (self.asker)(address).ask(&questions, 2, limit).map_err(|error| failed(&error))?;
            let hides_epoch = matches!(replies[1], Value::ServerError(_));
            read(&replies).map(|told| Witness::new(told, hides_epoch))
        })
    }

    fn start(&self) -> io::Result<()> {
        let mut threads = self.threads.lock();
        while let Some(address) = self.addresses.get(threads.len()) {
            let (seat, asker) = (threads.len(), (self.asker)(address));
            let watch = Watch { inquiry: self.inquiry.clone(), seat, asker, is_down: false };
            let thread = thread::Builder::new().name(format!("sentinel-{seat}")).stack_size(STACK_BYTES);
            threads.push(thread.spawn(move || watch.run())?);
        }
        Ok(())
    }
}

/// Where the primary is, and the number of the last failover.
fn questions(name: &str) -> Vec<u8> {
    let mut commands = Vec::new();
    command(&mut commands, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
    command(&mut commands, &["SENTINEL", "MASTER", name]);
    commands
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        let mut threads = std::mem::take(self.threads.get_mut());
        let deadline = Instant::now() + END_PATIENCE;
        let mut board = self.inquiry.board.lock();
        board.stopped = true;
        self.inquiry.changed.notify_all();
        while board.ended < threads.len() && !self.inquiry.changed.wait_until(&mut board, deadline).timed_out() {}
        let all_ended = board.ended == threads.len();
        drop(board);
        for thread in threads.drain(..) {
            // One that looks up a name can't be interrupted. It is left behind, and ends with the lookup.
            if (all_ended || thread.is_finished()) && thread.join().is_err() {
                log::error!("event=panic thread=sentinel");
            }
        }
    }
}

/// The work of a Sentinel's thread.
struct Watch {
    inquiry: Arc<Inquiry>,
    seat: usize,
    asker: Asker,
    is_down: bool,
}

impl Watch {
    fn run(mut self) {
        let _ended = Ended(self.inquiry.clone());
        let commands = questions(&self.inquiry.name);
        while let Some(lookup) = self.wait() {
            let asked = self.asker.ask(&commands, 2, ANSWER_LIMIT);
            let answer = asked.map_err(|error| failed(&error)).and_then(|replies| read(&replies));
            self.log(&answer);
            self.take(lookup, answer);
        }
    }

    /// Waits until it is time to ask. Returns the number of lookups by then; `None` at the end.
    fn wait(&self) -> Option<u64> {
        let mut board = self.inquiry.board.lock();
        let due = Instant::now() + ASK_EVERY;
        while !board.stopped && board.has_answered(self.seat) {
            if self.inquiry.changed.wait_until(&mut board, due).timed_out() {
                break;
            }
        }
        (!board.stopped).then_some(board.lookups)
    }

    fn take(&self, lookup: u64, answer: Result<Told, String>) {
        let inquiry = &*self.inquiry;
        let mut board = inquiry.board.lock();
        board.note(self.seat, lookup, answer);
        // Under the lock, so that no older answer is noted later.
        if let Some(address) = board.standing() {
            inquiry.known.note_found(&address);
        }
        drop(board);
        inquiry.changed.notify_all();
    }

    fn log(&mut self, answer: &Result<Told, String>) {
        let sentinel = Quoted(self.asker.address().to_string());
        match answer {
            Err(problem) if !self.is_down => {
                log::warn!("event=sentinel-down sentinel={sentinel} problem={}", Quoted(problem));
            }
            Ok(_) if self.is_down => log::info!("event=sentinel-back sentinel={sentinel}"),
            _ => {}
        }
        self.is_down = answer.is_err();
    }
}

/// Counts the end of a thread, even after a panic.
struct Ended(Arc<Inquiry>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.board.lock().ended += 1;
        self.0.changed.notify_all();
    }
}
