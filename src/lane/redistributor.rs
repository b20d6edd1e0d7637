//! The redistributor: redelivery, dead letters, and results of consumers without Redis.
//!
//! It reads the backlog in pages for the courier. It settles messages that came back without a result (see `settling`),
//! keeps them until their next delivery is due, checks that they are still pending, and returns them to the courier as
//! fast as memory allows. Redeliveries have a memory budget of their own; messages beyond it wait in Redis. It also
//! records the results of consumers without Redis, and writes the list of consumers. Each of its writes is fenced, and
//! may be repeated after a lost reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

mod answering;
mod settling;
mod waiting;

use self::waiting::Waiting;
use super::dead_letters::DeadLetterLog;
use super::elected::PENDING_LOST;
use super::group_settings::KnownSettings;
use super::pulses::{ITERATION_WITHIN, TermWorker};
use super::refused::Refused;
use super::retry::{Carried, Killed, Retry};
use super::shared::Shared;
use super::sockets::Waker;
use super::stats::{add, set};
use super::table::{Again, Line, Loss};
use super::tasks::{Claims, RedistributorReply, Task};
use crate::base::id::{Epoch, IdMap, MessageId};
use crate::base::text::Quoted;
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::ledger::{
    Fetched, Gap, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, PageRequest, Pending, Returned, Splitter,
};

/// The longest wait for room for a reply, so also how late the kill switch may be noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest wait for a task, so also how late figures are brought up to date and what Redis refused is tried again.
/// Longer than other waits, because a process may lead many idle lanes, and each wait costs CPU time. The end of a term
/// ends it early: the courier drops the other end of the channel.
const TASK_PATIENCE: Duration = Duration::from_millis(250);
/// Messages read again in one step.
const FETCH_MESSAGES: usize = 256;
/// Extra memory for redeliveries: `--ready-bytes` / 4, plus the rest of one message.
const AGAIN_PART: usize = 4;

/// See the module's text.
pub(super) struct Redistributor {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    ledger: Ledger,
    retry: Retry,
    tasks: Receiver<Task>,
    replies: Sender<RedistributorReply>,
    waker: Waker,
    /// Suspects wait much longer than other messages, so the two have separate budgets.
    suspects: Waiting,
    common: Waiting,
    /// Messages that Redis refuses as dead letters. They stay pending and are retried from here.
    refused_letters: Refused<Returned>,
    /// Lists of consumers that Redis refused.
    unlisted: Refused<Vec<String>>,
    /// Dead letters not logged yet.
    dead_letters: DeadLetterLog,
}

impl Redistributor {
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        kill: KillSwitch,
        ledger: Ledger,
        tasks: Receiver<Task>,
        replies: Sender<RedistributorReply>,
        waker: Waker,
    ) -> Redistributor {
        let retry = Retry::new(shared, kill.clone(), TermWorker::Redistributor);
        let waiting = || Waiting::new(shared.settings.ready_bytes / AGAIN_PART);
        Redistributor {
            shared: shared.clone(),
            epoch,
            kill,
            ledger,
            retry,
            tasks,
            replies,
            waker,
            suspects: waiting(),
            common: waiting(),
            refused_letters: Refused::default(),
            unlisted: Refused::default(),
            dead_letters: DeadLetterLog::default(),
        }
    }

    /// Works until the term ends.
    pub(super) fn run(mut self) -> Result<(), Killed> {
        let ended = self.work();
        let rest = self.dead_letters.rest();
        self.log_dead_letters(rest);
        set(&self.shared.stats.delayed, 0);
        set(&self.shared.stats.next_retry_ms, 0);
        ended
    }

    /// The main loop of the worker.
    fn work(&mut self) -> Result<(), Killed> {
        while !self.kill.is_set() {
            self.shared.pulses.redistributor.beat(ITERATION_WITHIN);
            let next = self.suspects.next().into_iter().chain(self.common.next()).min();
            let next = next.map_or(TASK_PATIENCE, |due| due.saturating_duration_since(Instant::now()));
            match self.tasks.recv_timeout(next.min(TASK_PATIENCE)) {
                Ok(task) => self.carry_out(task)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Killed),
            }
            Line::BOTH.into_iter().try_for_each(|line| self.send_due(line))?;
            self.retry_refused_letters()?;
            self.retry_refused_list()?;
            self.show_delayed();
            let due = self.dead_letters.due(Instant::now());
            self.log_dead_letters(due);
        }
        Err(Killed)
    }

    fn show_delayed(&self) {
        let (messages, left) = waiting::delays([&self.suspects, &self.common], Instant::now());
        set(&self.shared.stats.delayed, messages as u64);
        set(&self.shared.stats.next_retry_ms, left.as_millis() as u64);
    }

    fn carry_out(&mut self, task: Task) -> Result<(), Killed> {
        let (ledger, epoch) = (&mut self.ledger, self.epoch);
        match task {
            Task::Page(request) => self.read_page(request),
            Task::Returned(returned) => self.settle_all(&returned),
            Task::Replayed(replayed) => self.tell(RedistributorReply::Replayed(replayed)),
            Task::Settings => self.read_settings(),
            Task::Again(waits) => {
                let now = Instant::now();
                self.common.delayed.extend(waits.into_iter().map(|(id, wait)| ((now + wait, id), None)));
                Ok(())
            }
            Task::Count(sent) => sent
                .chunks(MAX_BATCH_MESSAGES)
                .try_for_each(|sent| self.retry.until_done(|| ledger.count_deliveries(epoch, sent))),
            Task::Commit(task) => self.commit(task),
            Task::Verify(claims) => self.verify(claims),
            Task::CheckPending(id) => match self.retry.until_done(|| ledger.is_pending(id))? {
                true => Ok(()),
                false => self.tell(RedistributorReply::Missing(id)),
            },
            Task::Vanished(id) => self.record_loss(id),
            Task::Members(members) => self.list(members),
            Task::Answer(answers) => self.answer(answers),
        }
    }

    /// Reads the group's settings. If Redis refuses that, those known hold, and everything else goes on.
    fn read_settings(&mut self) -> Result<(), Killed> {
        let ledger = &mut self.ledger;
        let reading = self.retry.until_done(|| match ledger.settings() {
            Err(error) if error.refusal().is_some() => {
                log::warn!("event=settings-unread error={} consequence=\"those known hold\"", Quoted(&error));
                Ok(None)
            }
            read => read.map(Some),
        })?;
        reading.map_or(Ok(()), |reading| self.tell(RedistributorReply::Settings(KnownSettings::now(reading))))
    }

    /// Checks which of the messages that a consumer listed in HELD are pending.
    fn verify(&mut self, claims: Claims) -> Result<(), Killed> {
        let Claims { link, serial, ids } = claims;
        let mut missing = Vec::new();
        for ids in ids.chunks(MAX_BATCH_MESSAGES) {
            let ledger = &mut self.ledger;
            missing.extend(self.retry.until_done(|| ledger.not_pending(ids))?);
        }
        self.tell(RedistributorReply::NotPending(Claims { link, serial, ids: missing }))
    }

    /// Writes the list of consumers. It only informs people and tools, so if Redis refuses it, work continues.
    fn list(&mut self, members: Vec<String>) -> Result<(), Killed> {
        let (ledger, epoch) = (&mut self.ledger, self.epoch);
        let mut refused = None;
        self.retry.until_done(|| match ledger.set_consumers(epoch, &members) {
            Err(error) if error.refusal().is_some() => {
                refused = Some(error);
                Ok(())
            }
            listed => listed,
        })?;
        self.unlisted.keep(refused.is_some().then(|| members.clone()));
        self.unlisted.note(refused.as_ref(), || format!("event=consumers-not-listed consumers={}", members.len()));
        Ok(())
    }

    /// Retries a refused list when that is due.
    fn retry_refused_list(&mut self) -> Result<(), Killed> {
        self.unlisted.due().pop().map_or(Ok(()), |members| self.list(members))
    }

    /// Reads more of the backlog. If a reply is too large, less is requested. A message that is too large to be read
    /// alone goes to the dead letters, which Redis does without sending it.
    fn read_page(&mut self, mut request: PageRequest) -> Result<(), Killed> {
        let epoch = self.epoch;
        let mut splitter = Splitter::default();
        let reason = loop {
            let read = |ledger: &mut Ledger| ledger.page(epoch, request);
            match self.retry.carry(&mut self.ledger, &mut splitter, request.messages, read)? {
                Carried::Done(page) => return self.tell(RedistributorReply::Page(page)),
                Carried::Halve => {
                    request = PageRequest { messages: request.messages / 2, bytes: request.bytes / 2, ..request };
                }
                Carried::TooLarge(reason) => break reason,
            }
        };
        let ledger = &mut self.ledger;
        let first = self.retry.until_done(|| ledger.page_without_payloads(epoch, request.after, request.up_to))?;
        if let Some(id) = first.read_up_to {
            self.dead_letter_unreadable(id, &reason)?;
        }
        self.tell(RedistributorReply::Page(first))
    }

    /// Records a gap: pending messages have vanished. It is unknown which ones besides this one, or what else was lost.
    /// The next term begins with what Redis has.
    fn record_loss(&mut self, id: MessageId) -> Result<(), Killed> {
        let (begin, end) = (format!("id {id}"), format!("epoch {}", self.epoch));
        let pending = &self.ledger.keys().pending;
        log::warn!(
            "event=gap reason={PENDING_LOST} begin={} count=unknown problem=\"a message that no consumer received \
             has gone from {pending}: was it evicted, deleted or renamed? (maxmemory-policy must be noeviction)\"",
            Quoted(&begin)
        );
        add(&self.shared.stats.gaps, 1);
        let gap =
            Gap { reason: PENDING_LOST, dispatcher: self.shared.id.clone(), begin, end, count: None, servers: None };
        let (ledger, epoch) = (&mut self.ledger, self.epoch);
        self.retry.until_done(|| ledger.record_gap(epoch, &gap))?;
        self.kill.set(Reason::PendingLost);
        Err(Killed)
    }

    fn waiting(&mut self, line: Line) -> &mut Waiting {
        match line {
            Line::Suspects => &mut self.suspects,
            Line::Common => &mut self.common,
        }
    }

    /// Reads the messages that are due for redelivery and still pending, as far as there is room, and returns them to
    /// the courier.
    fn send_due(&mut self, line: Line) -> Result<(), Killed> {
        let waiting = self.waiting(line);
        if !waiting.has_room() {
            return Ok(());
        }
        let budget = waiting.budget.clone();
        let now = Instant::now();
        let due = waiting.delayed.keys().take_while(|(due, _)| *due <= now).take(FETCH_MESSAGES);
        let mut due: Vec<(Instant, MessageId)> = due.copied().collect();
        due.sort_unstable_by_key(|(_, id)| *id);
        let mut rest = due.as_slice();
        let (mut most, mut splitter) = (FETCH_MESSAGES, Splitter::default());
        while !rest.is_empty() && budget.free_bytes() > 0 {
            let ids: Vec<MessageId> = rest.iter().take(most).map(|(_, id)| *id).collect();
            let bytes = budget.free_bytes().min(MAX_BATCH_BYTES);
            let epoch = self.epoch;
            let fetch = |ledger: &mut Ledger| ledger.fetch(epoch, &ids, bytes);
            let Fetched { looked_at, messages, delayed: early } =
                match self.retry.carry(&mut self.ledger, &mut splitter, ids.len(), fetch)? {
                    Carried::Done(fetched) => fetched,
                    Carried::Halve => {
                        most = ids.len() / 2;
                        continue;
                    }
                    Carried::TooLarge(reason) => {
                        self.waiting(line).delayed.remove(&rest[0]);
                        self.dead_letter_unreadable(ids[0], &reason)?;
                        rest = &rest[1..];
                        continue;
                    }
                };
            let (seen, unseen) = rest.split_at(looked_at.clamp(1, rest.len()));
            let delayed = &mut self.waiting(line).delayed;
            let seen = seen.iter().filter_map(|entry| Some((entry.1, delayed.remove(entry)?)));
            let mut seen: IdMap<Option<Box<Loss>>> = seen.collect();
            // They came back twice meanwhile, as when a consumer listed them in HELD, and then failed.
            let now = Instant::now();
            let again =
                early.into_iter().filter_map(|(Pending { id, .. }, wait)| Some(((now + wait, id), seen.remove(&id)?)));
            delayed.extend(again);
            let back = messages.into_iter().map(|message| {
                let loss = seen.remove(&message.id).flatten();
                Again::new(message, loss.map(|loss| *loss), &budget)
            });
            let back = back.collect();
            self.tell(RedistributorReply::Done(seen.into_keys().collect()))?;
            self.tell(RedistributorReply::Back(back))?;
            rest = unseen;
        }
        Ok(())
    }

    fn tell(&mut self, mut reply: RedistributorReply) -> Result<(), Killed> {
        loop {
            self.shared.pulses.redistributor.beat(ITERATION_WITHIN);
            match self.replies.send_timeout(reply, PATIENCE) {
                Ok(()) => {
                    self.waker.wake();
                    return Ok(());
                }
                Err(SendTimeoutError::Timeout(unsent)) if !self.kill.is_set() => reply = unsent,
                Err(_) => return Err(Killed),
            }
        }
    }
}
