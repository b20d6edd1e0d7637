//! The courier: sends messages to consumers and reads their answers.
//!
//! One thread, one loop, and the wait is its only blocking call. It reads the links, hears the redistributor and
//! ingest, delivers waiting messages in runs to the consumer with the lowest share of its prefetch in use, and tends
//! the links. A consumer that does not read fills its own share and nothing else. The courier never talks to Redis:
//! what needs Redis is a task for the redistributor. Ingest never waits for the courier: what does not fit into memory
//! is left to the sorted set.
//!
//! Its parts: `LinkSet` has the links and `Dialing` requests them, `Table` and `Backlog` have the messages, `TaskQueue`
//! the tasks for the redistributor, `RollCall` the start of a term, `CourierFigures` the figures and log lines. `links`
//! takes links over and drops them, `traffic` handles what happens on a link, `outcomes` what happens to a message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

mod choice;
mod dialing;
mod figures;
mod link_set;
mod links;
mod outcomes;
mod roll_call;
mod task_queue;
#[cfg(test)]
mod tests;
mod traffic;

use self::choice::run_length;
use self::dialing::Dialing;
use self::figures::CourierFigures;
use self::link_set::LinkSet;
use self::roll_call::RollCall;
use self::task_queue::TaskQueue;
use super::backlog::Backlog;
use super::dialer::DialRequests;
use super::link::Link;
use super::pulses::ITERATION_WITHIN;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::add;
use super::table::{Line, MAX_TRACKED, Next, Table};
use super::tasks::{News, Task};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};
use crate::lane::kill_switch::KillSwitch;
use crate::ledger::Pending;

/// The longest wait: how soon timers and the kill switch are checked.
const PATIENCE: Duration = Duration::from_millis(50);
/// Batches taken from ingest in one iteration of the loop.
const ARRIVALS_PER_ROUND: usize = 8;
/// How often it is checked that a waiting message is still in Redis.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// More of the backlog is read when fewer messages than this wait.
const READY_LOW: usize = 4_000;

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
    /// The longest wait.
    patience: Duration,
    /// The last id that earlier leaders delivered.
    inherited: MessageId,
    arrivals: Receiver<Vec<Pending>>,
    news: Receiver<News>,
    sockets: Sockets,
    dialing: Dialing,
    links: LinkSet,
    /// When the links were last tended.
    tended: Instant,
    roll_call: RollCall,
    table: Table,
    backlog: Backlog,
    /// Until the first check: a message that earlier leaders stored and delivered to no consumer.
    witness: Option<MessageId>,
    /// When it was last checked that a waiting message is still in Redis.
    checked: Instant,
    tasks: TaskQueue,
    figures: CourierFigures,
}

impl Courier {
    /// What earlier leaders left: the last id that they delivered, and a message that no consumer was given.
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        (backlog_end, witness): (MessageId, Option<MessageId>),
        kill: KillSwitch,
        sockets: Sockets,
        channels: CourierChannels,
    ) -> Courier {
        let addresses = shared.settings.consumers.len();
        let mut tasks = TaskQueue::new(channels.tasks);
        // Before the first page is read.
        witness.into_iter().for_each(|witness| tasks.push(Task::Look(witness)));
        let now = Instant::now();
        Courier {
            shared: shared.clone(),
            epoch,
            dialing: Dialing::new(epoch, kill.clone(), channels.dial, sockets.waker()),
            kill,
            patience: PATIENCE.min(shared.settings.link_timeout / 10),
            inherited: backlog_end,
            arrivals: channels.arrivals,
            news: channels.news,
            sockets,
            links: LinkSet::new(addresses),
            tended: now,
            roll_call: RollCall::new(addresses),
            table: Table::new(backlog_end),
            backlog: Backlog::new(backlog_end),
            witness,
            checked: now,
            tasks,
            figures: CourierFigures::new(&shared.stats),
        }
    }

    /// The main loop of the worker.
    pub(super) fn run(mut self) -> Result<()> {
        (0..self.links.addresses()).for_each(|index| self.dialing.request(index, None));
        self.list_members();
        while !self.kill.is_set() {
            self.shared.pulses.courier.beat(ITERATION_WITHIN);
            let patience = if self.links.has_unread() { Duration::ZERO } else { self.patience };
            let ready = self.sockets.wait(patience)?;
            self.hear_dialers()?;
            self.read_links(&ready);
            self.hear_redistributor();
            self.hear_ingest();
            self.roll_call.check(self.links.iter().count());
            self.read_backlog();
            self.deliver();
            self.flush_links();
            self.tend_links();
            self.check_waiting();
            self.tasks.pass_on();
            self.figures.update(&self.shared.stats, &self.links, &self.table, !self.backlog.is_empty());
        }
        *self.shared.witness.lock() = self.waiting().map(|witness| (self.epoch, witness));
        self.links.iter().for_each(|link| self.sockets.remove(link.stream()));
        CourierFigures::end(&self.shared.stats);
        Ok(())
    }

    fn hear_ingest(&mut self) {
        for _ in 0..ARRIVALS_PER_ROUND {
            let Ok(batch) = self.arrivals.try_recv() else { return };
            for message in batch {
                // While there is a backlog that can be read, new messages queue behind it.
                let behind = self.roll_call.is_complete() && !self.backlog.is_empty();
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

    fn read_backlog(&mut self) {
        if self.roll_call.is_complete() && self.has_room() && self.table.ready_len() < READY_LOW {
            let room = self.shared.settings.ready_bytes - self.table.ready_bytes();
            if let Some(request) = self.backlog.request(room) {
                self.tasks.push(Task::Page(request));
            }
        }
    }

    /// Redis may have evicted the pending messages, or a client deleted them: then waiting messages would be delivered
    /// in vain. A message that this leader stored and delivered to no consumer can't have been removed by any program
    /// that may.
    fn check_waiting(&mut self) {
        if self.checked.elapsed() < CHECK_EVERY {
            return;
        }
        self.checked = Instant::now();
        self.witness = None;
        if let Some(witness) = self.waiting() {
            self.tasks.push(Task::Look(witness));
        }
    }

    /// A message that this leader stored and delivered to no consumer.
    fn waiting(&self) -> Option<MessageId> {
        self.table.first_new().or(self.backlog.witness())
    }

    pub(super) fn missing(&mut self, id: MessageId) {
        // Meanwhile it may have been delivered to a consumer, which recorded its result. What earlier leaders left is
        // delivered only after this answer has come: it was the first question.
        if self.table.is_new(id) || self.backlog.witness() == Some(id) || self.witness == Some(id) {
            self.tasks.push(Task::Vanished(id));
        }
    }

    fn deliver(&mut self) {
        self.free_stuck_places();
        // The suspects are older. They never hold up the others.
        Line::BOTH.into_iter().for_each(|line| self.deliver_line(line));
    }

    /// Where no consumer has a free place and none reports progress, overdue messages would keep their places for ever.
    /// So their places are freed and the messages are delivered again: to be done at last, or to end as dead letters.
    fn free_stuck_places(&mut self) {
        let active = |link: &&mut Link| !link.draining;
        if self.table.ready_len() > 0 && self.links.iter_mut().filter(active).all(|link| link.is_stuck()) {
            self.links.iter_mut().filter(active).for_each(|link| link.places.free_overdue());
        }
    }

    fn deliver_line(&mut self, line: Line) {
        let now = Instant::now();
        let share = self.table.line_len(line).div_ceil(self.links.iter().count().max(1));
        let (mut sent, mut sent_again) = (0, 0);
        while let Some(first) = self.table.first_ready(line) {
            let Some(index) = self.links.choose(line, first) else { break };
            let run = self.links.get(index).map_or(0, |link| run_length(line, link.places.room(), share));
            for place in 0..run {
                let Some(link) = self.links.get_mut(index) else { break };
                // The first has just been chosen for this link.
                let fits = |message: &Pending| place == 0 || link.is_natural_for(message);
                let Some(Next { message, again, loss }) = self.table.send_first(line, index, fits) else { break };
                let follows_a_loss = loss.is_some();
                if let Some(loss) = loss.filter(|_| u32::from(message.delivery) > self.shared.settings.max_deliveries) {
                    self.dead_letter(&message, loss);
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
}
