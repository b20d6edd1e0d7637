//! Recording results. A result is stored in the step that removes its message from the sorted set, so there is at most
//! one.
//!
//! The step is either a script, which checks that the message is still pending, or a transaction, which can't check but
//! costs Redis less (docs/PERFORMANCE.md has the figures). A transaction is correct only if no other consumer can have
//! removed the message. The *recall*, a key in Redis, says for which messages that is so. It holds an epoch, the run id
//! of the server, and an id, and promises:
//!
//! > Messages above this id were delivered once, by the leader of this epoch only. So each of them has one holder. This
//! > holds until the server restarts, because it may then have lost the last write of the recall.
//!
//! Leaders keep this promise. Acquiring the lease writes the recall, with the new epoch and the highest id stored so
//! far. If a leader redelivers or dead-letters a message that a consumer may still hold, the settling step raises the
//! recall to that message. A consumer watches the key. It uses a transaction for messages above the recall's id that it
//! received from that leader; the transaction does nothing if the recall was written since it was last read. Everything
//! else goes through the script, including all messages from a leader without a recall.
//!
//! A transaction with an unknown outcome may still arrive, over a connection that was given up, after the script that
//! repeats it. So that script raises the recall as well, and the late transaction does nothing. A message may also come
//! from a dispatcher that no longer leads. A consumer that can't tell yet raises the recall to the messages that it
//! records. `tests/model` checks all of this, state by state.
//!
//! Messages are removed by ranges of scores, so their payloads are not sent. Consecutive ids of one batch form one
//! range. A bundle is removed as one member, by its own score, when the results of all its messages are in one
//! transaction. In every other case the script records them, which first takes the bundle apart.

use std::num::NonZeroU64;
use std::time::Duration;

use redis::Value;

use super::bundle;
use super::command::{Command, begin, number, word};
use super::core::Ledger;
use super::limits::parts;
use super::member::{self, Body};
use super::resp::Reply;
use super::scripts::{CommitCall, PutBackCall};
use super::types::{Commit, Committed, Raise, Recall, Recorded};
use super::value::text;
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition};
use crate::base::error::Result;
use crate::base::failure::Failure;
use crate::base::id::{Epoch, MessageId};

impl Ledger {
    /// Records results. Results of messages that are no longer pending are dropped.
    ///
    /// `epoch` is that of a leader, which records for consumers without Redis; `None` for a consumer. The stream keeps
    /// about `result_maxlen` entries, or all. The call may be repeated, because recorded messages are no longer
    /// pending.
    pub fn commit<'a>(
        &mut self,
        epoch: Option<Epoch>,
        result_maxlen: Option<NonZeroU64>,
        raise: Raise,
        batch: impl IntoIterator<Item = &'a Commit>,
    ) -> Result<Committed> {
        const DOING: &str = "recording results";
        let result_maxlen = result_maxlen.map_or(0, NonZeroU64::get);
        let mut call = CommitCall { my_epoch: epoch, result_maxlen, raise_to: raise }.on(&self.keys);
        // A consumer needs the right to the recall only if it uses transactions, and never the right to the epoch.
        if epoch.is_some() || raise != Raise::Nothing {
            call = call.key(&self.keys.recall);
        }
        if epoch.is_some() {
            call = call.key(&self.keys.epoch);
        }
        for Commit { id, fields } in batch {
            call.push((id, fields.len() as u64, fields));
        }
        let reply = self.call(DOING, call)?;
        match &reply {
            Value::Array(parts) if let Some((Value::Int(recorded), gone)) = parts.split_first() => Ok(Committed {
                recorded: (*recorded).try_into().unwrap_or(0),
                gone: gone.iter().filter_map(|id| text(id)?.parse().ok().map(MessageId)).collect(),
            }),
            _ => match epoch {
                Some(epoch) => self.fenced(epoch, DOING, &reply),
                None => self.unexpected_reply(DOING, &reply),
            },
        }
    }

    /// The recall as it was last read; `None` if there is none, or while it is not watched.
    pub fn recall(&self) -> Option<Recall> {
        self.recall.values(&self.connection).and_then(|values| recall_of(values.first()?))
    }

    /// The server's run id, which changes with each start; `None` if this user may not read it.
    pub fn run_id(&mut self) -> Result<Option<String>> {
        let info = match self.connection.query("asking for the run id", Command::of(&["INFO", "server"])) {
            Err(error) if error.is_denied() => return Ok(None),
            info => info?,
        };
        let run_id = text(&info).and_then(|info| info.lines().find_map(|line| line.strip_prefix("run_id:")));
        Ok(run_id.map(str::to_owned))
    }

    /// Begins to watch the recall.
    pub fn watch_recall(&mut self) -> Result<()> {
        self.recall.arm(&mut self.connection)
    }

    /// Nothing relies on the watch any more.
    pub fn forget_recall(&mut self) {
        self.recall.disarm();
    }

    /// Records results of messages that no other consumer can hold, in a transaction. `None`: the recall was written
    /// since it was [last read](Ledger::recall), and nothing was done.
    ///
    /// The ids in the batch rise, and are above the recall's id. A message with a position in a bundle comes with all
    /// others of that bundle, which removes it whether a script has taken it apart meanwhile or not.
    pub fn commit_sole(&mut self, result_maxlen: Option<NonZeroU64>, batch: &[Sole<'_>]) -> Result<Option<Recorded>> {
        let ranges = ranges_of(batch);
        let stored: Vec<&Commit> = batch.iter().map(|sole| sole.commit).filter(|c| !c.fields.is_empty()).collect();
        let keys = &self.keys;
        let mut removed = 0;
        let mut unstored = Vec::new();
        let mut reason = String::new();
        let executed = self.recall.transact(
            &mut self.connection,
            "recording results",
            ranges.len() + stored.len(),
            |out| {
                for Range { lowest, highest, .. } in &ranges {
                    begin(out, 4);
                    word(out, "ZREMRANGEBYSCORE");
                    word(out, &keys.pending);
                    word(out, lowest.to_string());
                    word(out, highest.to_string());
                }
                for commit in &stored {
                    begin(out, if result_maxlen.is_none() { 3 } else { 6 } + commit.fields.len());
                    word(out, "XADD");
                    word(out, &keys.processed);
                    if let Some(entries) = result_maxlen {
                        word(out, "MAXLEN");
                        word(out, "~");
                        number(out, entries.get());
                    }
                    word(out, "*");
                    out.extend_from_slice(commit.fields.bytes());
                }
            },
            |at, reply| match reply {
                Reply::Number(count) => removed += count as usize * ranges[at].messages,
                Reply::Error(text) if at >= ranges.len() => {
                    unstored.push(stored[at - ranges.len()].id);
                    reason = Failure::of_reply(text).to_string();
                }
                _ => {}
            },
        )?;
        let unstored = (!unstored.is_empty()).then_some((unstored, reason));
        Ok(executed.then_some(Recorded { removed, unstored }))
    }

    /// Puts back messages that were removed and whose results could not be stored, in the order of their ids. A leader
    /// may deliver them to another consumer at once, so this raises the recall.
    ///
    /// All attempts for the same messages use the same `nonce`, so it is done once, however late a copy of the call
    /// arrives.
    pub fn put_back(&mut self, nonce: u64, messages: &[(MessageId, Body)]) -> Result<()> {
        let highest = messages.last().map_or(MessageId::ZERO, |(id, _)| *id);
        let done = format!("{}{nonce:016x}", self.keys.put_back_prefix);
        let mut call = PutBackCall { remember_ms: REMEMBER_PUT_BACK, highest }.on(&self.keys).key(&done);
        let mut member = Vec::new();
        for (id, body) in messages {
            call.push((id, member::encode(*id, body, &mut member)));
        }
        self.call("putting messages back", call).map(drop)
    }
}

/// A result that is recorded in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Sole<'a> {
    /// The result.
    pub commit: &'a Commit,
    /// The position of its message in a bundle, if it was stored in one.
    pub position: Option<BundlePosition>,
}

impl<'a> From<&'a Commit> for Sole<'a> {
    /// The result of a message that is a member of its own.
    fn from(commit: &'a Commit) -> Sole<'a> {
        Sole { commit, position: None }
    }
}

/// A range of scores to remove.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    lowest: i64,
    highest: i64,
    /// How many messages each member in it has.
    messages: usize,
}

/// The ranges that remove these messages: for consecutive ids one of single members, and one of bundles if they were
/// stored in some.
fn ranges_of(batch: &[Sole<'_>]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for together in batch.chunk_by(|one, next| one.commit.id.0 + 1 == next.commit.id.0) {
        let (first, last) = (together[0].commit.id, together[together.len() - 1].commit.id);
        let (lowest, highest) = (bundle::score_alone(first), bundle::score_alone(last));
        ranges.push(Range { lowest, highest, messages: 1 });
        let mut bundled = together.iter().filter(|sole| sole.position.is_some()).map(|sole| sole.commit.id);
        if let Some(first) = bundled.next() {
            let (lowest, highest) = bundle::scores_within(first, bundled.next_back().unwrap_or(first));
            ranges.push(Range { lowest, highest, messages: BUNDLE_MESSAGES });
        }
    }
    ranges
}

/// How long it is remembered that messages were put back: longer than a call can take to arrive.
const REMEMBER_PUT_BACK: Duration = Duration::from_secs(24 * 3600);

/// Cuts results into what one script takes.
pub fn batches<T>(results: &[T], commit: impl Fn(&T) -> &Commit) -> impl Iterator<Item = &[T]> {
    parts(results, move |result: &T| (commit(result).bytes(), 2 + commit(result).fields.len()))
}

/// Parses the value of the recall's key.
fn recall_of(value: &[u8]) -> Option<Recall> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let (epoch, server, up_to) = (words.next()?, words.next()?, words.next()?);
    Some(Recall { epoch: Epoch(epoch.parse().ok()?), server: server.to_owned(), up_to: MessageId(up_to.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::command::Words;
    use crate::ledger::limits::{MAX_BATCH_BYTES, MAX_BATCH_WORDS};

    fn commit(values: usize, bytes: usize) -> Commit {
        Commit { id: MessageId(1), fields: (0..values).map(|_| vec![0; bytes]).collect::<Words>() }
    }

    fn lengths(commits: &[Commit]) -> Vec<usize> {
        batches(commits, |commit| commit).map(<[_]>::len).collect()
    }

    #[test]
    fn results_are_cut_by_number_by_bytes_and_by_words() {
        assert_eq!(lengths(&[]), [0; 0]);
        let small: Vec<_> = (0..2_500).map(|_| commit(1, 1)).collect();
        assert_eq!(lengths(&small), [1_000, 1_000, 500]);
        let large: Vec<_> = (0..3).map(|_| commit(2, MAX_BATCH_BYTES / 2)).collect();
        assert_eq!(lengths(&large), [1, 1, 1]);
        let wide: Vec<_> = (0..100).map(|_| commit(98, 1)).collect();
        assert_eq!(lengths(&wide), [39, 39, 22]);
        let widest = [commit(2 * MAX_BATCH_WORDS, 0), commit(2, 1), commit(2, 1)];
        assert_eq!(lengths(&widest), [1, 2]);
    }
}
