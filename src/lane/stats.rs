//! A lane's figures since its start, over all terms. Almost all are atomics, so reading them holds up no thread.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::deaths::Deaths;
use super::delivery_state::DeliveryState;
use crate::base::histogram::LatencyHistogram;

macro_rules! stats {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters and gauges, by name.
        #[derive(Debug, Default)]
        pub struct LaneStats {
            $($(#[$doc])+ pub $name: AtomicU64,)+
            /// From a message's intake to its ACK.
            pub delivery_latency: LatencyHistogram,
            /// Consumers at which the last attempt to link them ended because one of the two did not prove the link
            /// secret, by their addresses.
            pub unproven: Mutex<BTreeSet<String>>,
            /// Why the last attempt to store messages failed, as leader; `None` after one that succeeded.
            pub unstored: Mutex<Option<String>>,
            /// Why the last attempt to take the lease failed; `None` after one that Redis answered.
            pub unelected: Mutex<Option<String>>,
            /// The consumers linked now.
            pub linked: Mutex<Vec<Arc<LinkFigures>>>,
            /// Messages that became dead letters lately.
            pub deaths: Mutex<Deaths>,
            /// What holds deliveries back, while leader of a group with consumers.
            pub delivery: Mutex<Option<DeliveryState>>,
        }
    };
}

stats! {
    /// 1 while leader.
    leading,
    /// 1 if the ring held everything after the cursor at the last check.
    in_sync,
    /// 1 if Redis answered the last attempt to acquire or renew the lease.
    redis_connected,
    /// The epoch of the present or last term.
    epoch,
    /// Terms begun.
    terms,
    /// Messages stored.
    taken_in,
    /// Attempts to store messages that too few replicas confirmed in time.
    unreplicated,
    /// 1 while too few replicas confirm what is stored.
    lacks_replicas,
    /// Messages stored in bundles.
    bundled,
    /// Messages refused at intake for their size.
    oversize,
    /// Messages sent to consumers, redeliveries included.
    dispatched,
    /// Messages that consumers acknowledged.
    acked,
    /// Messages redelivered.
    redelivered,
    /// Messages moved to the dead letters.
    dead_lettered,
    /// Messages kept in the sorted set only, because memory was full.
    spilled,
    /// Messages read back from the sorted set.
    read_back,
    /// Gaps recorded.
    gaps,
    /// Writes refused because a newer epoch had begun.
    fenced,
    /// Malformed or unexpected frames from consumers.
    bad_frames,
    /// Answers for messages that had no place at the consumer they came from.
    stray_answers,
    /// Answers of consumers without Redis confirmed with RECORDED.
    confirmed,
    /// Links to consumers that were made.
    links_made,
    /// Links to consumers that were lost.
    links_lost,
    /// Attempts to link a consumer that ended because one of the two did not prove the link secret.
    unauthenticated,
    /// Microseconds in which messages waited because of a pause or a limit.
    held_back_us,
    /// 1 while the group is paused.
    paused,
    /// Messages in memory waiting for a consumer now.
    ready,
    /// With an order by key: keys with messages in progress now.
    order_keys,
    /// Messages in memory that wait for others of their key now.
    parked,
    /// Keys of which only the next messages are in memory now.
    cut_keys,
    /// Messages without a key, although there is an order by key.
    unkeyed,
    /// 1 while some pending messages are in Redis alone.
    behind,
    /// Messages that wait for redelivery now.
    delayed,
    /// In how many milliseconds the first of these is due; 0 if it is, or if none waits.
    next_retry_ms,
    /// 1 while the most messages allowed are tracked.
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

/// Figures of one link. The courier writes them. They end with the link, while the dispatcher's totals remain.
#[derive(Debug)]
pub struct LinkFigures {
    /// The consumer's id.
    pub consumer: Arc<str>,
    /// Its slot on the roster.
    pub slot: usize,
    /// Its address.
    pub address: Arc<str>,
    /// Whether whoever reaches it may claim to be its dispatcher, as far as can be told from here.
    pub is_open: bool,
    /// The most messages that it holds at once, by READY or the last CREDIT.
    pub prefetch: AtomicU64,
    /// Whether the consumer has sent DRAIN.
    pub draining: AtomicBool,
    /// Whether it is no longer listed, so that it gets nothing more.
    pub leaving: AtomicBool,
    /// Messages that it holds.
    pub in_flight: AtomicU64,
    /// Messages that it stopped reporting: those overdue now, and those since it last answered for one.
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
