//! A group's settings that operators change while it runs: the pause of its deliveries, and their limits.
//!
//! They are fields of a hash, which `operating` reads and writes. Unknown fields are ignored, and so are values that no
//! tool of ours can have written; the reader is told of the latter. Pure.

use std::time::Duration;

use redis::Value;

use super::value::text;
use crate::base::delivery_rate::DeliveryRate;

/// The fields, in the order in which the scripts give them.
pub(super) const FIELDS: [&str; 5] = ["paused_until", "paused_since", "paused_by", "max_in_flight", "rate"];
/// The most bytes of the name of who paused a group.
pub const MAX_BY_BYTES: usize = 128;
/// More messages in flight than any group has.
pub const MOST_IN_FLIGHT: u64 = 1_000_000_000;

/// What is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSettings {
    /// The pause that goes on.
    pub pause: Option<Pause>,
    /// The most messages that consumers hold together.
    pub max_in_flight: Option<u64>,
    /// The most deliveries in a time.
    pub rate: Option<DeliveryRate>,
}

/// A time in which nothing is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it ends by itself.
    pub until: PauseEnd,
    /// When it began, in milliseconds since 1970 by the clock of Redis, if that is known.
    pub since_ms: Option<u64>,
    /// Who asked for it; may be empty.
    pub by: String,
}

/// When a pause ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseEnd {
    /// Never: somebody must end it.
    Never,
    /// In milliseconds since 1970, by the clock of Redis.
    At(u64),
}

/// What is set, as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsReading {
    /// What is set. A pause that is over is left out.
    pub settings: GroupSettings,
    /// The clock of Redis then, in milliseconds since 1970.
    pub redis_ms: u64,
    /// Fields with values that are ignored.
    pub foreign: Vec<(&'static str, String)>,
}

/// A change of some settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsChange {
    /// Of the pause, if that changes.
    pub pause: Option<PauseChange>,
    /// Of the most messages in flight, if that changes; `None` inside: what the dispatchers have.
    pub max_in_flight: Option<Option<u64>>,
    /// Of the rate, if that changes; `None` inside: what the dispatchers have.
    pub rate: Option<Option<DeliveryRate>>,
}

/// A change of the pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseChange {
    /// It begins, or goes on, for this time from now, or until somebody ends it.
    Pause(Option<Duration>, String),
    /// It ends.
    Resume,
}

impl SettingsReading {
    /// How long the pause lasts after the reading; `None` without a pause, and without an end inside.
    pub fn pause_left(&self) -> Option<Option<Duration>> {
        self.settings.pause.as_ref().map(|pause| match pause.until {
            PauseEnd::Never => None,
            PauseEnd::At(ms) => Some(Duration::from_millis(ms.saturating_sub(self.redis_ms))),
        })
    }

    /// Reads the fields as a script gives them; `None` if that is no such reply.
    pub(super) fn of(redis_ms: u64, fields: &[Value]) -> Option<SettingsReading> {
        let mut foreign = Vec::new();
        let mut held = Vec::with_capacity(FIELDS.len());
        for (name, value) in FIELDS.into_iter().zip(fields) {
            held.push(match value {
                Value::Nil | Value::Boolean(false) => None,
                value => Some((name, text(value).map_or_else(|| format!("{value:?}"), str::to_owned))),
            });
        }
        let [end, since, by, max_in_flight, rate] = <[_; 5]>::try_from(held).ok()?;
        let settings = GroupSettings {
            pause: read(end, &mut foreign, end_in).map(|until| Pause {
                until,
                since_ms: read(since, &mut foreign, millis_in),
                by: read(by, &mut foreign, |by| (by.len() <= MAX_BY_BYTES).then(|| by.to_owned())).unwrap_or_default(),
            }),
            max_in_flight: read(max_in_flight, &mut foreign, |text| {
                millis_in(text).filter(|most| (1..=MOST_IN_FLIGHT).contains(most))
            }),
            rate: read(rate, &mut foreign, |text| text.parse().ok()),
        };
        let goes_on = |pause: &Pause| match pause.until {
            PauseEnd::Never => true,
            PauseEnd::At(ms) => ms > redis_ms,
        };
        let settings = GroupSettings { pause: settings.pause.filter(goes_on), ..settings };
        Some(SettingsReading { settings, redis_ms, foreign })
    }
}

/// The value of a field; one that can't be read is noted.
fn read<T>(
    field: Option<(&'static str, String)>,
    foreign: &mut Vec<(&'static str, String)>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let (name, text) = field?;
    let value = parse(&text);
    if value.is_none() {
        foreign.push((name, text));
    }
    value
}

fn end_in(text: &str) -> Option<PauseEnd> {
    if text == "forever" { Some(PauseEnd::Never) } else { millis_in(text).map(PauseEnd::At) }
}

/// A whole number that is written as ours are.
fn millis_in(text: &str) -> Option<u64> {
    /// Millions of years.
    const MAX_DIGITS: usize = 16;
    let plain = text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: [Option<&str>; 5]) -> SettingsReading {
        let value = |field: Option<&str>| field.map_or(Value::Nil, |text| Value::BulkString(text.into()));
        SettingsReading::of(1_000, &fields.map(value)).expect("five fields")
    }

    #[test]
    fn what_is_set_is_read() {
        assert_eq!(of([None; 5]), SettingsReading { redis_ms: 1_000, ..SettingsReading::default() });
        let reading = of([Some("forever"), Some("900"), Some("me"), Some("17"), Some("2.5/m")]);
        let pause = Pause { until: PauseEnd::Never, since_ms: Some(900), by: "me".to_owned() };
        let rate = Some("2.5/m".parse().expect("a rate"));
        assert_eq!(reading.settings, GroupSettings { pause: Some(pause), max_in_flight: Some(17), rate });
        assert_eq!((reading.pause_left(), reading.foreign), (Some(None), Vec::new()));
        let left = |until| of([Some(until), None, None, None, None]).pause_left();
        assert_eq!(left("1500"), Some(Some(Duration::from_millis(500))));
        assert_eq!([left("1000"), left("999"), left("0")], [None; 3], "it is over");
    }

    #[test]
    fn foreign_values_are_ignored_and_named() {
        let long = "x".repeat(MAX_BY_BYTES + 1);
        let reading = of([Some("forever"), Some("-1"), Some(&long), Some("0"), Some("fast")]);
        let pause = Pause { until: PauseEnd::Never, since_ms: None, by: String::new() };
        assert_eq!(reading.settings, GroupSettings { pause: Some(pause), ..GroupSettings::default() });
        let named: Vec<_> = reading.foreign.iter().map(|(field, _)| *field).collect();
        assert_eq!(named, ["paused_since", "paused_by", "max_in_flight", "rate"]);
        for until in ["", "soon", "-5", "+5", "1.5", "99999999999999999999"] {
            assert_eq!(of([Some(until), None, None, None, None]).foreign, [("paused_until", until.to_owned())]);
        }
        assert_eq!(SettingsReading::of(1, &[Value::Nil]), None);
    }
}
