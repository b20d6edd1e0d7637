//! A distribution of times that any thread may add to without waiting: atomics in fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, 100 µs to 60 s; longer times go into the last bucket.
const BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// The content of a [`LatencyHistogram`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The sum of all times in seconds.
    pub sum: f64,
    /// The number of times.
    pub count: u64,
    /// The number in each bucket, with its upper bound in seconds.
    pub buckets: Vec<(f64, u64)>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl LatencyHistogram {
    /// Adds one time.
    pub fn observe(&self, time: Duration) {
        self.observe_many(time, 1);
    }

    /// Adds the same time `count` times, for instance once for each message of a batch.
    pub fn observe_many(&self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        self.sum_us.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
    }

    /// What has been added so far.
    pub fn read(&self) -> Distribution {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        Distribution { sum, count: counts.iter().sum(), buckets: bounds.zip(counts.iter().copied()).collect() }
    }
}
