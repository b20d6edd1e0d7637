//! The redistributor: what must go out again, and everything else the leader does in Redis after the intake.
//!
//! It reads the backlog in pages for the courier, settles messages that came back without a result (counts the
//! delivery, or buries the message), lets them wait for their time, checks that they are still pending and gives them
//! to the courier again, as fast as there is room: what goes out again has a budget of its own, and what exceeds it
//! waits in Redis. It also records the results of consumers that have no Redis, and keeps the list of consumers.
//! Everything it writes is fenced, and does no harm when it is repeated after a lost reply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use super::backlog::PageRequest;
use super::dead_letters::{DeadLetterLog, DeadLetters};
use super::elected::PENDING_LOST;
use super::places::ADOPTED;
use super::pulses::{ITERATION_WITHIN, TermWorker};
use super::refused::Refused;
use super::retry::{Carried, Killed, Retry};
use super::shared::Shared;
use super::sockets::Waker;
use super::stats::{add, set};
use super::table::{Again, Line, Loss};
use super::tasks::{Claims, CommitTask, News, Task};
use crate::base::backoff::exponential;
use crate::base::budget::Budget;
use crate::base::id::{Epoch, IdMap, MessageId};
use crate::base::log_sum::Sum;
use crate::base::text::Quoted;
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::ledger::{
    Commit, Gap, Hold, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Raise, Returned, Settled, Settlement, Splitter,
    Verdict, batches, parts,
};

/// The longest wait: how soon the kill switch is noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// After a lost link, the wait before the third delivery; each later one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// After a lost link, the longest wait.
const MOST_BACKOFF: Duration = Duration::from_secs(30);
/// Messages read again at once.
const FETCH_MESSAGES: usize = 256;
/// What has been read again and not been sent takes at most this part of `--ready-bytes`, beside it, and the rest of
/// one message.
const AGAIN_PART: usize = 4;

/// See the module's text.
pub(super) struct Redistributor {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    ledger: Ledger,
    retry: Retry,
    tasks: Receiver<Task>,
    news: Sender<News>,
    waker: Waker,
    /// Suspects wait for much longer than others: neither takes the room of the other.
    suspects: Waiting,
    common: Waiting,
    /// Messages that Redis refuses as dead letters: they stay pending, in our hands.
    unburied: Refused<Returned>,
    /// Lists of consumers that Redis refused.
    unlisted: Refused<Vec<String>>,
    /// Dead letters that are not logged yet.
    dead_letters: DeadLetterLog,
}

/// What waits for its time, or for room.
struct Waiting {
    /// Bounded by what the courier has in its hands. There may be very many, of which few were lost: hence the box.
    delayed: BTreeMap<(Instant, MessageId), Option<Box<Loss>>>,
    /// For the payloads of what goes out again.
    budget: Budget,
}

impl Waiting {
    fn new(bytes: usize) -> Waiting {
        Waiting { delayed: BTreeMap::new(), budget: Budget::new(bytes) }
    }

    /// Whether more may be read again. It is read by halves of the budget: else a full queue would cost one call for
    /// each message that leaves it.
    fn has_room(&self) -> bool {
        2 * self.budget.free_bytes() >= self.budget.limit_bytes()
    }

    /// When something is to be read; without room nothing is, whatever its time.
    fn next(&self) -> Option<Instant> {
        self.delayed.first_key_value().filter(|_| self.has_room()).map(|((due, _), _)| *due)
    }
}

impl Redistributor {
    pub(super) fn new(
        shared: &Arc<Shared>,
        epoch: Epoch,
        kill: KillSwitch,
        ledger: Ledger,
        tasks: Receiver<Task>,
        news: Sender<News>,
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
            news,
            waker,
            suspects: waiting(),
            common: waiting(),
            unburied: Refused::default(),
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
        ended
    }

    /// The main loop of the worker.
    fn work(&mut self) -> Result<(), Killed> {
        while !self.kill.is_set() {
            self.shared.pulses.redistributor.beat(ITERATION_WITHIN);
            let next = self.suspects.next().into_iter().chain(self.common.next()).min();
            let next = next.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
            match self.tasks.recv_timeout(next.min(PATIENCE)) {
                Ok(task) => self.carry_out(task)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Killed),
            }
            Line::BOTH.into_iter().try_for_each(|line| self.send_due(line))?;
            self.try_refused()?;
            set(&self.shared.stats.delayed, (self.suspects.delayed.len() + self.common.delayed.len()) as u64);
            let due = self.dead_letters.due(Instant::now());
            self.log_dead_letters(due);
        }
        Err(Killed)
    }

    fn log_dead_letters(&self, letters: Vec<DeadLetters>) {
        let dead = &self.ledger.keys().dead;
        for (reason, Sum { count: messages, example }) in letters {
            let reason = Quoted(reason);
            log::warn!("event=dead-letters messages={messages} stream={dead} reason={reason} example={example}");
        }
    }

    fn carry_out(&mut self, task: Task) -> Result<(), Killed> {
        let (ledger, epoch) = (&mut self.ledger, self.epoch);
        match task {
            Task::Page(request) => self.read_page(request),
            Task::Returned(returned) => parts(&returned, size).try_for_each(|returned| self.settle(returned)),
            Task::Count(sent) => sent
                .chunks(MAX_BATCH_MESSAGES)
                .try_for_each(|sent| self.retry.until_done(|| ledger.count_deliveries(epoch, sent))),
            Task::Commit(task) => self.commit(task),
            Task::Verify(claims) => self.verify(claims),
            Task::Look(id) => match self.retry.until_done(|| ledger.is_pending(id))? {
                true => Ok(()),
                false => self.tell(News::Missing(id)),
            },
            Task::Vanished(id) => self.record_loss(id),
            Task::Members(members) => self.list(members),
        }
    }

    /// Looks which of the messages that a consumer named are pending.
    fn verify(&mut self, claims: Claims) -> Result<(), Killed> {
        let Claims { link, serial, ids } = claims;
        let mut missing = Vec::new();
        for ids in ids.chunks(MAX_BATCH_MESSAGES) {
            let ledger = &mut self.ledger;
            missing.extend(self.retry.until_done(|| ledger.not_pending(ids))?);
        }
        self.tell(News::NotPending(Claims { link, serial, ids: missing }))
    }

    /// Writes the list of consumers. It is for onlookers: where Redis refuses it nothing waits for it.
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

    /// Reads the backlog on. Where a reply is too large to come through it is asked for less, and a message that can't
    /// be read even alone is buried: Redis copies it, nobody has to read it.
    fn read_page(&mut self, request: PageRequest) -> Result<(), Killed> {
        let PageRequest { after, up_to, mut messages, mut bytes } = request;
        let epoch = self.epoch;
        let mut splitter = Splitter::default();
        let reason = loop {
            let read = |ledger: &mut Ledger| ledger.page(epoch, after, up_to, messages, bytes);
            match self.retry.carry(&mut self.ledger, &mut splitter, messages, read)? {
                Carried::Done(page) => return self.tell(News::Page(page)),
                Carried::Halve => (messages, bytes) = (messages / 2, (bytes / 2).max(1)),
                Carried::TooLarge(reason) => break reason,
            }
        };
        let ledger = &mut self.ledger;
        let first = self.retry.until_done(|| ledger.page(epoch, after, up_to, 1, 0))?;
        if let Some(id) = first.read_up_to {
            self.bury_unreadable(id, &reason)?;
        }
        self.tell(News::Page(first))
    }

    /// The pending messages have vanished: which ones beside this is not known, nor what else has gone. The next term
    /// begins with what Redis has.
    fn record_loss(&mut self, id: MessageId) -> Result<(), Killed> {
        let (begin, end) = (format!("id {id}"), format!("epoch {}", self.epoch));
        let pending = &self.ledger.keys().pending;
        log::warn!(
            "event=gap reason={PENDING_LOST} begin={} count=unknown problem=\"a message that nobody was given has gone from \
             {pending}: was it evicted, deleted or renamed? (maxmemory-policy must be noeviction)\"",
            Quoted(&begin)
        );
        add(&self.shared.stats.gaps, 1);
        let gap = Gap { reason: PENDING_LOST, dispatcher: self.shared.id.clone(), begin, end, count: None };
        let (ledger, epoch) = (&mut self.ledger, self.epoch);
        self.retry.until_done(|| ledger.record_gap(epoch, &gap))?;
        self.kill.set(Reason::PendingLost);
        Err(Killed)
    }

    /// A message that can't be read from Redis.
    fn bury_unreadable(&mut self, id: MessageId, reason: &str) -> Result<(), Killed> {
        log::warn!("event=too-large id={id} moved_to={} reason={}", self.ledger.keys().dead, Quoted(reason));
        self.bury(id, format!("it can't be read from Redis: {reason}").into())
    }

    /// Tries again what Redis refused and nothing else has to wait for: of many letters no more than what shows that
    /// they are refused still.
    fn try_refused(&mut self) -> Result<(), Killed> {
        let returned: Vec<_> = self.unburied.due().into_iter().map(|letter| (letter, 0)).collect();
        let mut rest = returned.as_slice();
        while let Some(part) = parts(rest, size).next().filter(|_| self.unburied.len() == 0) {
            self.settle(part)?;
            rest = &rest[part.len()..];
        }
        if !rest.is_empty() {
            self.unburied.put_back(rest.iter().map(|(letter, _)| letter.clone()));
        }
        self.unlisted.due().pop().map_or(Ok(()), |members| self.list(members))
    }

    fn bury(&mut self, id: MessageId, reason: Arc<str>) -> Result<(), Killed> {
        let verdict = Verdict::Rejected;
        self.settle(&[(Returned { id, verdict, delivery: ADOPTED, hold: Hold::Held, consumer: "".into(), reason }, 0)])
    }

    /// Counts or buries messages that came back, and sets the time for what goes out again.
    fn settle(&mut self, returned: &[(Returned, u32)]) -> Result<(), Killed> {
        let mut batch: Vec<Returned> = returned.iter().map(|(returned, _)| returned.clone()).collect();
        self.find_numbers(&mut batch)?;
        let (ledger, epoch, most) = (&mut self.ledger, self.epoch, self.shared.settings.max_deliveries);
        let Settlement { settled, refused } = self.retry.until_done(|| ledger.settle(epoch, most, &batch))?;
        let now = Instant::now();
        let mut done = Vec::new();
        let mut buried = 0;
        let retry = self.shared.settings.retry;
        for ((returned, asked_ms), settled) in returned.iter().zip(settled) {
            match settled {
                Settled::Gone => done.push(returned.id),
                Settled::DeadLettered => {
                    buried += 1;
                    self.dead_letters.note(returned.id, &returned.reason, now);
                    done.push(returned.id);
                }
                Settled::Refused => self.unburied.keep(returned.clone()),
                Settled::Again(delivery) => {
                    let wait = match (asked_ms, returned.verdict) {
                        (0, Verdict::Failed) => retry.wait_with_jitter(delivery, fastrand::f64()),
                        (0, Verdict::Lost) => backoff(delivery),
                        (0, _) => Duration::ZERO,
                        (asked_ms, _) => Duration::from_millis(u64::from(*asked_ms)),
                    };
                    let loss = (returned.verdict == Verdict::Lost)
                        .then(|| Loss { consumer: returned.consumer.clone(), reason: returned.reason.clone() });
                    let line = Line::of(loss.as_ref(), delivery);
                    self.waiting(line).delayed.insert((now + wait, returned.id), loss.map(Box::new));
                }
            }
        }
        let letters = self.unburied.len();
        self.unburied.note(refused.as_ref(), || format!("event=dead-letters-refused messages={letters}"));
        add(&self.shared.stats.dead_lettered, buried);
        self.shared.stats.deaths.lock().note(buried, now);
        self.tell(News::Done(done))
    }

    /// Looks up the numbers of deliveries that were adopted. First, and by itself: a call that both looked a number up
    /// and raised it would count twice when it is repeated.
    fn find_numbers(&mut self, batch: &mut [Returned]) -> Result<(), Killed> {
        let unknown: Vec<&mut Returned> = batch.iter_mut().filter(|returned| returned.delivery == ADOPTED).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: Vec<MessageId> = unknown.iter().map(|returned| returned.id).collect();
        let ledger = &mut self.ledger;
        let numbers = self.retry.until_done(|| ledger.deliveries(&ids))?;
        unknown.into_iter().zip(numbers).for_each(|(returned, number)| returned.delivery = number);
        Ok(())
    }

    fn waiting(&mut self, line: Line) -> &mut Waiting {
        match line {
            Line::Suspects => &mut self.suspects,
            Line::Common => &mut self.common,
        }
    }

    /// Reads what is due again, if it is still pending and there is room, and gives it to the courier.
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
            let (looked_at, found) = match self.retry.carry(&mut self.ledger, &mut splitter, ids.len(), fetch)? {
                Carried::Done(fetched) => fetched,
                Carried::Halve => {
                    most = ids.len() / 2;
                    continue;
                }
                Carried::TooLarge(reason) => {
                    self.waiting(line).delayed.remove(&rest[0]);
                    self.bury_unreadable(ids[0], &reason)?;
                    rest = &rest[1..];
                    continue;
                }
            };
            let (seen, unseen) = rest.split_at(looked_at.clamp(1, rest.len()));
            let delayed = &mut self.waiting(line).delayed;
            let seen = seen.iter().filter_map(|entry| Some((entry.1, delayed.remove(entry)?)));
            let mut seen: IdMap<Option<Box<Loss>>> = seen.collect();
            let back = found.into_iter().map(|message| {
                let loss = seen.remove(&message.id).flatten();
                Again::new(message, loss.map(|loss| *loss), &budget)
            });
            let back = back.collect();
            self.tell(News::Done(seen.into_keys().collect()))?;
            self.tell(News::Back(back))?;
            rest = unseen;
        }
        Ok(())
    }

    fn commit(&mut self, task: CommitTask) -> Result<(), Killed> {
        let ids = task.commits.iter().map(|commit| commit.id).collect();
        let raise = if task.adopted { Raise::Recorded } else { Raise::Nothing };
        for batch in batches(&task.commits, |commit| commit) {
            self.commit_parts(batch, raise, &mut Splitter::default())?;
        }
        self.tell(News::Committed { link: task.link, serial: task.serial, ids, bytes: task.bytes })
    }

    fn commit_parts(&mut self, batch: &[Commit], raise: Raise, splitter: &mut Splitter) -> Result<(), Killed> {
        let epoch = self.epoch;
        let commit = |ledger: &mut Ledger| ledger.commit(Some(epoch), 0, raise, batch);
        match self.retry.carry(&mut self.ledger, splitter, batch.len(), commit)? {
            Carried::Done(_) => Ok(()),
            Carried::Halve => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.commit_parts(first, raise, splitter)?;
                self.commit_parts(second, raise, splitter)
            }
            Carried::TooLarge(reason) => {
                let bury =
                    |commit: &Commit| self.bury(commit.id, format!("its result can't be stored: {reason}").into());
                batch.iter().try_for_each(bury)
            }
        }
    }

    fn tell(&mut self, mut news: News) -> Result<(), Killed> {
        loop {
            self.shared.pulses.redistributor.beat(ITERATION_WITHIN);
            match self.news.send_timeout(news, PATIENCE) {
                Ok(()) => {
                    self.waker.wake();
                    return Ok(());
                }
                Err(SendTimeoutError::Timeout(unsent)) if !self.kill.is_set() => news = unsent,
                Err(_) => return Err(Killed),
            }
        }
    }
}

/// What a message takes in the step that settles it: bytes, and words.
fn size((returned, _): &(Returned, u32)) -> (usize, usize) {
    (returned.consumer.len() + returned.reason.len(), Returned::WORDS)
}

/// How long a message whose delivery was lost waits before the one with this number: the second goes out at once. That
/// a consumer is lost says little of its messages; those that kill consumers are few, and have a line of their own.
fn backoff(delivery: u16) -> Duration {
    match delivery.checked_sub(3) {
        None => Duration::ZERO,
        Some(doublings) => exponential(FIRST_BACKOFF, MOST_BACKOFF, u32::from(doublings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_delivery_goes_out_at_once_and_later_ones_wait() {
        assert_eq!(backoff(2), Duration::ZERO);
        assert!(backoff(3) >= Duration::from_millis(75) && backoff(3) <= Duration::from_millis(125));
        assert!(backoff(u16::MAX) <= Duration::from_secs(38));
    }
}
