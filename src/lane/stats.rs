//! Figures of a dispatcher since its start, over all its terms. Plain atomics: reading them disturbs no thread.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::deaths::Deaths;
use crate::base::histogram::LatencyHistogram;

macro_rules! stats {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters and gauges, by name.
        #[derive(Debug, Default)]
        pub struct LaneStats {
            $($(#[$doc])+ pub $name: AtomicU64,)+
            /// From a message's intake to its ACK.
            pub delivery_latency: LatencyHistogram,
            /// The consumers linked now.
            pub linked: Mutex<Vec<Arc<LinkFigures>>>,
            /// Messages that became dead letters lately.
            pub deaths: Mutex<Deaths>,
        }
    };
}

stats! {
    /// 1 while leader.
    leading,
    /// 1 while the ring holds everything after the cursor, as far as the last check showed.
    in_sync,
    /// 1 if Redis answered the last attempt to become leader or to stay it.
    redis_connected,
    /// The epoch of the present or last term.
    epoch,
    /// Terms begun.
    terms,
    /// Messages stored.
    taken_in,
    /// Messages refused at intake for their size.
    oversize,
    /// Messages sent to consumers, redeliveries included.
    dispatched,
    /// Messages that consumers acknowledged.
    acked,
    /// Messages that went out again.
    redelivered,
    /// Messages moved to the dead letters.
    dead_lettered,
    /// Messages left to the sorted set because memory was full.
    spilled,
    /// Messages read back from the sorted set.
    read_back,
    /// Gaps recorded.
    gaps,
    /// Writes refused because a newer epoch had begun.
    fenced,
    /// Bad frames from consumers.
    bad_frames,
    /// Answers for messages that had no place at the consumer they came from.
    stray_answers,
    /// Links to consumers that were made.
    links_made,
    /// Links to consumers that were lost.
    links_lost,
    /// Messages in memory waiting for a consumer now.
    ready,
    /// 1 while some pending messages are in Redis alone.
    behind,
    /// Messages that wait for their time to go out again now.
    delayed,
    /// 1 while as many messages are tracked as may be.
    full,
}

impl LaneStats {
    /// The totals, for the last log line.
    pub fn summary(&self) -> impl Display {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "terms={} taken_in={} dispatched={} acked={} redelivered={} dead_lettered={} spilled={} gaps={}",
            get(&self.terms),
            get(&self.taken_in),
            get(&self.dispatched),
            get(&self.acked),
            get(&self.redelivered),
            get(&self.dead_lettered),
            get(&self.spilled),
            get(&self.gaps)
        )
    }
}

/// Figures of one link. The courier writes them; a link's figures end with it, the dispatcher's totals do not.
#[derive(Debug)]
pub struct LinkFigures {
    /// The consumer's id.
    pub consumer: Arc<str>,
    /// Which of the configured addresses it has.
    pub index: usize,
    /// The most messages that it holds at once.
    pub prefetch: u32,
    /// Whether it is about to stop.
    pub draining: AtomicBool,
    /// Messages that it holds.
    pub in_flight: AtomicU64,
    /// Messages that it has left without a word: those of now, and those since it last answered for one.
    pub overdue: AtomicU64,
    /// Messages that it acknowledged.
    pub acked: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}
