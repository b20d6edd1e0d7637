//! When a message that failed is delivered again: the setting `--retry` of a dispatcher and of a consumer.
//!
//! Pure. A wait depends on the number of the next delivery and on jitter. It is never shorter than the policy says, and
//! up to a quarter longer, so that messages that failed together are not all redelivered together. So the stated time
//! until a dead letter is a lower bound: [`RetryPolicy::dead_after`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::base::duration::{self, ShownDuration};

/// The longest jitter, as a fraction of the wait.
pub const MOST_JITTER: f64 = 0.25;
/// The longest wait that can be configured.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// The shortest wait that can be configured, other than none.
const SHORTEST: Duration = Duration::from_millis(1);
/// The largest factor.
const MOST_FACTOR: f64 = 100.0;

/// The waits before the second delivery of a message and those after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RetryPolicy {
    /// None: a message is redelivered at once.
    None,
    /// Always the same wait.
    Fixed(Duration),
    /// Each wait is `factor` times the one before, from `first` up to `most`.
    Exponential {
        /// The wait before the second delivery.
        first: Duration,
        /// The longest.
        most: Duration,
        /// At least 1.
        factor: f64,
    },
}

/// The error for an invalid policy. It names the valid forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoPolicy(&'static str);

const FORMS: NoPolicy =
    NoPolicy("exponential:FIRST..MOST*FACTOR such as exponential:200ms..5m*4, fixed:WAIT such as fixed:5s, or none");
const WAIT: NoPolicy = NoPolicy("waits from 1ms to 24h, each with its unit, such as 200ms, 5s or 5m");
const ORDER: NoPolicy = NoPolicy("a first wait that is not longer than the longest, such as exponential:200ms..5m*4");
const FACTOR: NoPolicy = NoPolicy("a factor from 1 to 100 after the *, such as 2 or 1.5");

impl RetryPolicy {
    /// The wait before the delivery with this number, without jitter.
    pub fn wait(self, delivery: u16) -> Duration {
        match self {
            RetryPolicy::None => Duration::ZERO,
            RetryPolicy::Fixed(wait) => wait,
            RetryPolicy::Exponential { first, most, factor } => {
                // A power that overflows is infinite, and `min` then selects the longest wait.
                let grown = first.as_secs_f64() * factor.powi(i32::from(delivery.saturating_sub(2)));
                if grown < most.as_secs_f64() { Duration::from_secs_f64(grown) } else { most }
            }
        }
    }

    /// The same with jitter. `chance` is between 0 and 1.
    pub fn wait_with_jitter(self, delivery: u16, chance: f64) -> Duration {
        self.wait(delivery).mul_f64(1.0 + MOST_JITTER * chance.clamp(0.0, 1.0))
    }

    /// The least total wait of a message until its last delivery, if each delivery fails at once.
    pub fn dead_after(self, max_deliveries: u32) -> Duration {
        let last = u16::try_from(max_deliveries).unwrap_or(u16::MAX);
        (2..=last).map(|delivery| self.wait(delivery)).sum()
    }
}

impl FromStr for RetryPolicy {
    type Err = NoPolicy;

    fn from_str(text: &str) -> Result<RetryPolicy, NoPolicy> {
        if text == "none" {
            return Ok(RetryPolicy::None);
        }
        match text.split_once(':').ok_or(FORMS)? {
            ("fixed", wait) => Ok(RetryPolicy::Fixed(wait_of(wait)?)),
            ("exponential", waits) => {
                let (first, rest) = waits.split_once("..").ok_or(FORMS)?;
                let (most, factor) = rest.split_once('*').ok_or(FORMS)?;
                let (first, most) = (wait_of(first)?, wait_of(most)?);
                if first > most {
                    return Err(ORDER);
                }
                // No signs, no exponents, no `inf`.
                let plain = factor.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let factor = factor.parse::<f64>().ok().filter(|factor| (1.0..=MOST_FACTOR).contains(factor) && plain);
                Ok(RetryPolicy::Exponential { first, most, factor: factor.ok_or(FACTOR)? })
            }
            _ => Err(FORMS),
        }
    }
}

/// The unit is required, because a bare number could be taken for milliseconds.
fn wait_of(text: &str) -> Result<Duration, NoPolicy> {
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    duration::parse(text).filter(|wait| has_unit && (SHORTEST..=LONGEST).contains(wait)).ok_or(WAIT)
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryPolicy::None => f.write_str("none"),
            RetryPolicy::Fixed(wait) => write!(f, "fixed:{}", ShownDuration(*wait)),
            RetryPolicy::Exponential { first, most, factor } => {
                write!(f, "exponential:{}..{}*{factor}", ShownDuration(*first), ShownDuration(*most))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        let wait = || (1_u64..=86_400_000).prop_map(Duration::from_millis);
        prop_oneof![
            Just(RetryPolicy::None),
            wait().prop_map(RetryPolicy::Fixed),
            (wait(), wait(), 100_u32..=10_000).prop_map(|(one, other, hundredths)| RetryPolicy::Exponential {
                first: one.min(other),
                most: one.max(other),
                factor: f64::from(hundredths) / 100.0,
            }),
        ]
    }

    fn bounds(policy: RetryPolicy) -> (Duration, Duration) {
        match policy {
            RetryPolicy::None => (Duration::ZERO, Duration::ZERO),
            RetryPolicy::Fixed(wait) => (wait, wait),
            RetryPolicy::Exponential { first, most, .. } => (first, most),
        }
    }

    proptest! {
        #[test]
        fn waits_never_become_shorter_and_keep_to_their_bounds(policy in policy(), delivery in 2_u16..=u16::MAX) {
            let (first, most) = bounds(policy);
            prop_assert_eq!(policy.wait(2), first);
            let wait = policy.wait(delivery);
            prop_assert!(first <= wait && wait <= most);
            prop_assert!(wait <= policy.wait(delivery.saturating_add(1)));
        }

        #[test]
        fn jitter_only_lengthens_and_by_a_quarter_at_most(
            policy in policy(), delivery in any::<u16>(), chance in -1.0..2.0,
        ) {
            let (wait, jittered) = (policy.wait(delivery), policy.wait_with_jitter(delivery, chance));
            prop_assert!(wait <= jittered && jittered <= wait.mul_f64(1.0 + MOST_JITTER));
        }

        #[test]
        fn no_message_dies_before_the_time_that_is_stated(
            policy in policy(), deliveries in 1_u32..=100, chances in prop::collection::vec(0.0..1.0, 100),
        ) {
            let waits = (2..=deliveries).zip(chances);
            let lived: Duration = waits.map(|(number, chance)| policy.wait_with_jitter(number as u16, chance)).sum();
            let stated = policy.dead_after(deliveries);
            prop_assert!(stated <= lived && lived <= stated.mul_f64(1.0 + MOST_JITTER) + Duration::from_micros(1));
        }

        #[test]
        fn displayed_policies_read_back(policy in policy()) {
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(exponential|fixed|none)?:?[0-9.a-z*]{0,12}(\\.\\.)?[0-9.a-z*]{0,12}") {
            if let Ok(policy) = text.parse::<RetryPolicy>() {
                let (first, most) = bounds(policy);
                prop_assert!(first <= most && most <= LONGEST);
                policy.dead_after(10_000);
            }
        }
    }

    #[test]
    fn the_default_lasts_about_ten_minutes() {
        let policy: RetryPolicy = "exponential:200ms..5m*4".parse().expect("the default");
        let ms = (2..=8).map(|delivery| policy.wait(delivery).as_millis()).collect::<Vec<_>>();
        assert_eq!(ms, [200, 800, 3_200, 12_800, 51_200, 204_800, 300_000]);
        assert_eq!(policy.dead_after(8), Duration::from_secs(573));
        assert_eq!((policy.dead_after(1), RetryPolicy::None.dead_after(8)), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn errors_for_invalid_policies_name_the_valid_forms() {
        for (texts, expected) in [
            (&["", "None", "none:", "5s", "linear:1s", "fixed", "exponential:1s..2s", "exponential:1s*2"][..], FORMS),
            (&["fixed:", "fixed:5", "fixed:0s", "fixed:1us", "fixed:25h", "fixed: 5s", "exponential:1..2m*2"], WAIT),
            (&["exponential:5m..200ms*4"], ORDER),
            (
                &["exponential:1s..2s*", "exponential:1s..2s*0.9", "exponential:1s..2s*101", "exponential:1s..2s*1e1"],
                FACTOR,
            ),
            (&["exponential:1s..2s*+2", "exponential:1s..2s*inf", "exponential:1s..2s*2*2"], FACTOR),
        ] {
            for text in texts {
                assert_eq!(text.parse::<RetryPolicy>(), Err(expected), "{text}");
            }
        }
    }
}
