//! Asks Redis whether an epoch is genuine, before the consumer accepts the dispatcher that claims it.
//!
//! A consumer remembers the highest epoch and refuses all lower ones, so a client that names a huge epoch first would
//! lock out the real leaders. And a consumer whose Redis URL names a different server or database than its dispatchers
//! use would process their messages and drop the results, because in its Redis nothing is pending. This check detects
//! both: an epoch is accepted only if `<group>:epoch` in the consumer's own Redis has the same value.
//!
//! The reading threads of the links share a separate connection for this, because the committer's connection may be
//! waiting for a reply. The connection is opened when first needed and then kept, so the check of a new leader costs
//! one round trip. One question is in progress at a time. Its answer serves all threads that asked before the question
//! was sent, so no thread waits for more than two round trips, however many clients connect.
//!
//! A refusal never reveals another epoch, nor whether the real one is lower or higher. The exception is a client that
//! named the newest epoch in Redis: its refusal contains the highest epoch that this consumer has seen.
//!
//! Guarantees: an answer by the caller's deadline, including the wait for other threads; meanwhile the asking thread
//! holds only the lock of the connection. Only a bounded part of the key's value is read, and it is shown truncated and
//! escaped.
//!
//! Limitations: resolving a host name has the system's time limits, which may be longer. If this consumer's Redis user
//! may not read the key, any plausible epoch is accepted, see [`Epochs::confirm`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::{Condvar, Mutex};

use super::peer::CloseReason;
use super::stats::ConsumerStats;
use crate::base::error::{Error, Result as LedgerResult};
use crate::base::id::{Epoch, wall_clock_us};
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;
use crate::ledger::{Keys, Ledger, MOST_EPOCH_BYTES, Server};
use crate::wire::{self, ErrorCode};

/// How long all questions about one LEAD may take together. A dispatcher waits 3 s for the answer to its LEAD.
pub(super) const QUESTION_LIMIT: Duration = Duration::from_secs(2);
/// The waits that one question may need, in sequence: the connection, AUTH, SELECT, and the answer.
const MOST_WAITS: u32 = 4;

/// See the module's text.
pub(super) struct Epochs {
    key: String,
    place: String,
    ledger: Mutex<Ledger>,
    questions: Mutex<Questions>,
    answered: Condvar,
    stats: Arc<ConsumerStats>,
    /// Whether it was logged that the key can't be read.
    logged_unchecked: AtomicBool,
    /// Whether bundles can be taken apart, as far as is known.
    takes_bundles: AtomicBool,
    /// Whether it was logged that they can't.
    logged_no_bundles: AtomicBool,
}

/// Questions are numbered from 1.
#[derive(Default)]
struct Questions {
    asked: u64,
    under_way: bool,
    /// The latest answer, with the number of its question.
    answer: Option<(u64, Arc<EpochAnswer>)>,
}

/// The answer to a question.
#[derive(Debug)]
enum EpochAnswer {
    /// The key holds this.
    Text(Vec<u8>),
    /// The key's value is not a string.
    NoString,
    /// Redis answers, but refuses this question.
    Denied,
    /// Redis can't be asked, for this reason.
    Unavailable(String),
}

/// What an answer means for an epoch.
enum EpochVerdict {
    Newest,
    Unchecked,
    No(CloseReason),
}

impl Epochs {
    /// Opens no connection yet.
    pub(super) fn new(server: Server, keys: Arc<Keys>, stats: Arc<ConsumerStats>) -> Epochs {
        let key = keys.epoch.clone();
        let ledger = Ledger::new(server, keys, QUESTION_LIMIT / MOST_WAITS);
        let (place, ledger) = (ledger.place(), Mutex::new(ledger));
        let (questions, answered, logged_unchecked) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        let (takes_bundles, logged_no_bundles) = (AtomicBool::new(false), AtomicBool::new(false));
        Epochs { key, place, ledger, questions, answered, stats, logged_unchecked, takes_bundles, logged_no_bundles }
    }

    /// Checks that this epoch, which is higher than all seen before, is the newest in Redis. If not, the refusal says
    /// what is wrong and what to do.
    ///
    /// If Redis can't be asked, there are two cases:
    ///
    /// - Redis does not answer, is loading its data, or refuses our password. Then this consumer can't record results
    ///   either, and messages would only wait here. The dispatcher is refused; it delivers the messages to others and
    ///   tries again within a second. Messages that are already held stay held.
    /// - Redis answers, but does not know the command or does not let this user read the key (earlier versions did not
    ///   need that right). Such a consumer can work, and an upgrade must not stop it. So the dispatcher is accepted, as
    ///   in those versions, unless its epoch is far ahead of the clock. This is logged once.
    pub(super) fn confirm(&self, epoch: Epoch, deadline: Instant) -> Result<(), CloseReason> {
        let refusal = match self.judge(epoch, deadline) {
            EpochVerdict::Newest => return Ok(()),
            EpochVerdict::Unchecked if epoch.is_plausible(wall_clock_us() / 1_000) => return Ok(()),
            EpochVerdict::Unchecked => {
                let text = format!(
                    "epoch {epoch} is more than a day ahead of this consumer's clock, so it can't come from Redis"
                );
                CloseReason::new(ErrorCode::Stale, text)
            }
            EpochVerdict::No(refusal) => refusal,
        };
        self.stats.unconfirmed.add(1);
        Err(refusal)
    }

    /// Checks the epoch of the first leader of a lane that is not known yet. Unlike [`confirm`](Epochs::confirm), this
    /// accepts no epoch without an answer: no earlier version served lanes without the right to read the key, and a
    /// client that invents lanes must not make this consumer serve them.
    pub(super) fn confirm_of_new_lane(&self, epoch: Epoch, deadline: Instant) -> Result<(), CloseReason> {
        let refusal = match self.judge(epoch, deadline) {
            EpochVerdict::Newest => return Ok(()),
            EpochVerdict::Unchecked => {
                let text = format!(
                    "epoch {epoch} can't be looked up: for this lane, this consumer's Redis user needs +getrange and \
                     ~{}",
                    self.key
                );
                CloseReason::new(ErrorCode::Unavailable, text)
            }
            EpochVerdict::No(refusal) => refusal,
        };
        self.stats.unconfirmed.add(1);
        Err(refusal)
    }

    /// The refusal for a leader whose epoch is lower than the highest that was `seen`.
    ///
    /// If this epoch is the newest one in Redis, then Redis was emptied or its clock went back. The refusal then begins
    /// with `seen <decimal>: `, so that the leader takes an epoch above the one seen. No other refusal begins that way.
    pub(super) fn refuse_lower(&self, epoch: Epoch, seen: Epoch, deadline: Instant) -> CloseReason {
        match self.judge(epoch, deadline) {
            EpochVerdict::Newest => {
                let why = format!(
                    "epoch {epoch} is the newest in {}, but this consumer has seen a later one; was Redis emptied, or \
                     did its clock go back?",
                    self.place
                );
                CloseReason::new(ErrorCode::Stale, wire::seen_text(seen, &why))
            }
            EpochVerdict::Unchecked => {
                CloseReason::new(ErrorCode::Stale, format!("epoch {epoch} is over: a later leader was here"))
            }
            EpochVerdict::No(refusal) => refusal,
        }
    }

    /// Whether this consumer may be sent messages that Redis keeps in bundles: it must be able to take a bundle apart.
    /// Users of earlier releases lack that right. If Redis does not answer in time, it may not.
    pub(super) fn takes_bundles(&self, deadline: Instant) -> bool {
        if self.takes_bundles.load(Ordering::Relaxed) {
            return true;
        }
        let Some(mut ledger) = self.ledger.try_lock_until(deadline) else { return false };
        let left = deadline.saturating_duration_since(Instant::now());
        ledger.connection().set_timeout((left / MOST_WAITS).max(Duration::from_millis(1)));
        let takes = match ledger.may_take_apart() {
            Ok(takes) => takes,
            Err(error) => {
                info!("event=no-bundles key={} reason={}", Quoted(&ledger.keys().pending), Quoted(error));
                return false;
            }
        };
        self.takes_bundles.store(takes, Ordering::Relaxed);
        if !takes && !self.logged_no_bundles.swap(true, Ordering::Relaxed) {
            info!(
                "event=no-bundles key={} note=\"dispatchers store messages one by one, which costs Redis more; give \
                 this consumer's user +zrangebyscore and +zadd, for the next connection of a dispatcher\"",
                Quoted(&ledger.keys().pending)
            );
        }
        takes
    }

    fn judge(&self, epoch: Epoch, deadline: Instant) -> EpochVerdict {
        let no = |code, text| EpochVerdict::No(CloseReason::new(code, text));
        let Some(answer) = self.answer(deadline) else {
            let text = format!("epoch {epoch} can't be looked up: {} keeps others waiting", self.place);
            return no(ErrorCode::Unavailable, text);
        };
        let found = match &*answer {
            EpochAnswer::Text(text) => StoredEpoch::of(text),
            EpochAnswer::NoString => StoredEpoch::NoString,
            EpochAnswer::Denied => return EpochVerdict::Unchecked,
            EpochAnswer::Unavailable(error) => {
                return no(ErrorCode::Unavailable, format!("epoch {epoch} can't be looked up: {error}"));
            }
        };
        if found == StoredEpoch::Epoch(epoch) {
            return EpochVerdict::Newest;
        }
        let (place, key) = (&self.place, &self.key);
        let advice = if matches!(found, StoredEpoch::Epoch(_)) { "if no later leader has taken over: " } else { "" };
        no(
            ErrorCode::Stale,
            format!(
                "epoch {epoch} is not in {place}: {key} {found} ({advice}does this consumer have the dispatchers' \
                 Redis URL?)"
            ),
        )
    }

    /// The answer to a question that was sent after this call. `None`: other questions took too long.
    fn answer(&self, deadline: Instant) -> Option<Arc<EpochAnswer>> {
        let mut questions = self.questions.lock();
        // The question in progress may have been answered before this client's leader wrote its epoch, so it does not
        // count.
        let mine = questions.asked + 1;
        loop {
            if let Some((_, answer)) = questions.answer.as_ref().filter(|(number, _)| *number >= mine) {
                return Some(answer.clone());
            }
            if questions.under_way {
                if self.answered.wait_until(&mut questions, deadline).timed_out() {
                    return None;
                }
                continue;
            }
            questions.asked += 1;
            questions.under_way = true;
            let number = questions.asked;
            drop(questions);
            let answer = Arc::new(self.ask(deadline));
            questions = self.questions.lock();
            questions.under_way = false;
            questions.answer = Some((number, answer));
            self.answered.notify_all();
        }
    }

    /// Sends the question.
    fn ask(&self, deadline: Instant) -> EpochAnswer {
        let mut ledger = self.ledger.lock();
        let outcome = ask(&mut ledger, deadline);
        let answered = ledger.connection_number().is_some();
        drop(ledger);
        let answer = match outcome {
            Ok(text) => EpochAnswer::Text(text),
            Err(error) => match error.refusal() {
                Some(Refusal::WrongType) => EpochAnswer::NoString,
                // If there is no connection, Redis refused the login, so nothing can be recorded either.
                Some(Refusal::Right | Refusal::UnknownCommand) if answered => {
                    self.log_unchecked(&error);
                    EpochAnswer::Denied
                }
                _ => EpochAnswer::Unavailable(error.to_string()),
            },
        };
        if matches!(answer, EpochAnswer::Text(_) | EpochAnswer::NoString)
            && self.logged_unchecked.swap(false, Ordering::Relaxed)
        {
            info!("event=epoch-checked-again key={}", Quoted(&self.key));
        }
        answer
    }

    fn log_unchecked(&self, error: &Error) {
        if !self.logged_unchecked.swap(true, Ordering::Relaxed) {
            warn!(
                "event=epoch-unchecked reason={} note=\"dispatchers are accepted without a check of their epoch, \
                 unless it is more than a day ahead of the clock; give this consumer's user +getrange and ~{}\"",
                Quoted(error),
                self.key
            );
        }
    }
}

/// Reads the key. A connection that was closed while idle is opened again.
fn ask(ledger: &mut Ledger, deadline: Instant) -> LedgerResult<Vec<u8>> {
    let mut try_once = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // A socket does not accept a timeout of zero.
        ledger.connection().set_timeout((left / MOST_WAITS).max(Duration::from_millis(1)));
        let old = ledger.connection_number();
        let outcome = ledger.epoch_text();
        let broke = old.is_some() && ledger.connection_number().is_none();
        (outcome, broke)
    };
    match try_once() {
        // After a timeout Redis most likely hangs. The dispatcher soon tries again, and that question opens a new
        // connection.
        (Err(error), true) if !is_timeout(&error) => try_once().0,
        (outcome, _) => outcome,
    }
}

fn is_timeout(error: &Error) -> bool {
    error.is_timeout()
}

/// The value of the epoch's key.
#[derive(Debug, PartialEq, Eq)]
enum StoredEpoch<'a> {
    Nothing,
    Epoch(Epoch),
    /// Something that is not an epoch.
    Other(&'a [u8]),
    /// Something that is not even a string.
    NoString,
}

impl StoredEpoch<'_> {
    fn of(text: &[u8]) -> StoredEpoch<'_> {
        if text.is_empty() {
            return StoredEpoch::Nothing;
        }
        // The number parser would accept a sign.
        let digits = text.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(text).ok()).flatten();
        let plain = digits.filter(|digits| *digits == "0" || !digits.starts_with('0'));
        plain
            .and_then(|digits| digits.parse().ok())
            .map_or(StoredEpoch::Other(text), |number| StoredEpoch::Epoch(Epoch(number)))
    }
}

impl fmt::Display for StoredEpoch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredEpoch::Nothing => f.write_str("is not there"),
            // The other epoch is not revealed, because a client that named a wrong epoch has proven nothing.
            StoredEpoch::Epoch(_) => f.write_str("names another epoch"),
            StoredEpoch::Other(text) => {
                let shown = &text[..text.len().min(MOST_EPOCH_BYTES - 1)];
                let cut = if shown.len() < text.len() { "…" } else { "" };
                write!(f, "holds \"{}\"{cut}, which is no epoch", shown.escape_ascii())
            }
            StoredEpoch::NoString => f.write_str("holds no string, so it is not ours"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimal_numbers_are_epochs() {
        assert_eq!(StoredEpoch::of(b""), StoredEpoch::Nothing);
        assert_eq!(StoredEpoch::of(b"0"), StoredEpoch::Epoch(Epoch(0)));
        assert_eq!(StoredEpoch::of(b"1790000000123"), StoredEpoch::Epoch(Epoch(1_790_000_000_123)));
        assert_eq!(StoredEpoch::of(b"18446744073709551615"), StoredEpoch::Epoch(Epoch(u64::MAX)));
        for text in ["+7", "-7", " 7", "7\n", "07", "7.0", "0x7", "18446744073709551616", "\u{667}"] {
            assert_eq!(StoredEpoch::of(text.as_bytes()), StoredEpoch::Other(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn foreign_values_are_shown_escaped_and_truncated() {
        let shown = StoredEpoch::of(b"a\"\r\n\x1b[31m\xff").to_string();
        assert_eq!(shown, r#"holds "a\"\r\n\x1b[31m\xff", which is no epoch"#);
        let full = "x".repeat(64);
        assert_eq!(StoredEpoch::of(full.as_bytes()).to_string(), format!("holds \"{full}\", which is no epoch"));
        let more = "x".repeat(MOST_EPOCH_BYTES);
        assert_eq!(StoredEpoch::of(more.as_bytes()).to_string(), format!("holds \"{full}\"…, which is no epoch"));
    }
}
