//! The way of results from the handler threads to a lane's committer.
//!
//! Any handler thread sends; the committer of the lane receives. Sending does not wait for the committer, so that a
//! lane whose Redis does not store results holds up no other lane. Instead no message of a lane is begun while its
//! outlet has no [room](Outlet::has_room). Results of a bundle gather on the way (`incomplete`), so the committer is
//! woken once for all of them. A result that comes alone, to a consumer with nothing else to do, is recorded at once by
//! the handler's thread (`commit::recorder`), which saves waking another one.
//!
//! Guarantee: the bytes that wait to be recorded, over all lanes, are at most twice [`MAX_UNRECORDED_BYTES`], and one
//! result more for each handler thread.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::finished::{Finished, Ready, RecordsNow};
use super::incomplete::Incomplete;
use super::peer::LinkId;
use crate::base::budget::Budget;
use crate::base::id::Epoch;
use crate::base::log_context::LogContext;
use crate::ledger::{Body, Commit};

/// The most bytes of results that wait to be recorded. The prefetch limits only their number.
const MAX_UNRECORDED_BYTES: usize = 64 << 20;
/// About how many bytes a waiting result takes in addition to its names and values.
const RESULT_COST_BYTES: usize = 96;

/// The bytes of results that wait to be recorded, over all lanes. Clones are the same.
#[derive(Clone)]
pub(super) struct Unrecorded(Budget);

impl Default for Unrecorded {
    fn default() -> Unrecorded {
        Unrecorded(Budget::new(MAX_UNRECORDED_BYTES))
    }
}

/// The committer's end of an outlet.
pub(super) struct Results {
    pub(super) ready: Receiver<Ready>,
    gathering: Arc<Mutex<Gathering>>,
    recorder: SharedRecorder,
}

/// What records results at once, when the committer has started.
type SharedRecorder = Arc<OnceLock<Arc<dyn RecordsNow>>>;

/// What an outlet and its committer share.
#[derive(Default)]
struct Gathering {
    incomplete: Incomplete,
    /// The committer waits, and not for results that become due.
    sleeps: bool,
}

impl Results {
    /// From now on handler threads may record results at once, by this.
    pub(super) fn allow_at_once(&self, recorder: Arc<dyn RecordsNow>) {
        // There is one committer.
        let _ = self.recorder.set(recorder);
    }

    /// How long the committer, which is about to wait, may do so: until results are due that wait for others, else for
    /// `longest`.
    pub(super) fn patience(&self, longest: Duration) -> Duration {
        let mut gathering = self.gathering.lock();
        let due = gathering.incomplete.due();
        gathering.sleeps = due.is_none();
        due.map_or(longest, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Takes out the results that have waited for long enough.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Finished> {
        self.gathering.lock().incomplete.take_due(now)
    }

    /// Takes out all results that wait.
    pub(super) fn take_all(&self) -> Vec<Finished> {
        self.gathering.lock().incomplete.take_all()
    }

    /// Whether results wait for others.
    pub(super) fn are_incomplete(&self) -> bool {
        !self.gathering.lock().incomplete.is_empty()
    }

    /// How many results there are, ready or not. Those that are ready are dropped.
    pub(super) fn drop_all(&self) -> usize {
        let ready: usize = self.ready.try_iter().map(|ready| ready.results().len()).sum();
        ready + self.gathering.lock().incomplete.len()
    }
}

/// See the module's text.
pub(super) struct Outlet {
    commits: Sender<Ready>,
    gathering: Arc<Mutex<Gathering>>,
    recorder: SharedRecorder,
    own: Budget,
    all: Unrecorded,
    /// What the lines of threads that work for this lane have in common.
    pub(super) context: LogContext,
}

impl Outlet {
    /// An outlet for a lane, and what its committer receives from.
    pub(super) fn new(all: &Unrecorded, context: LogContext) -> (Outlet, Results) {
        let (commits, ready) = unbounded();
        let (gathering, recorder) = (Arc::<Mutex<Gathering>>::default(), SharedRecorder::default());
        let results = Results { ready, gathering: gathering.clone(), recorder: recorder.clone() };
        (
            Outlet { commits, gathering, recorder, own: Budget::new(MAX_UNRECORDED_BYTES), all: all.clone(), context },
            results,
        )
    }

    /// Whether one more message may be begun: results of all lanes take less than the whole budget, or those of this
    /// lane less than its even share.
    pub(super) fn has_room(&self, lanes: usize) -> bool {
        self.all.0.free_bytes() > 0 || self.own.used_bytes() < MAX_UNRECORDED_BYTES / lanes.max(1)
    }

    /// Passes a result on. If the committer has ended, the result is dropped: the message goes to another consumer.
    pub(super) fn send(&self, commit: Commit, body: Body, number: u16, epoch: Epoch, link: LinkId) {
        let bytes = commit.bytes() + RESULT_COST_BYTES;
        let _shares = [self.own.take(bytes), self.all.0.take(bytes)];
        let finished = Finished { commit, body, number, epoch, link, _shares };
        let ready = match finished.body.position() {
            None => self.record_now(finished, bytes).map(Ready::One),
            Some(_) => {
                let mut gathering = self.gathering.lock();
                let ready = gathering.incomplete.add(finished, Instant::now());
                ready.or_else(|| std::mem::take(&mut gathering.sleeps).then_some(Ready::Look))
            }
        };
        if let Some(ready) = ready {
            // The committer's end is noticed elsewhere.
            let _ = self.commits.send(ready);
        }
    }

    /// Records a result of so many bytes if no other is unrecorded; otherwise returns it. One that the committer has
    /// taken, and is about to record, counts as well: so results of one handler thread stay in order.
    fn record_now(&self, finished: Finished, bytes: usize) -> Option<Finished> {
        let is_alone = self.own.used_bytes() == bytes;
        match self.recorder.get().filter(|_| is_alone) {
            Some(recorder) => recorder.record_now(finished),
            None => Some(finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bundle::BundlePosition;
    use crate::base::id::MessageId;
    use crate::ledger::Words;

    fn send(outlet: &Outlet, bytes: usize) {
        let fields = [vec![0; bytes], Vec::new()].into_iter().collect();
        outlet.send(Commit { id: MessageId(1), fields }, Body::copied(None, b""), 1, Epoch(1), 1);
    }

    #[test]
    fn a_lane_that_is_stuck_leaves_the_others_their_share() {
        let all = Unrecorded::default();
        let (stuck, stuck_results) = Outlet::new(&all, LogContext::of_process());
        let (other, results) = Outlet::new(&all, LogContext::of_process());
        assert!(stuck.has_room(2) && other.has_room(2));
        send(&stuck, MAX_UNRECORDED_BYTES);
        assert!(!stuck.has_room(2) && other.has_room(2));
        send(&other, MAX_UNRECORDED_BYTES / 2);
        assert!(!other.has_room(2), "it has its share as well");
        drop(results.ready.try_recv().expect("it was sent"));
        assert!(other.has_room(2) && !stuck.has_room(2));
        drop(stuck_results.ready.try_recv().expect("it was sent"));
        assert!(stuck.has_room(2));
    }

    #[test]
    fn the_committer_is_woken_for_the_first_result_of_a_bundle_and_for_the_last() {
        let (outlet, results) = Outlet::new(&Unrecorded::default(), LogContext::of_process());
        let long = Duration::from_secs(60);
        assert_eq!(results.patience(long), long);
        let mut woken = Vec::new();
        for position in BundlePosition::all() {
            let mut body = Body::copied(None, b"x");
            body.set_position(Some(position));
            let id = MessageId(100 + u64::from(position.number()));
            outlet.send(Commit { id, fields: Words::default() }, body, 1, Epoch(1), 1);
            woken.extend(results.ready.try_iter().map(|ready| (position.number(), ready.results().len())));
            assert!(results.are_incomplete() == (position.number() < 15));
            assert!(position.number() == 15 || results.patience(long) < long);
        }
        assert_eq!(woken, [(0, 0), (15, 16)]);
        assert_eq!(results.patience(long), long);
    }

    /// Counts what is recorded at once.
    #[derive(Default)]
    struct Counter(std::sync::atomic::AtomicUsize);

    impl RecordsNow for Counter {
        fn record_now(&self, _finished: Finished) -> Option<Finished> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            None
        }
    }

    #[test]
    fn a_result_does_not_overtake_one_that_the_committer_has_taken() {
        let (outlet, results) = Outlet::new(&Unrecorded::default(), LogContext::of_process());
        let counter = Arc::<Counter>::default();
        let recorded = || counter.0.load(std::sync::atomic::Ordering::Relaxed);
        send(&outlet, 1);
        let taken = results.ready.try_recv().expect("nothing records it at once");
        results.allow_at_once(counter.clone());
        send(&outlet, 1);
        assert_eq!((recorded(), results.ready.len()), (0, 1), "the first is not recorded yet");
        drop((taken, results.ready.try_recv()));
        send(&outlet, 1);
        assert_eq!((recorded(), results.ready.len()), (1, 0));
    }

    #[test]
    fn a_result_is_dropped_when_the_committer_has_ended() {
        let (outlet, results) = Outlet::new(&Unrecorded::default(), LogContext::of_process());
        drop(results);
        send(&outlet, MAX_UNRECORDED_BYTES + 1);
        assert!(outlet.has_room(1));
    }
}
