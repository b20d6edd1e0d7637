//! The gate: how many messages may go out to consumers now. Pure; time is passed in. Owned by the courier.
//!
//! Three things hold messages back: a pause, the most messages in flight, and a rate. With none of them the gate is
//! always open, and costs a comparison.
//!
//! The rate is a token bucket. It holds one message and what 100 ms give, so that a courier that wakes up late catches
//! up. A term begins with one message in it, and a changed rate keeps what there is. So in any time of a term at most
//! `1 + rate / 10 + rate × time` messages go out.

use std::time::{Duration, Instant};

/// What the bucket holds besides one message.
const BURST: Duration = Duration::from_millis(100);
/// The shortest wait for the next message, so that a high rate makes the courier send several at once instead of
/// turning all the time.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gate {
    pause: Option<PauseLeft>,
    max_in_flight: Option<usize>,
    bucket: Option<Bucket>,
    /// Since when messages wait that it holds back, counted up to the last look.
    holding: Option<Instant>,
}

/// How long a pause lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseLeft {
    /// Until somebody ends it.
    Forever,
    /// Until then.
    Until(Instant),
}

/// What a gate keeps to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    pub(super) pause: Option<PauseLeft>,
    pub(super) max_in_flight: Option<u64>,
    /// Messages per second.
    pub(super) per_s: Option<f64>,
}

#[derive(Debug)]
struct Bucket {
    per_s: f64,
    /// The messages that may go out, counted up to `filled`.
    messages: f64,
    filled: Instant,
}

impl Gate {
    /// An open gate.
    pub(super) fn new() -> Gate {
        Gate { pause: None, max_in_flight: None, bucket: None, holding: None }
    }

    /// Keeps to these rules from now on.
    pub(super) fn keep_to(&mut self, rules: &Rules, now: Instant) {
        self.pause = rules.pause;
        self.max_in_flight = rules.max_in_flight.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let before = self.bucket.take();
        self.bucket = rules.per_s.map(|per_s| match before {
            Some(bucket) => bucket.changed_to(per_s, now),
            None => Bucket { per_s, messages: 1.0, filled: now },
        });
    }

    /// Ends the pause if its time is over. Returns whether it ended just now.
    pub(super) fn end_pause(&mut self, now: Instant) -> bool {
        let over = matches!(self.pause, Some(PauseLeft::Until(end)) if end <= now);
        if over {
            self.pause = None;
        }
        over
    }

    /// Whether there is a limit of messages in flight, for which their number must be known.
    pub(super) fn counts_in_flight(&self) -> bool {
        self.max_in_flight.is_some()
    }

    /// How many messages may go out now, with so many in flight.
    pub(super) fn room(&mut self, in_flight: usize, now: Instant) -> usize {
        if self.pause.is_some() {
            return 0;
        }
        let places = self.max_in_flight.map_or(usize::MAX, |most| most.saturating_sub(in_flight));
        self.bucket.as_mut().map_or(places, |bucket| places.min(bucket.fill(now)))
    }

    /// So many messages went out.
    pub(super) fn note_sent(&mut self, messages: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.messages -= messages as f64;
        }
    }

    /// How long it takes until it opens by itself. `None` if it is open, or opens only by news.
    pub(super) fn opens_in(&mut self, now: Instant) -> Option<Duration> {
        match self.pause {
            Some(PauseLeft::Forever) => return None,
            Some(PauseLeft::Until(end)) => return Some(end.saturating_duration_since(now).max(LEAST_WAIT)),
            None => {}
        }
        let bucket = self.bucket.as_mut().filter(|bucket| bucket.messages < 1.0)?;
        bucket.fill(now);
        let seconds = (1.0 - bucket.messages) / bucket.per_s;
        // A rate of a few messages a day makes a number that still is a duration.
        Some(Duration::from_secs_f64(seconds.max(0.0)).max(LEAST_WAIT))
    }

    /// Notes whether it holds back messages that wait. Returns for how long it has done so since the last call.
    pub(super) fn note_holding(&mut self, holds: bool, now: Instant) -> Duration {
        let before = if holds { self.holding.replace(now) } else { self.holding.take() };
        before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before))
    }
}

impl Bucket {
    /// Adds what the time since the last call gives. Returns how many whole messages there are.
    fn fill(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        let most = 1.0 + self.per_s * BURST.as_secs_f64();
        self.messages = (self.messages + passed * self.per_s).min(most);
        self.messages.max(0.0) as usize
    }

    fn changed_to(mut self, per_s: f64, now: Instant) -> Bucket {
        self.fill(now);
        self.per_s = per_s;
        self.fill(now);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate(rules: Rules, now: Instant) -> Gate {
        let mut gate = Gate::new();
        gate.keep_to(&rules, now);
        gate
    }

    fn with_rate(per_s: f64) -> Rules {
        Rules { per_s: Some(per_s), ..Rules::default() }
    }

    #[test]
    fn without_rules_it_is_open() {
        let now = Instant::now();
        let mut gate = Gate::new();
        assert_eq!((gate.room(usize::MAX, now), gate.opens_in(now)), (usize::MAX, None));
        assert!(!gate.counts_in_flight() && !gate.end_pause(now));
    }

    #[test]
    fn a_pause_ends_by_itself_or_by_news() {
        let now = Instant::now();
        let end = now + Duration::from_secs(60);
        let mut gate = gate(Rules { pause: Some(PauseLeft::Until(end)), ..Rules::default() }, now);
        assert_eq!((gate.room(0, now), gate.opens_in(now)), (0, Some(Duration::from_secs(60))));
        let before = end - Duration::from_millis(1);
        assert!(!gate.end_pause(before) && gate.room(0, before) == 0);
        assert!(gate.end_pause(end) && !gate.end_pause(end));
        assert_eq!(gate.room(0, end), usize::MAX);
        gate.keep_to(&Rules { pause: Some(PauseLeft::Forever), ..Rules::default() }, now);
        let much_later = now + Duration::from_secs(1 << 30);
        assert!(gate.room(0, much_later) == 0 && !gate.end_pause(much_later) && gate.opens_in(now).is_none());
        gate.keep_to(&Rules::default(), now);
        assert_eq!(gate.room(0, now), usize::MAX);
    }

    #[test]
    fn no_more_than_the_most_are_in_flight() {
        let now = Instant::now();
        let mut gate = gate(Rules { max_in_flight: Some(3), ..Rules::default() }, now);
        assert!(gate.counts_in_flight());
        assert_eq!([0, 2, 3, 9].map(|in_flight| gate.room(in_flight, now)), [3, 1, 0, 0]);
        assert_eq!(gate.opens_in(now), None, "an answer opens it");
    }

    #[test]
    fn messages_go_out_at_the_rate() {
        let mut now = Instant::now();
        let mut gate = gate(with_rate(10.0), now);
        assert_eq!(gate.room(0, now), 1, "a term begins with one");
        gate.note_sent(1);
        assert_eq!((gate.room(0, now), gate.opens_in(now)), (0, Some(Duration::from_millis(100))));
        now += Duration::from_millis(100);
        assert_eq!(gate.room(0, now), 1);
        now += Duration::from_secs(3_600);
        assert_eq!(gate.room(0, now), 2, "one message, and what 100 ms give");
    }

    #[test]
    fn a_changed_rate_gives_nothing_away() {
        let now = Instant::now();
        let mut gate = gate(with_rate(0.001), now);
        gate.note_sent(1);
        for per_s in [1e9, 0.001, 5.0, 1e9] {
            gate.keep_to(&with_rate(per_s), now);
            assert_eq!(gate.room(0, now), 0);
        }
        let mut full = gate;
        full.room(0, now + Duration::from_secs(1));
        full.keep_to(&with_rate(1.0), now + Duration::from_secs(1));
        assert_eq!(full.room(0, now + Duration::from_secs(1)), 1, "no more than fits now");
    }

    #[test]
    fn the_lowest_rate_is_waited_for_without_overflow() {
        let now = Instant::now();
        let mut gate = gate(with_rate(0.001 / 3_600.0), now);
        gate.note_sent(1);
        assert!(gate.opens_in(now).expect("it opens") > Duration::from_secs(3_000_000));
    }

    #[test]
    fn the_time_of_holding_back_is_counted_once() {
        let mut now = Instant::now();
        let mut gate = Gate::new();
        let mut held = Duration::ZERO;
        for holds in [false, true, true, true, false, false, true, false] {
            held += gate.note_holding(holds, now);
            now += Duration::from_secs(1);
        }
        assert_eq!(held, Duration::from_secs(4));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// A courier that wakes up at any times, and takes what it gets.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_s in prop_oneof![0.01..10.0, 10.0..1_000.0, 1_000.0..1e6],
            waits_us in prop::collection::vec(0_u64..500_000, 1..200),
        ) {
            let begin = Instant::now();
            let mut gate = gate(with_rate(per_s), begin);
            let (mut now, mut sent) = (begin, Vec::new());
            for wait in waits_us {
                now += Duration::from_micros(wait);
                let room = gate.room(0, now);
                gate.note_sent(room);
                sent.push((now, room));
            }
            for first in 0..sent.len() {
                let mut sum = 0;
                for (at, count) in &sent[first..] {
                    sum += count;
                    let most = 1.0 + per_s * (0.1 + (*at - sent[first].0).as_secs_f64());
                    prop_assert!(sum as f64 <= most + 0.001 * most, "{sum} of {most}");
                }
            }
        }

        /// A courier that wakes up within the burst, as it does, and always has messages.
        #[test]
        fn the_rate_is_kept_within_two_percent(
            per_s in prop_oneof![1.0..10.0, 10.0..1_000.0, 1_000.0..1e6],
            late_us in prop::collection::vec(0_u64..50_000, 50),
        ) {
            let begin = Instant::now();
            let mut gate = gate(with_rate(per_s), begin);
            let (mut now, mut sent, mut late) = (begin, 0, late_us.iter().cycle());
            let time = Duration::from_secs_f64((100.0 / per_s).max(5.0));
            while now < begin + time {
                let room = gate.room(0, now);
                gate.note_sent(room);
                sent += room;
                let wait = gate.opens_in(now).expect("it is used up").min(Duration::from_millis(50));
                now += wait + Duration::from_micros(*late.next().expect("it goes round"));
            }
            let expected = per_s * time.as_secs_f64();
            prop_assert!((sent as f64 - expected).abs() <= expected * 0.02 + 2.0, "{sent} of {expected}");
        }

        #[test]
        fn in_flight_never_exceeds_the_most(
            most in 1_u64..50,
            steps in prop::collection::vec((0_usize..60, 0_usize..60), 1..50),
        ) {
            let now = Instant::now();
            let mut gate = gate(Rules { max_in_flight: Some(most), ..Rules::default() }, now);
            let mut in_flight = 0;
            for (wanted, answered) in steps {
                in_flight += wanted.min(gate.room(in_flight, now));
                prop_assert!(in_flight as u64 <= most);
                in_flight -= answered.min(in_flight);
            }
        }
    }
}
