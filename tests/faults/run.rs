//! One run of a row: its seed, its length, and the check at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use oncecast::lab;

use crate::mode::Mode;
use crate::support::load::Sent;
use crate::support::{id_in_payload, recorded_ids_of, state_of, stream, wait_for_intake_of};

/// A seed to repeat a failure with.
const SEED: &str = "ONCECAST_SEED";
/// If set, runs are longer and under more load.
const LONG: &str = "ONCECAST_LONG";
/// How long owed messages may take after the last message was published and the last fault healed.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// See the module's text. If the test fails it says how to repeat it.
pub struct Run {
    row: String,
    seed: u64,
    /// The source of all randomness.
    pub random: fastrand::Rng,
}

impl Run {
    /// A run of this row.
    pub fn of(row: &str) -> Run {
        let given = std::env::var(SEED).ok();
        let seed = given.map_or_else(|| fastrand::u64(..1 << 32), |seed| seed.parse().expect("a seed is a number"));
        Run { row: row.to_owned(), seed, random: fastrand::Rng::with_seed(seed) }
    }

    /// A run of this row in a mode of delivery.
    pub fn in_mode(mode: Mode, row: &str) -> Run {
        Run::of(&format!("{mode}::{row}"))
    }

    /// The value for a short or a long run.
    pub fn scale(&self, short: u64, long: u64) -> u64 {
        if std::env::var_os(LONG).is_some() { long } else { short }
    }

    /// Shows a figure, or that something was skipped, even if the test passes, when `eprintln!` shows nothing.
    pub fn say(&self, text: impl fmt::Display) {
        // Nothing depends on it being read.
        let _ = writeln!(io::stderr(), "{} (seed {}): {text}", self.row, self.seed);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if thread::panicking() {
            let Run { row, seed, .. } = self;
            eprintln!("{row} failed with seed {seed}; to repeat it: {SEED}={seed} cargo test --test faults {row}");
        }
    }
}

/// Waits until all that was published is done, and fails unless L0 holds.
///
/// Messages whose `PUBLISH` got no answer, or reached no dispatcher, may have been recorded, but not twice.
pub fn assert_l0(connection: &mut redis::Connection, sent: &Sent) {
    assert_l0_of("messages", connection, sent);
}

/// The same for a group by its name.
pub fn assert_l0_of(group: &str, connection: &mut redis::Connection, sent: &Sent) {
    let (dead, gaps) = (format!("{group}:dead"), format!("{group}:gaps"));
    // Otherwise messages that are not owed could be counted for owed ones still in progress.
    wait_for_intake_of(group, connection);
    // Success is judged below, by the results.
    let _ = lab::wait_until(DRAIN_LIMIT, "the drain", || {
        let (pending, processed, dead) = state_of(group, connection);
        Ok((pending == 0 && processed + dead >= sent.owed.len()).then_some(()))
    });
    let recorded = count(recorded_ids_of(group, connection));
    let dead_letters =
        count(stream(connection, &dead).into_iter().filter_map(|entry| id_in_payload(entry.get("payload")?)));
    let owed: BTreeSet<&String> = sent.owed.iter().collect();
    let known = |id: &String| owed.contains(id) || sent.uncertain.contains(id) || sent.unheard.contains(id);
    let lost = Named::of(owed.iter().filter(|id| !recorded.contains_key(**id) && !dead_letters.contains_key(**id)));
    let twice = Named::of(recorded.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id));
    let foreign = Named::of(recorded.keys().chain(dead_letters.keys()).filter(|id| !known(id)));
    let (pending, ..) = state_of(group, connection);
    assert!(
        lost.0 + twice.0 + foreign.0 + pending == 0,
        "of {} owed messages: lost {lost:?}, recorded twice {twice:?}, never published {foreign:?}, {pending} pending; \
         {} dead letters; gaps {:?}",
        owed.len(),
        dead_letters.len(),
        stream(connection, &gaps),
    );
}

/// The number of ids of a kind, and the first few.
struct Named(usize, Vec<String>);

impl Named {
    fn of<S: ToString>(ids: impl IntoIterator<Item = S>) -> Named {
        ids.into_iter().fold(Named(0, Vec::new()), |Named(count, mut first), id| {
            if first.len() < 5 {
                first.push(id.to_string());
            }
            Named(count + 1, first)
        })
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.0, self.1)
    }
}

fn count(ids: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    ids.into_iter().fold(BTreeMap::new(), |mut counted, id| {
        *counted.entry(id).or_default() += 1;
        counted
    })
}
