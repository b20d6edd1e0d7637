//! A histogram of times. Its buckets grow with the time, so that each is precise to about 3 %. Pure.
//!
//! ```text
//!  0 … 31 µs       one bucket per µs
//!  32 … 63 µs      one bucket per µs
//!  64 … 127 µs     32 buckets of 2 µs
//!  128 … 255 µs    32 buckets of 4 µs, and so on
//! ```

use std::collections::BTreeMap;

/// The binary logarithm of the number of buckets for each doubling of the time.
const BITS: u32 = 5;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    counts: BTreeMap<u64, u64>,
    count: u64,
    most: u64,
}

impl Histogram {
    /// Adds a time in microseconds.
    pub(super) fn add(&mut self, time_us: u64) {
        *self.counts.entry(bucket(time_us)).or_insert(0) += 1;
        self.count += 1;
        self.most = self.most.max(time_us);
    }

    /// The number of times added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The exact longest time.
    pub(super) fn most_us(&self) -> u64 {
        self.most
    }

    /// The time that this share of all times does not exceed: 0.5 for the median. 0 if there are no times.
    pub(super) fn percentile(&self, share: f64) -> u64 {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map_or(self.most, |(bucket, _)| last_of(*bucket).min(self.most))
    }

    /// Each bucket that is not empty: its longest time, and its count.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(bucket, count)| (last_of(*bucket), *count))
    }

    /// The histogram as lines of text: first the longest time, then the buckets.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let buckets = self.counts.iter().map(|(bucket, count)| format!("{bucket} {count}"));
        std::iter::once(self.most.to_string()).chain(buckets)
    }

    /// Parses the lines of [`Histogram::lines`].
    pub(super) fn read<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Histogram> {
        let most = lines.next()?.parse().ok()?;
        let pair = |line: &str| {
            let (bucket, count) = line.split_once(' ')?;
            Some((bucket.parse().ok()?, count.parse().ok()?))
        };
        let counts: BTreeMap<u64, u64> = lines.map(pair).collect::<Option<_>>()?;
        Some(Histogram { count: counts.values().sum(), counts, most })
    }
}

fn bucket(time: u64) -> u64 {
    match time.checked_ilog2() {
        Some(log) if log > BITS => {
            let shift = log - BITS;
            (u64::from(shift) << BITS) + (time >> shift)
        }
        _ => time,
    }
}

/// The longest time of a bucket.
fn last_of(bucket: u64) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let first = (bucket - (shift << BITS)) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut before = 0;
        for time in (0..5_000).chain((5_000..100_000_000).step_by(9_973)) {
            let bucket = bucket(time);
            assert!(bucket >= before, "{time}");
            before = bucket;
            let last = last_of(bucket);
            assert!(last >= time && (last - time) as f64 <= 0.032 * time as f64, "{time} in {bucket} up to {last}");
            assert_eq!(super::bucket(last), bucket);
            assert_eq!(super::bucket(last + 1), bucket + 1);
        }
    }

    #[test]
    fn shares_are_counted_from_below() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=1_000).for_each(|time| histogram.add(time));
        assert!((500..=516).contains(&histogram.percentile(0.5)));
        assert!((990..=1_000).contains(&histogram.percentile(0.99)));
        assert_eq!((histogram.percentile(1.0), histogram.most_us(), histogram.percentile(0.0)), (1_000, 1_000, 1));
    }

    #[test]
    fn it_reads_back() {
        let mut histogram = Histogram::default();
        [0, 3, 3, 77, 1_000_000].into_iter().for_each(|time| histogram.add(time));
        let lines: Vec<String> = histogram.lines().collect();
        assert_eq!(Histogram::read(lines.iter().map(String::as_str)), Some(histogram));
        assert_eq!(Histogram::read(["1", "x"].into_iter()), None);
        assert_eq!(Histogram::read([].into_iter()), None);
    }
}
