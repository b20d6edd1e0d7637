//! Carries out a program's own steps on the keys of a trial.
//!
//! Only if all rights are there. What is found here is therefore no right: a server or a proxy that executes scripts
//! or transactions in its own way, limits the size of commands, or leads two connections to two servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::finding::{Effect, Finding, Remedy};
use super::needs::Program;
use super::patient::Patient;
use super::reply::told;
use super::trial::{Trial, left_of};
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId, wall_clock_us};
use crate::ledger::command::{Command, Words};
use crate::ledger::commit::Sole;
use crate::ledger::core::Ledger;
use crate::ledger::cursor::{Cursor, Marker, Position};
use crate::ledger::destination::Destination;
use crate::ledger::interests::Interests;
use crate::ledger::limits::{MAX_BATCH_WORDS, MAX_RESULT_FIELDS};
use crate::ledger::member::Body;
use crate::ledger::seal::Seal;
use crate::ledger::subscription::{Channels, Seen, Subscriber, Subscription};
use crate::ledger::types::{
    Acquire, Arrival, Commit, DeliveryNumber, Gap, Hold, IntakeAnswer, PageRequest, Raise, Returned, Settling, Verdict,
};

/// Makes a consumer's first message pending, in a script that records results.
const MADE_PENDING: &str = "redis.call('ZADD', KEYS[1], ARGV[4], '')";
/// How long a marker may take from one connection to the other.
const HEARING_TIME: Duration = Duration::from_secs(2);
/// How long replicas may take to confirm: longer than a leader waits in each step, which it repeats.
const REPLICAS_LIMIT_MS: &str = "2000";
/// How long a read of the subscription waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// Carries out the steps of a program, and says what went wrong.
pub(super) fn carry_out(patient: &Patient<'_>, program: Program, trial: &Trial) -> Vec<Finding> {
    let mut steps = Steps {
        ledger: Ledger::new(patient.server.clone(), Arc::new(trial.keys.clone()), patient.reply_time()),
        trial,
        found: Vec::new(),
    };
    let outcome = match program {
        Program::Dispatcher => steps.lead(patient, Destination::Pending),
        Program::StreamDispatcher => {
            let key = trial.keys.stream.clone().unwrap_or_default();
            steps.lead(patient, Destination::Stream { key, maxlen: 0 })
        }
        Program::Consumer => steps.record(),
        // Their commands were tried one by one.
        Program::Publisher | Program::Status | Program::Audit => Ok(()),
    };
    if let Err(error) = outcome {
        steps.found.push(Finding::stops(format!("a step of the program fails: {}", told(&error)), None));
    }
    steps.found
}

struct Steps<'a> {
    ledger: Ledger,
    trial: &'a Trial,
    found: Vec<Finding>,
}

impl Steps<'_> {
    /// A term of a leader.
    fn lead(&mut self, patient: &Patient<'_>, destination: Destination) -> Result<()> {
        let to_consumers = destination == Destination::Pending;
        let ledger = std::mem::replace(
            &mut self.ledger,
            Ledger::new(patient.server.clone(), Arc::new(self.trial.keys.clone()), patient.reply_time()),
        );
        self.ledger = ledger.storing_in(destination);
        let ttl = self.trial.time;
        self.ledger.connection().set_seal(Seal::Expire(ttl));
        let interests = Interests::in_channel(&format!("{}:messages", self.trial.channel));
        let mut subscription = self.subscribe(patient, &interests)?;
        let id = &self.trial.dispatcher;
        let attempt = self.ledger.acquire(id, ttl, Epoch::default(), true)?;
        let Acquire::Acquired { lease, .. } = &attempt.answer else {
            return Err(Error::Failed(format!("the lease of a trial was not given: {:?}", attempt.answer)));
        };
        let epoch = lease.epoch;
        self.ledger.renew(lease, ttl)?;
        let marker = Marker::of_leader(epoch, 0);
        self.ledger.publish_marker(epoch, &marker, &interests)?;
        self.hear(&mut subscription, &marker, attempt.counted)?;
        let first = MessageId::ZERO.next(epoch, wall_clock_us());
        let cursor = |count: u64| Cursor {
            position: Position { marker: marker.clone(), offset: count },
            last_id: MessageId(first.0 + count),
        };
        // The first is a script; for consumers the second is a transaction, if there are any.
        self.store(epoch, None, &cursor(0), &[])?;
        let batch: Vec<Arrival> = (1..=4).map(|count| arrival(MessageId(first.0 + count))).collect();
        self.store(epoch, Some(&cursor(0)), &cursor(4), &batch)?;
        self.store(epoch, Some(&cursor(4)), &cursor(4), &[])?;
        self.ledger.cursor()?;
        let gap = Gap {
            reason: "trial",
            dispatcher: id.clone(),
            begin: "none".to_owned(),
            end: epoch.to_string(),
            count: None,
            servers: None,
        };
        self.ledger.record_gap(epoch, &gap)?;
        let key = self.trial.keys.report_of(id.as_str());
        self.ledger.report(&key, "{}", ttl)?;
        self.ledger.end_reports(&key)?;
        if to_consumers {
            self.deliver(epoch, first)?;
        }
        self.widest()?;
        self.ledger.release(lease)?;
        self.wait(patient.wait_replicas)
    }

    /// Whether enough replicas confirm what was written.
    fn wait(&mut self, wanted: u32) -> Result<()> {
        if wanted == 0 {
            return Ok(());
        }
        let wait = Command::of(&["WAIT", &wanted.to_string(), REPLICAS_LIMIT_MS]);
        let confirmed = match self.ledger.connection().query("waiting for replicas", wait)? {
            Value::Int(confirmed) => u32::try_from(confirmed).unwrap_or(0),
            other => return Err(Error::Failed(format!("WAIT was answered with {other:?}"))),
        };
        if confirmed < wanted {
            let problem = format!("only {confirmed} of {wanted} replicas confirm what is stored (--wait-replicas)");
            let remedy = "start more replicas, or lower --wait-replicas; INFO replication shows which are connected";
            self.found.push(Finding::stops(problem, Remedy::Do(remedy.to_owned())));
        }
        Ok(())
    }

    fn store(&mut self, epoch: Epoch, from: Option<&Cursor>, to: &Cursor, batch: &[Arrival]) -> Result<()> {
        match self.ledger.intake(epoch, from, to, batch)? {
            IntakeAnswer::Taken(_) => Ok(()),
            other => Err(Error::Failed(format!("messages of a trial were not stored: {other:?}"))),
        }
    }

    /// What a leader does with messages after it has stored them.
    fn deliver(&mut self, epoch: Epoch, first: MessageId) -> Result<()> {
        let id = |count: u64| MessageId(first.0 + count);
        self.ledger.page(epoch, PageRequest { after: MessageId::ZERO, up_to: id(4), messages: 10, bytes: 1 << 20 })?;
        self.ledger.fetch(epoch, &[id(1)], 1 << 20)?;
        self.ledger.not_pending(&[id(1)])?;
        self.ledger.settings()?;
        let returned = |id, verdict| Returned {
            id,
            verdict,
            delivery: DeliveryNumber::Known(1),
            hold: Hold::Held,
            consumer: "doctor".into(),
            reason: "trial".into(),
        };
        let (failed, rejected) = (returned(id(1), Verdict::Failed), returned(id(2), Verdict::Rejected));
        let settling = |returned| Settling { returned, delivery: 1, wait: Duration::from_secs(1) };
        let settled = self.ledger.settle(epoch, 8, &[settling(&failed), settling(&rejected)])?;
        if let Some(error) = settled.refused {
            return Err(error);
        }
        self.ledger.count_deliveries(epoch, &[(id(3), 2)])?;
        self.ledger.deliveries(&[id(1)])?;
        self.ledger.commit(Some(epoch), None, Raise::Nothing, [&result(id(3), 2), &result(id(4), 0)])?;
        self.ledger.set_consumers(epoch, &["doctor".to_owned()])
    }

    fn subscribe(&mut self, patient: &Patient<'_>, interests: &Interests) -> Result<Subscription> {
        let channels = Channels {
            server: patient.server.clone(),
            keys: Arc::new(self.trial.keys.clone()),
            interests: Arc::new(interests.clone()),
            subscriber: Subscriber::Dispatcher(self.trial.dispatcher.clone()),
        };
        let mut subscription = Subscription::open(&channels, None, PATIENCE)?;
        let deadline = Instant::now() + HEARING_TIME;
        while !subscription.is_established() {
            subscription.read()?;
            if Instant::now() > deadline {
                return Err(Error::Failed("a subscription is not confirmed in time".to_owned()));
            }
        }
        Ok(subscription)
    }

    /// Whether what the commands' connection publishes arrives at the subscription.
    fn hear(&mut self, subscription: &mut Subscription, marker: &Marker, counted: bool) -> Result<()> {
        let deadline = Instant::now() + HEARING_TIME;
        let mut heard = false;
        while !heard && Instant::now() < deadline {
            let batch = subscription.read()?.unwrap_or_default();
            heard = batch.seen.contains(&Seen::Marker(marker.clone()));
        }
        let remedy = || Remedy::Do("let --redis-url name the server itself, not a proxy or another node".to_owned());
        if !heard {
            self.found.push(Finding::stops(
                "the subscription and the commands reach different servers: a dispatcher would miss messages",
                remedy(),
            ));
        } else if !counted {
            let effect = Effect::Slower("a leader that dies is replaced only when its lease has run out");
            let problem = "the server that executes commands does not count this client's subscription \
                           (PUBSUB NUMSUB is 0)";
            self.found.push(Finding::new(effect, problem, remedy()));
        }
        Ok(())
    }

    /// A command with as many words as the widest of a dispatcher.
    fn widest(&mut self) -> Result<()> {
        let command = Command::new(MAX_BATCH_WORDS).arg("EXISTS");
        let command = (1..MAX_BATCH_WORDS).fold(command, |command, _| command.arg(&self.trial.unused));
        let outcome = self.ledger.connection().query("trying a command with many words", command).map(drop);
        self.judge_width(outcome)
    }

    /// A command that is refused for its size is halved until it is accepted.
    fn judge_width(&mut self, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let effect = Effect::Slower("batches are halved until they are accepted");
        let problem =
            format!("a command of {MAX_BATCH_WORDS} words, the most that is sent, is refused: {}", told(&error));
        let remedy = Remedy::Do("raise that limit of the proxy or service".to_owned());
        self.found.push(Finding::new(effect, problem, remedy));
        if self.ledger.is_answered() { Ok(()) } else { Err(error) }
    }

    /// A consumer's results. No step leaves anything for the next one.
    fn record(&mut self) -> Result<()> {
        let run_id = self.ledger.run_id()?.unwrap_or_else(|| "unknown".to_owned());
        let first = MessageId::ZERO.next(Epoch::default(), wall_clock_us());
        let id = |count: u64| MessageId(first.0 + count);
        self.ledger.connection().set_seal(Seal::Replace(""));
        self.begin(&run_id, first)?;
        let messages: Vec<_> = (0..4).map(|count| (id(count), Body::copied(None, b"trial"))).collect();
        self.ledger.put_back(self.trial.nonce, &messages)?;
        // As after a start, above the messages that were put back.
        self.begin(&run_id, MessageId::ZERO)?;
        self.ledger.watch_recall()?;
        // Without transactions the script does it.
        if self.ledger.recall().is_some() {
            let sole = result(id(0), 2);
            let recorded = self.ledger.commit_sole(None, &[Sole::from(&sole)])?;
            if let Some((_, reason)) = recorded.and_then(|recorded| recorded.unstored) {
                return Err(Error::Failed(format!("a result of a trial was not stored: {reason}")));
            }
        }
        self.ledger.connection().set_seal(Seal::Replace(MADE_PENDING));
        self.begin(&run_id, MessageId::ZERO)?;
        let results = [&result(id(1), 2), &result(id(2), 0)];
        let committed = self.ledger.commit(None, None, Raise::To(id(1)), results)?;
        if committed.recorded != 1 {
            return Err(Error::Failed(format!("a result of a trial was not recorded: {committed:?}")));
        }
        self.begin(&run_id, MessageId::ZERO)?;
        let widest = result(id(3), MAX_RESULT_FIELDS - 20);
        let outcome = self.ledger.commit(None, None, Raise::Nothing, [&widest]).map(drop);
        self.judge_width(outcome)
    }

    /// Waits until what the last step wrote is gone, and writes the recall.
    fn begin(&mut self, run_id: &str, up_to: MessageId) -> Result<()> {
        left_of(&self.trial.written_by_steps(), self.ledger.connection())?;
        let (recall, time) = (format!("1 {run_id} {}", up_to.0), self.trial.time.as_millis().to_string());
        let set = Command::of(&["SET", &self.trial.keys.recall, &recall, "PX", &time]);
        self.ledger.connection().query("preparing a trial", set).map(drop)
    }
}

fn arrival(id: MessageId) -> Arrival {
    Arrival { id, body: Body::copied(None, b"trial"), refused: None }
}

/// A result with so many names and values.
fn result(id: MessageId, words: usize) -> Commit {
    Commit { id, fields: (0..words).map(|_| "trial").collect::<Words>() }
}
