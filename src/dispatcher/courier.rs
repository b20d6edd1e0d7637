//! The courier: hands messages to consumers and hears what became of them.
//!
//! One thread, one loop, no blocking call but the wait: it reads the links, hears the redistributor and ingest, hands
//! out what waits to the consumer with the lowest share of its prefetch in use, and tends the links. A consumer that
//! does not read fills its own share and nothing else. It never talks to Redis: what needs Redis is a task for the
//! redistributor, and ingest never waits for it, since what does not fit into memory is left to the sorted set.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, unbounded};
use tungstenite::Bytes;

use super::Shared;
use super::backlog::{Backlog, PageRequest};
use super::dialer::{Dial, DialRequests, LinkNews, NewLink};
use super::link::{Failure, Incoming, Link};
use super::sockets::{Readiness, Sockets};
use super::stats::{add, set};
use super::table::{MAX_TRACKED, Table, Whereabouts};
use crate::error::Result;
use crate::id::{Epoch, MessageId};
use crate::ledger::{Commit, MAX_RESULT_FIELDS, Page, Pending, Returned, Verdict};
use crate::log::Quoted;
use crate::rate::Rate;
use crate::shutdown::{KillSwitch, Reason};
use crate::wire::{self, ErrorCode, Field, Frame, REJECT};

/// The longest wait: how soon timers and the kill switch are looked at.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a new leader waits for consumers to say what they hold before it reads the backlog.
const ROLL_CALL: Duration = Duration::from_millis(500);
/// Batches taken from ingest in one round of the loop.
const ARRIVALS_PER_ROUND: usize = 8;
/// Messages read from one link in one round of the loop.
const READS_PER_ROUND: usize = 64;
/// The backlog is read on when fewer messages than this wait.
const READY_LOW: usize = 4_000;
/// Results of consumers without Redis that may wait to be recorded; beyond it no link is read.
const MAX_RESULT_BYTES: usize = 32 << 20;

/// What the courier asks of the redistributor.
pub(super) enum Task {
    /// Read the backlog on.
    Page(PageRequest),
    /// These came back without a result; a NACK says after how many milliseconds to send again, 0 leaves it open.
    Returned(Vec<(Returned, u32)>),
    /// Record these for a consumer without Redis.
    Commit(CommitTask),
    /// These consumers are linked now.
    Members(Vec<String>),
}

/// Results to record, and whose places they free.
pub(super) struct CommitTask {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) bytes: usize,
}

/// What the redistributor tells the courier.
pub(super) enum News {
    /// The page that was asked for.
    Page(Page),
    /// These go out again.
    Back(Vec<Pending>),
    /// These are done or buried.
    Done(Vec<MessageId>),
    /// Results were recorded.
    Committed { link: usize, serial: u64, ids: Vec<MessageId>, bytes: usize },
}

/// The channels of the courier.
pub(super) struct CourierChannels {
    pub(super) arrivals: Receiver<Vec<Pending>>,
    pub(super) news: Receiver<News>,
    pub(super) tasks: Sender<Task>,
    pub(super) dial: DialRequests,
}

/// See the module's text.
pub(super) struct Courier {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    sockets: Sockets,
    channels: CourierChannels,
    link_news: (Sender<LinkNews>, Receiver<LinkNews>),
    links: Vec<Option<Link>>,
    /// Consumers that have answered or failed to, once.
    answered: Vec<bool>,
    began: Instant,
    /// Whether the backlog may be read: all who could say what they hold have said it.
    roll_called: bool,
    table: Table,
    backlog: Backlog,
    /// Tasks that the redistributor has no room for yet. Bounded by what the links may hold.
    outbox: VecDeque<Task>,
    result_bytes: usize,
    serials: u64,
    /// Where the search for the freest link begins, so that ties go in turn.
    turn: usize,
    /// Links to read on although their socket shows nothing new.
    unread: Vec<usize>,
    tended: Instant,
    rate: Rate,
}

impl Courier {
    /// `backlog_end` is the last id that earlier leaders gave out.
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        backlog_end: MessageId,
        kill: KillSwitch,
        sockets: Sockets,
        channels: CourierChannels,
    ) -> Courier {
        let consumers = shared.config.consumers.len();
        let now = Instant::now();
        Courier {
            shared: shared.clone(),
            epoch,
            kill,
            sockets,
            channels,
            // Bounded by the dialers: each has at most one link and one failure to tell.
            link_news: unbounded(),
            links: (0..consumers).map(|_| None).collect(),
            answered: vec![false; consumers],
            began: now,
            roll_called: false,
            table: Table::default(),
            backlog: Backlog::new(backlog_end),
            outbox: VecDeque::new(),
            result_bytes: 0,
            serials: 0,
            turn: 0,
            unread: Vec::new(),
            tended: now,
            rate: Rate::new(),
        }
    }

    /// The main loop of the worker.
    pub(super) fn run(mut self) -> Result<()> {
        (0..self.links.len()).for_each(|index| self.dial(index));
        self.list_members();
        while !self.kill.is_set() {
            let patience = if self.unread.is_empty() { PATIENCE } else { Duration::ZERO };
            let ready = self.sockets.wait(patience)?;
            self.hear_links()?;
            self.read_links(&ready);
            self.hear_redistributor();
            self.hear_ingest();
            self.call_the_roll();
            self.read_backlog();
            self.hand_out();
            self.flush_links();
            self.tend_links();
            self.pass_tasks_on();
            self.show();
        }
        self.links.iter_mut().flatten().for_each(|link| self.sockets.remove(link.stream()));
        set(&self.shared.stats.links, 0);
        set(&self.shared.stats.in_flight, 0);
        set(&self.shared.stats.ready, 0);
        Ok(())
    }

    // Links ----------------------------------------------------------------------------------------------------------

    fn dial(&self, index: usize) {
        let dial = Dial {
            epoch: self.epoch,
            kill: self.kill.clone(),
            news: self.link_news.0.clone(),
            waker: self.sockets.waker(),
        };
        self.channels.dial.request(index, dial);
    }

    fn hear_links(&mut self) -> Result<()> {
        while let Ok(news) = self.link_news.1.try_recv() {
            match news {
                LinkNews::Up(link) => self.add_link(*link)?,
                LinkNews::Unreachable(index) => self.answered[index] = true,
            }
        }
        Ok(())
    }

    fn add_link(&mut self, new: NewLink) -> Result<()> {
        let index = new.index;
        self.serials += 1;
        let leftover = new.leftover.clone();
        let held = new.held.clone();
        let mut link = Link::new(new, self.serials);
        self.sockets.add(link.stream(), index)?;
        for id in &held {
            let adopted = self.table.adopt(*id, index);
            link.adopt(*id, !adopted);
        }
        log::info!(
            "event=consumer-linked consumer={} address={} held={}",
            Quoted(&link.consumer),
            self.shared.config.consumers[index],
            held.len()
        );
        add(&self.shared.stats.links_made, 1);
        self.links[index] = Some(link);
        self.answered[index] = true;
        self.list_members();
        self.handle_frames(index, leftover.into());
        // What came with the answer is in the WebSocket's buffer, where the poller does not see it.
        self.unread.push(index);
        Ok(())
    }

    fn drop_link(&mut self, index: usize, why: &str) {
        let Some(mut link) = self.links[index].take() else { return };
        self.sockets.remove(link.stream());
        let verdict = if link.draining { Verdict::Unused } else { Verdict::Failed };
        let held = link.take_attached();
        log::warn!(
            "event=consumer-lost consumer={} draining={} held={} reason={}",
            Quoted(&link.consumer),
            link.draining,
            held.len(),
            Quoted(why)
        );
        add(&self.shared.stats.links_lost, 1);
        let reason = format!("the link to the consumer was lost: {why}");
        self.give_back(&link.consumer, held, verdict, &reason);
        self.list_members();
        self.dial(index);
    }

    /// Hands messages that brought no result to the redistributor.
    fn give_back(&mut self, consumer: &Arc<str>, ids: Vec<(MessageId, u16)>, verdict: Verdict, reason: &str) {
        let returned = ids.into_iter().map(|(id, delivery)| {
            self.table.set_away(id);
            (Returned { id, verdict, delivery, consumer: consumer.clone(), reason: reason.to_owned() }, 0)
        });
        let returned: Vec<_> = returned.collect();
        if !returned.is_empty() {
            self.outbox.push_back(Task::Returned(returned));
        }
    }

    fn list_members(&mut self) {
        let members: Vec<String> = self.links.iter().flatten().map(|link| link.consumer.to_string()).collect();
        set(&self.shared.stats.links, members.len() as u64);
        // Only the newest list counts.
        self.outbox.retain(|task| !matches!(task, Task::Members(_)));
        self.outbox.push_back(Task::Members(members));
    }

    fn read_links(&mut self, ready: &[Readiness]) {
        let again = std::mem::take(&mut self.unread);
        let readable = ready.iter().filter(|socket| socket.readable).map(|socket| socket.key);
        let mut keys: Vec<usize> = readable.chain(again).collect();
        keys.sort_unstable();
        keys.dedup();
        for index in keys {
            if let Err(failure) = self.read_link(index) {
                self.drop_link(index, &failure);
            }
        }
    }

    fn read_link(&mut self, index: usize) -> Result<(), Failure> {
        for _ in 0..READS_PER_ROUND {
            let Some(link) = &mut self.links[index] else { return Ok(()) };
            if self.result_bytes >= MAX_RESULT_BYTES {
                // Not its fault: it is read on when the results have been recorded.
                link.last_heard = Instant::now();
                break;
            }
            let incoming = link.read()?;
            if !matches!(incoming, Incoming::Nothing) {
                link.last_heard = Instant::now();
            }
            match incoming {
                Incoming::Frames(bytes) => self.handle_frames(index, bytes),
                Incoming::Alive => {}
                Incoming::Nothing => return Ok(()),
            }
        }
        self.unread.push(index);
        Ok(())
    }

    fn handle_frames(&mut self, index: usize, bytes: Bytes) {
        for frame in wire::frames(&bytes) {
            let outcome = match frame {
                Ok(frame) => self.handle_frame(index, frame),
                Err(error) => Err((error.code(), error.to_string())),
            };
            if let Err((code, problem)) = outcome {
                add(&self.shared.stats.bad_frames, 1);
                if let Some(link) = &mut self.links[index] {
                    link.complain(code, &problem);
                }
                self.drop_link(index, &problem);
                return;
            }
        }
    }

    fn handle_frame(&mut self, index: usize, frame: Frame<'_>) -> Result<(), (ErrorCode, String)> {
        let Some(link) = &mut self.links[index] else { return Ok(()) };
        match frame {
            Frame::Ack(ids) if link.flags.commits() => ids.into_iter().for_each(|id| self.acked(index, id)),
            Frame::Ack(ids) => {
                let commits = ids.into_iter().map(|id| Commit { id, fields: Vec::new() }).collect();
                self.commit(index, commits);
            }
            Frame::Result { id, fields } if fields.len() <= MAX_RESULT_FIELDS => {
                let owned = |field: &Field<'_>| (field.name.to_vec(), field.value.to_vec());
                self.commit(index, vec![Commit { id, fields: fields.iter().map(owned).collect() }]);
            }
            Frame::Result { id, fields } => {
                let reason = format!("a result of {} fields, at most {MAX_RESULT_FIELDS} can be stored", fields.len());
                self.nacked(index, id, REJECT, &reason);
            }
            Frame::Nack { id, delay_ms, reason } => self.nacked(index, id, delay_ms, reason),
            Frame::Progress(ids) => link.progress(&ids, Instant::now()),
            Frame::Drain => {
                log::info!("event=consumer-draining consumer={} held={}", Quoted(&link.consumer), link.held_len());
                link.draining = true;
            }
            Frame::Error { code: ErrorCode::Stale, text } => {
                log::warn!("event=superseded consumer={} text={}", Quoted(&link.consumer), Quoted(text));
                self.kill.set(Reason::Superseded);
            }
            Frame::Error { code, text } => {
                let failure = format!("it refused: {code}: {text}");
                self.drop_link(index, &failure);
            }
            Frame::Process { .. } | Frame::Lead { .. } | Frame::Ready { .. } | Frame::Held(_) => {
                return Err((ErrorCode::Unexpected, format!("{} is not expected now", frame.name())));
            }
        }
        Ok(())
    }

    // What became of messages ------------------------------------------------------------------------------------------

    /// The consumer is done with a message, and it is no longer in the sorted set.
    fn acked(&mut self, index: usize, id: MessageId) {
        let held = self.links[index].as_mut().and_then(|link| link.let_go(id));
        // Something that went elsewhere meanwhile is acknowledged from there, too; then its place there is free.
        if held.is_none_or(|held| held.detached) && matches!(self.table.whereabouts(id), Some(Whereabouts::Sent(_))) {
            return;
        }
        self.table.forget(id);
        self.backlog.acked(id);
        add(&self.shared.stats.acked, 1);
    }

    fn nacked(&mut self, index: usize, id: MessageId, delay_ms: u32, reason: &str) {
        let Some(link) = &mut self.links[index] else { return };
        // One that counts as being elsewhere is settled from there.
        let Some(held) = link.let_go(id).filter(|held| !held.detached) else { return };
        let verdict = if delay_ms == REJECT { Verdict::Rejected } else { Verdict::Failed };
        let delay_ms = if delay_ms == REJECT { 0 } else { delay_ms };
        let consumer = link.consumer.clone();
        self.table.set_away(id);
        let returned = Returned { id, verdict, delivery: held.delivery, consumer, reason: reason.to_owned() };
        match self.outbox.back_mut() {
            Some(Task::Returned(waiting)) => waiting.push((returned, delay_ms)),
            _ => self.outbox.push_back(Task::Returned(vec![(returned, delay_ms)])),
        }
    }

    /// Has results recorded for a consumer that has no Redis; its places are free when that is done.
    fn commit(&mut self, index: usize, commits: Vec<Commit>) {
        let Some(link) = &self.links[index] else { return };
        let bytes = commits.iter().map(Commit::bytes).sum();
        self.result_bytes += bytes;
        self.outbox.push_back(Task::Commit(CommitTask { link: index, serial: link.serial, commits, bytes }));
    }

    fn hear_redistributor(&mut self) {
        while let Ok(news) = self.channels.news.try_recv() {
            match news {
                News::Page(page) => {
                    let messages: Vec<Pending> = self.backlog.arrived(page).collect();
                    let admitted = messages.into_iter().filter(|message| self.table.admit(message.clone())).count();
                    add(&self.shared.stats.read_back, admitted);
                }
                News::Back(messages) => {
                    // Each goes to the front, so the oldest goes last.
                    let back = messages.into_iter().rev().filter(|message| self.table.readmit(message.clone())).count();
                    add(&self.shared.stats.redelivered, back);
                }
                News::Done(ids) => ids.into_iter().for_each(|id| self.done(id)),
                News::Committed { link, serial, ids, bytes } => {
                    self.result_bytes -= bytes;
                    if self.links[link].as_ref().is_some_and(|link| link.serial == serial) {
                        ids.into_iter().for_each(|id| self.acked(link, id));
                    }
                }
            }
        }
    }

    /// The redistributor found that a message is no longer pending, or buried it.
    fn done(&mut self, id: MessageId) {
        if self.table.whereabouts(id) == Some(Whereabouts::Away) {
            self.table.forget(id);
        }
    }

    // Handing out ------------------------------------------------------------------------------------------------------

    fn hear_ingest(&mut self) {
        for _ in 0..ARRIVALS_PER_ROUND {
            let Ok(batch) = self.channels.arrivals.try_recv() else { return };
            for message in batch {
                // While there is a backlog that can be read, new messages queue behind it.
                let behind = self.roll_called && !self.backlog.is_empty();
                if behind || !self.has_room() {
                    self.backlog.extend(message.id);
                    add(&self.shared.stats.spilled, 1);
                } else {
                    self.table.admit(message);
                }
            }
        }
        // There may be more.
        self.sockets.waker().wake();
    }

    fn has_room(&self) -> bool {
        self.table.len() < MAX_TRACKED && self.table.ready_bytes() < self.shared.config.ready_bytes
    }

    /// Everybody who can say what it holds has said it, or has had its time.
    fn call_the_roll(&mut self) {
        if !self.roll_called && (self.answered.iter().all(|answered| *answered) || self.began.elapsed() >= ROLL_CALL) {
            self.roll_called = true;
            log::info!(
                "event=roll-called consumers={} ms={}",
                self.links.iter().flatten().count(),
                self.began.elapsed().as_millis()
            );
        }
    }

    fn read_backlog(&mut self) {
        if self.roll_called && self.has_room() && self.table.ready_len() < READY_LOW {
            let room = self.shared.config.ready_bytes - self.table.ready_bytes();
            if let Some(request) = self.backlog.request(room) {
                self.outbox.push_back(Task::Page(request));
            }
        }
    }

    fn hand_out(&mut self) {
        let now = Instant::now();
        let mut sent = 0;
        while let Some(first) = self.table.first_ready() {
            let Some(index) = choose(&self.links, self.turn, first) else { break };
            self.turn = (index + 1) % self.links.len();
            let Some(message) = self.table.send_first(index) else { break };
            let Some(link) = &mut self.links[index] else { break };
            if let Err(failure) = link.deliver(&message, now) {
                self.drop_link(index, &failure);
                continue;
            }
            sent += 1;
        }
        add(&self.shared.stats.dispatched, sent);
        if let Some(per_second) = self.rate.count(sent as u64) {
            log::info!(
                "event=rate dispatched_per_s={per_second} in_flight={} ready={}",
                self.links.iter().flatten().map(Link::held_len).sum::<usize>(),
                self.table.ready_len()
            );
        }
    }

    fn flush_links(&mut self) {
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            let was_congested = link.congested;
            let outcome = link.flush().and_then(|()| {
                if link.congested == was_congested {
                    return Ok(());
                }
                self.sockets.watch(link.stream(), index, true, link.congested).map_err(|error| error.to_string())
            });
            if let Err(failure) = outcome {
                self.drop_link(index, &failure);
            }
        }
    }

    /// Pings, and gives up what is silent.
    fn tend_links(&mut self) {
        let timeout = self.shared.config.link_timeout;
        let now = Instant::now();
        if now.duration_since(self.tended) < (timeout / 20).min(PATIENCE) {
            return;
        }
        self.tended = now;
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            // Unread links have something to say.
            let silent = now.saturating_duration_since(link.last_heard) >= timeout && !self.unread.contains(&index);
            let outcome = if silent {
                Err(format!("nothing came for {} ms", timeout.as_millis()))
            } else {
                link.ping_if_due(timeout / 3, now)
            };
            if let Err(failure) = outcome {
                self.drop_link(index, &failure);
                continue;
            }
            let overdue = link.detach_overdue(2 * timeout, now);
            if !overdue.is_empty() {
                let consumer = link.consumer.clone();
                log::warn!("event=overdue consumer={} messages={}", Quoted(&consumer), overdue.len());
                self.give_back(&consumer, overdue, Verdict::Failed, "the consumer no longer reported it");
            }
        }
    }

    fn pass_tasks_on(&mut self) {
        while let Some(task) = self.outbox.pop_front() {
            match self.channels.tasks.try_send(task) {
                Ok(()) => {}
                Err(TrySendError::Full(task)) => {
                    self.outbox.push_front(task);
                    return;
                }
                // The redistributor has ended, and the term with it.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    fn show(&self) {
        let stats = &self.shared.stats;
        set(&stats.in_flight, self.links.iter().flatten().map(|link| link.held_len() as u64).sum());
        set(&stats.ready, self.table.ready_len() as u64);
    }
}

/// The link with room that uses the lowest share of its prefetch; the search begins at `turn`, and the first of equals
/// is taken. A link that still has the message in hand is the last choice.
fn choose(links: &[Option<Link>], turn: usize, message: &Pending) -> Option<usize> {
    let order = (turn..links.len()).chain(0..turn);
    let mut best: Option<(usize, &Link, bool)> = None;
    for index in order {
        let Some(link) = links[index].as_ref().filter(|link| link.has_room(message.payload.len())) else { continue };
        let again = message.delivery > 1 && link.holds(message.id);
        let better = match best {
            None => true,
            Some((_, other, other_again)) if again == other_again => link.is_freer_than(other),
            Some((_, _, other_again)) => other_again,
        };
        if better {
            best = Some((index, link, again));
        }
    }
    best.map(|(index, ..)| index)
}
