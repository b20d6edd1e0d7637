//! The courier: hands messages to consumers and hears what became of them.
//!
//! One thread, one loop, no blocking call but the wait: it reads the links, hears the redistributor and ingest, hands
//! out what waits, in runs, to the consumer with the lowest share of its prefetch in use, and tends the links. A
//! consumer that does not read fills its own share and nothing else. It never talks to Redis: what needs Redis is a
//! task for the redistributor, and ingest never waits for it, since what does not fit into memory is left to the sorted
//! set.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, unbounded};

mod choice;
mod links;
mod outcomes;
#[cfg(test)]
mod tests;

use self::choice::{choose, run_length};
use super::backlog::{Backlog, PageRequest};
use super::dialer::{DialRequests, LinkNews};
use super::link::Link;
use super::pulses::ITERATION_WITHIN;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::{add, set};
use super::table::{Again, Line, MAX_TRACKED, Next, Table};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};
use crate::base::rate::Rate;
use crate::lane::kill_switch::KillSwitch;
use crate::ledger::{Commit, Page, Pending, Returned};

/// The longest wait: how soon timers and the kill switch are looked at.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a new leader waits for consumers to say what they hold before it reads the backlog.
const ROLL_CALL: Duration = Duration::from_millis(500);
/// Batches taken from ingest in one round of the loop.
const ARRIVALS_PER_ROUND: usize = 8;
/// How often it is said that no more messages are taken in hand.
const SAY_FULL_EVERY: Duration = Duration::from_secs(10);
/// How often it is asked whether what waits is still in Redis.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The backlog is read on when fewer messages than this wait.
const READY_LOW: usize = 4_000;

/// What the courier asks of the redistributor.
pub(super) enum Task {
    /// Read the backlog on.
    Page(PageRequest),
    /// These came back without a result; a NACK says after how many milliseconds to send again, 0 leaves it open.
    Returned(Vec<(Returned, u32)>),
    /// These went out again after a lost link, with these numbers.
    Count(Vec<(MessageId, u16)>),
    /// Record these for a consumer without Redis.
    Commit(CommitTask),
    /// Look whether these are pending: a consumer says that it has them in hand.
    Verify(Claims),
    /// These consumers are linked now.
    Members(Vec<String>),
    /// Look whether this message is pending: nobody was given it.
    Look(MessageId),
    /// This message was taken in and given to nobody, and Redis no longer has it.
    Vanished(MessageId),
}

/// Results to record, and whose places they free.
pub(super) struct CommitTask {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) bytes: usize,
    /// Some of these the consumer only said that it had in hand.
    pub(super) adopted: bool,
}

/// Messages that a consumer named in HELD.
pub(super) struct Claims {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) ids: Vec<MessageId>,
}

/// What the redistributor tells the courier.
pub(super) enum News {
    /// The page that was asked for.
    Page(Page),
    /// These go out again.
    Back(Vec<Again>),
    /// These are done or buried.
    Done(Vec<MessageId>),
    /// This one is not pending.
    Missing(MessageId),
    /// Of what a consumer named these are not pending.
    NotPending(Claims),
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
    /// The last id that earlier leaders gave out.
    inherited: MessageId,
    /// A message that nobody has been given yet, whoever led.
    witness: Option<MessageId>,
    /// When it was last asked whether what waits is still in Redis.
    looked: Instant,
    /// Tasks that the redistributor has no room for yet. Bounded by what the links may hold.
    outbox: VecDeque<Task>,
    result_bytes: usize,
    serials: u64,
    /// Where the search for the freest link begins, so that ties go in turn.
    turn: usize,
    /// How far the stray answers of each consumer's last link are paid for.
    debts: Vec<Option<Instant>>,
    /// Links to read on although their socket shows nothing new.
    unread: Vec<usize>,
    tended: Instant,
    /// The longest wait.
    patience: Duration,
    /// Of what is taken in, and of what is acknowledged.
    rate: Rate<2>,
    /// Consumers of which it was said that two addresses lead to them.
    said_same: HashSet<Arc<str>>,
    /// When it was last said that no more messages are taken in hand.
    said_full: Option<Instant>,
    /// Messages acknowledged since the last look at the rate.
    acked_unsaid: u64,
    /// Messages that this process had taken in at the last look at the rate.
    taken_in_said: u64,
}

impl Courier {
    /// What earlier leaders left: the last id that they gave out, and a message that nobody was given.
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        (backlog_end, witness): (MessageId, Option<MessageId>),
        kill: KillSwitch,
        sockets: Sockets,
        channels: CourierChannels,
    ) -> Courier {
        let consumers = shared.settings.consumers.len();
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
            table: Table::new(backlog_end),
            backlog: Backlog::new(backlog_end),
            inherited: backlog_end,
            looked: now,
            // Before the first page is read.
            outbox: witness.map(Task::Look).into_iter().collect(),
            witness,
            result_bytes: 0,
            serials: 0,
            turn: 0,
            debts: vec![None; consumers],
            unread: Vec::new(),
            tended: now,
            patience: PATIENCE.min(shared.settings.link_timeout / 10),
            rate: Rate::new(),
            said_same: HashSet::new(),
            said_full: None,
            acked_unsaid: 0,
            taken_in_said: shared.stats.taken_in.load(Ordering::Relaxed),
        }
    }

    /// The main loop of the worker.
    pub(super) fn run(mut self) -> Result<()> {
        (0..self.links.len()).for_each(|index| self.dial(index, None));
        self.list_members();
        while !self.kill.is_set() {
            self.shared.pulses.courier.beat(ITERATION_WITHIN);
            let patience = if self.unread.is_empty() { self.patience } else { Duration::ZERO };
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
            self.look_for_what_waits();
            self.pass_tasks_on();
            self.show();
        }
        *self.shared.witness.lock() = self.waiting().map(|witness| (self.epoch, witness));
        self.links.iter_mut().flatten().for_each(|link| self.sockets.remove(link.stream()));
        set(&self.shared.stats.ready, 0);
        set(&self.shared.stats.behind, 0);
        set(&self.shared.stats.full, 0);
        Ok(())
    }

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
        self.table.len() < MAX_TRACKED && self.table.ready_bytes() < self.shared.settings.ready_bytes
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
            let room = self.shared.settings.ready_bytes - self.table.ready_bytes();
            if let Some(request) = self.backlog.request(room) {
                self.outbox.push_back(Task::Page(request));
            }
        }
    }

    /// Redis may have evicted the pending messages, or somebody deleted them: then what waits here would be handed out
    /// for nothing. A message that this leader took in and gave to nobody can't have been removed by anybody who may.
    fn look_for_what_waits(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        self.witness = None;
        if let Some(witness) = self.waiting() {
            self.outbox.push_back(Task::Look(witness));
        }
    }

    /// A message that this leader took in and gave to nobody.
    fn waiting(&self) -> Option<MessageId> {
        self.table.first_new().or(self.backlog.witness())
    }

    pub(super) fn missing(&mut self, id: MessageId) {
        // Meanwhile it may have been given to somebody, who recorded its result. What earlier leaders left is given to
        // nobody before this answer has come: it was the first question.
        if self.table.is_new(id) || self.backlog.witness() == Some(id) || self.witness == Some(id) {
            self.outbox.push_back(Task::Vanished(id));
        }
    }

    fn hand_out(&mut self) {
        self.give_stuck_places_away();
        // The suspects are older. They never hold up the others.
        Line::BOTH.into_iter().for_each(|line| self.hand_out_of(line));
    }

    /// Where nobody has a free place, and nobody works on anything, what is overdue would keep its places for ever. So
    /// they are given away, and the messages go out again: to be done at last, or to end as dead letters.
    fn give_stuck_places_away(&mut self) {
        let asked = |link: &&mut Link| !link.draining;
        if self.table.ready_len() > 0 && self.links.iter_mut().flatten().filter(asked).all(|link| link.is_stuck()) {
            self.links.iter_mut().flatten().filter(asked).for_each(|link| link.places.free_overdue());
        }
    }

    fn hand_out_of(&mut self, line: Line) {
        let now = Instant::now();
        let share = self.table.line_len(line).div_ceil(self.links.iter().flatten().count().max(1));
        let (mut sent, mut sent_again) = (0, 0);
        while let Some(first) = self.table.first_ready(line) {
            let Some(index) = choose(&self.links, self.turn, line, first) else { break };
            self.turn = (index + 1) % self.links.len();
            let run = self.links[index].as_ref().map_or(0, |link| run_length(line, link.places.room(), share));
            for place in 0..run {
                let Some(link) = &mut self.links[index] else { break };
                // The first has just been chosen for this link.
                let fits = |message: &Pending| place == 0 || link.is_natural_for(message);
                let Some(Next { message, again, loss }) = self.table.send_first(line, index, fits) else { break };
                let follows_a_loss = loss.is_some();
                if let Some(loss) = loss.filter(|_| u32::from(message.delivery) > self.shared.settings.max_deliveries) {
                    self.bury(&message, loss);
                    continue;
                }
                if line == Line::Suspects {
                    link.note_suspect(message.id);
                }
                if let Err(failure) = link.deliver(&message, now) {
                    self.drop_link(index, &failure);
                    break;
                }
                if follows_a_loss {
                    self.count(&message);
                }
                sent += 1;
                sent_again += usize::from(again);
            }
        }
        add(&self.shared.stats.dispatched, sent);
        add(&self.shared.stats.redelivered, sent_again);
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

    fn show(&mut self) {
        let stats = &self.shared.stats;
        let mut in_flight = 0;
        for link in self.links.iter().flatten() {
            in_flight += link.places.taken();
            set(&link.figures.in_flight, link.places.taken() as u64);
            set(&link.figures.overdue, link.places.left() as u64);
        }
        set(&stats.behind, (!self.backlog.is_empty()).into());
        set(&stats.ready, self.table.ready_len() as u64);
        // What is taken in is traffic even while no consumer is there to acknowledge anything.
        let taken_in = stats.taken_in.load(Ordering::Relaxed);
        let new = taken_in - std::mem::replace(&mut self.taken_in_said, taken_in);
        if let Some([new, acked]) = self.rate.count([new, std::mem::take(&mut self.acked_unsaid)]) {
            log::info!(
                "event=rate taken_in_per_s={new} processed_per_s={acked} in_flight={in_flight} ready={}",
                self.table.ready_len()
            );
        }
        set(&stats.full, (self.table.len() >= MAX_TRACKED).into());
        // Messages that wait for their time are in hand, too: with enough of them nothing else moves.
        if self.table.len() >= MAX_TRACKED && self.said_full.is_none_or(|said| said.elapsed() >= SAY_FULL_EVERY) {
            self.said_full = Some(Instant::now());
            let delayed = self.table.len().saturating_sub(in_flight + self.table.ready_len());
            log::warn!("event=tracking-limit messages={} in_flight={in_flight} delayed={delayed}", self.table.len());
        }
    }
}
