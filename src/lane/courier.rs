//! The courier: sends messages to consumers and reads their answers.
//!
//! One thread runs one loop, whose only blocking call is the wait. The courier reads the links, receives from the
//! redistributor and from ingest, delivers waiting messages in runs to the consumer that uses the lowest share of its
//! prefetch, and maintains the links. A consumer that does not read fills its own share and nothing else. The courier
//! never talks to Redis: it gives such work to the redistributor as tasks. Messages that don't fit into memory stay in
//! the sorted set only, so ingest waits for the courier only while the channel between them is full.
//!
//! Its parts: `LinkSet` has the links and `Dialing` requests them. `Table` and `Backlog` have the messages, and
//! `TaskQueue` has the tasks for the redistributor. `Gate` says how many messages may go out, and `limits` asks it.
//! `ConsumerReports` waits at the start of a term until the consumers have reported. `CourierFigures` has figures and
//! log lines. `membership` follows the roster, `links` takes links over and drops them, `traffic` reads and writes
//! them, `outcomes` handles what becomes of messages, and `order` is used if they are kept in order by key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

mod choice;
mod consumer_reports;
mod dialing;
mod figures;
mod gate;
mod limits;
mod link_set;
mod links;
mod locating;
mod membership;
mod order;
mod outcomes;
mod task_queue;
#[cfg(test)]
mod tests;
mod traffic;

use self::choice::run_length;
use self::consumer_reports::ConsumerReports;
use self::dialing::Dialing;
use self::figures::CourierFigures;
use self::gate::Gate;
use self::link_set::LinkSet;
use self::task_queue::TaskQueue;
use super::backlog::Backlog;
use super::dialers::DialRequests;
use super::elected::Replicated;
use super::link::Link;
use super::pulses::ITERATION_WITHIN;
use super::roster::Follower;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::add;
use super::table::key_order::{KeyOrder, Limits};
use super::table::{Line, MAX_TRACKED, Next, Table, Whereabouts};
use super::tasks::{RedistributorReply, Task};
use crate::base::bundle::BUNDLE_MESSAGES;
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};
use crate::lane::kill_switch::KillSwitch;
use crate::ledger::Pending;

/// The longest wait, so also how late a timer or the kill switch may be noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// Batches taken from ingest in one iteration of the loop.
const ARRIVALS_PER_ROUND: usize = 8;
/// How often the courier checks that a waiting message is still in Redis.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// More of the backlog is read when fewer messages than this wait.
const READY_LOW: usize = 4_000;

/// The channels of the courier.
pub(super) struct CourierChannels {
    pub(super) arrivals: Receiver<Vec<Pending>>,
    pub(super) replies: Receiver<RedistributorReply>,
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
    /// The last id that an earlier leader assigned.
    inherited: MessageId,
    arrivals: Receiver<Vec<Pending>>,
    replies: Receiver<RedistributorReply>,
    sockets: Sockets,
    dialing: Dialing,
    roster: Follower,
    links: LinkSet,
    /// When timeouts of the links were last checked.
    tended: Instant,
    consumer_reports: ConsumerReports,
    table: Table,
    backlog: Backlog,
    /// Whether the backlog may be delivered.
    replicated: Replicated,
    /// Until the first check: a message that earlier leaders stored and that no consumer received.
    undelivered: Option<MessageId>,
    /// With an order by key: whether the next page is one of keys that are read again, if there is a choice.
    read_again_next: bool,
    /// When the courier last checked that a waiting message is still in Redis.
    checked: Instant,
    tasks: TaskQueue,
    /// The last message that was taken out of its bundle.
    taken_out: Option<MessageId>,
    /// The pause and the limits of the group.
    gate: Gate,
    figures: CourierFigures,
}

impl Courier {
    /// The pair is what earlier leaders left: the last id that they assigned, and a message that no consumer received.
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        (backlog_end, undelivered): (MessageId, Option<MessageId>),
        kill: KillSwitch,
        sockets: Sockets,
        channels: CourierChannels,
    ) -> Courier {
        let mut tasks = TaskQueue::new(channels.tasks);
        // Before the first page is read.
        undelivered.into_iter().for_each(|undelivered| tasks.push(Task::CheckPending(undelivered)));
        let now = Instant::now();
        let order = |key| KeyOrder::new(key, Limits::of(shared.settings.ready_bytes));
        let order = shared.settings.order_key.clone().map(order);
        Courier {
            shared: shared.clone(),
            epoch,
            dialing: Dialing::new(epoch, kill.clone(), channels.dial, sockets.waker()),
            kill,
            patience: PATIENCE.min(shared.settings.link_timeout / 10),
            inherited: backlog_end,
            arrivals: channels.arrivals,
            replies: channels.replies,
            sockets,
            roster: shared.roster.follow(),
            links: LinkSet::new(),
            tended: now,
            consumer_reports: ConsumerReports::new(&shared.settings),
            table: Table::new(backlog_end).in_order(order),
            backlog: Backlog::new(backlog_end),
            replicated: Replicated::default(),
            undelivered,
            read_again_next: true,
            checked: now,
            tasks,
            taken_out: None,
            gate: Gate::new(),
            figures: CourierFigures::new(&shared.stats),
        }
    }

    /// Nothing of the backlog is delivered before this.
    pub(super) fn deliver_backlog_once(&mut self, replicated: Replicated) {
        self.replicated = replicated;
    }

    /// The main loop of the worker.
    pub(super) fn run(mut self) -> Result<()> {
        self.list_members();
        // Dials the consumers. The loop waits first, for a while if nothing is published.
        self.follow_roster();
        while !self.kill.is_set() {
            self.shared.pulses.courier.beat(ITERATION_WITHIN);
            let patience = self.longest_wait();
            let ready = self.sockets.wait(patience)?;
            self.follow_roster();
            self.hear_dialers()?;
            self.read_links(ready);
            self.hear_replays();
            self.hear_settings();
            self.hear_redistributor();
            self.hear_ingest();
            self.consumer_reports.check(self.links.iter().count(), &self.roster);
            self.read_backlog();
            self.write_confirmations();
            self.deliver();
            self.flush_links();
            self.tend_links();
            self.release_leaving();
            self.check_waiting();
            self.tasks.pass_on();
            self.hear_questions();
            self.figures.update(&self.shared.stats, &self.links, &mut self.table, !self.backlog.is_empty());
        }
        *self.shared.undelivered.lock() = self.waiting().map(|undelivered| (self.epoch, undelivered));
        self.links.iter().for_each(|link| self.sockets.remove(link.socket.stream()));
        CourierFigures::end(&self.shared.stats);
        self.end_limits();
        Ok(())
    }

    fn hear_ingest(&mut self) {
        for _ in 0..ARRIVALS_PER_ROUND {
            let Ok(batch) = self.arrivals.try_recv() else { return };
            for message in batch {
                // While there is a backlog that can be read, new messages queue behind it.
                let waits = self.consumer_reports.is_complete() || self.table.is_ordered();
                let behind = waits && !self.backlog.is_empty();
                if behind || !self.has_room() {
                    self.backlog.extend(message.id);
                    add(&self.shared.stats.spilled, 1);
                } else {
                    self.admit_new(message);
                }
            }
        }
        // There may be more.
        self.sockets.waker().wake();
    }

    /// Messages that were replayed come back by way of the redistributor, behind its replies that say that they ended.
    fn hear_replays(&mut self) {
        if let Some(replayed) = self.shared.replays.take(self.shared.highest_id().max(self.inherited)) {
            self.tasks.push(Task::Replayed(replayed));
        }
    }

    fn has_room(&self) -> bool {
        self.table.len() < MAX_TRACKED && self.table.ready_bytes() < self.shared.settings.ready_bytes
    }

    fn read_backlog(&mut self) {
        if !self.replicated.is_known() {
            return;
        }
        if self.table.is_ordered() {
            if self.consumer_reports.is_complete() && self.has_room() {
                self.read_in_order();
            }
        } else if self.consumer_reports.is_complete() && self.has_room() && self.table.ready_len() < READY_LOW {
            let room = self.shared.settings.ready_bytes - self.table.ready_bytes();
            if let Some(request) = self.backlog.request(room) {
                self.tasks.push(Task::Page(request));
            }
        }
    }

    /// Checks that Redis still has the waiting messages. If Redis evicted them or a client deleted them, delivering
    /// them is useless, because no result can be recorded. The sample is a message that no consumer received, so no
    /// consumer can have removed it.
    fn check_waiting(&mut self) {
        if self.checked.elapsed() < CHECK_EVERY {
            return;
        }
        self.checked = Instant::now();
        self.undelivered = None;
        if let Some(undelivered) = self.waiting() {
            self.tasks.push(Task::CheckPending(undelivered));
        }
    }

    /// A message that this leader stored and no consumer received.
    fn waiting(&self) -> Option<MessageId> {
        self.table.first_new().or(self.backlog.undelivered())
    }

    pub(super) fn missing(&mut self, id: MessageId) {
        // If it was delivered meanwhile, its consumer may have recorded the result. Earlier leaders' messages can't be
        // out yet: their check is queued before the first page.
        if self.table.is_new(id) || self.backlog.undelivered() == Some(id) || self.undelivered == Some(id) {
            self.tasks.push(Task::Vanished(id));
        }
    }

    fn deliver(&mut self) {
        let mut room = self.room_at_gate(Instant::now());
        if room == 0 {
            // Places that are freed now would be of no use.
            return;
        }
        self.free_stuck_places();
        // Suspects go first, because they are older. They never hold up the others.
        for line in Line::BOTH {
            room -= self.deliver_line(line, room);
        }
    }

    /// If no consumer has a free place and none reports progress, overdue messages would keep their places for ever. So
    /// this frees the places. The messages are delivered again, until they are done or become dead letters.
    fn free_stuck_places(&mut self) {
        // A freed place at a paused consumer is of no use, and its answers would be lost.
        let active = |link: &&mut Link| !link.draining && !link.leaving && link.places.prefetch() > 0;
        if self.table.ready_len() > 0 && self.links.iter_mut().filter(active).all(|link| link.is_stuck()) {
            self.links.iter_mut().filter(active).for_each(|link| link.places.free_overdue());
        }
    }

    /// Whether more messages may be taken out of their bundles: those before have come back.
    fn may_take_out(&self) -> bool {
        self.taken_out.is_none_or(|id| self.table.whereabouts(id) != Some(Whereabouts::Away))
    }

    /// Delivers at most `room` messages. Returns how many it delivered.
    fn deliver_line(&mut self, line: Line, room: usize) -> usize {
        let now = Instant::now();
        let takers = self.links.iter().filter(|link| !link.leaving).count();
        let share = self.table.line_len(line).div_ceil(takers.max(1));
        let (mut sent, mut sent_again) = (0, 0);
        while sent < room
            && let takes_out = self.may_take_out()
            && let Some(first) = self.table.first_ready(line)
        {
            let Some(index) = self.links.choose(line, first, takes_out) else { break };
            let run = self
                .links
                .get(index)
                .map_or(0, |link| run_length(line, link.places.room(), share, link.answers_soon()));
            // A run does not end within a bundle, if that fits.
            for place in 0..(run + BUNDLE_MESSAGES - 1).min(room - sent) {
                let Some(link) = self.links.get_mut(index) else { break };
                // The link was chosen for the first message.
                let fits = |message: &Pending| {
                    let continues = message.body.position().is_some_and(|position| !position.is_first());
                    place == 0 || (place < run || continues) && link.is_natural_for(message)
                };
                let Some(Next { message, again, loss }) = self.table.send_first(line, index, fits) else { break };
                let follows_a_loss = loss.is_some();
                if let Some(loss) = loss.filter(|_| u32::from(message.delivery) > self.shared.settings.max_deliveries) {
                    self.dead_letter(&message, loss);
                    continue;
                }
                // In order by key the others of its bundle would keep its result waiting.
                let comes_alone = self.table.is_ordered() && message.body.position().is_some();
                if comes_alone || link.needs_alone(&message) {
                    self.take_out_of_bundle(&message);
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
        self.gate.note_sent(sent);
        sent
    }
}
