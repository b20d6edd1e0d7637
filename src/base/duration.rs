//! Durations as people write them: a number and a unit, such as `500ms`, `30s`, `2m` or `1.5h`.

use std::fmt;
use std::time::Duration;

const UNITS: [(&str, f64); 4] = [("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)];

/// Parses a duration; a bare number means seconds. `None` if the text is invalid or the duration is zero.
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "s" } else { unit };
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let duration = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()?;
    (!duration.is_zero()).then_some(duration)
}

/// Displays a duration with the largest unit in which it is a whole number, down to milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct ShownDuration(pub Duration);

impl fmt::Display for ShownDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_durations_read_back() {
        for text in ["1ms", "200ms", "1500ms", "5s", "90s", "5m", "24h"] {
            assert_eq!(ShownDuration(parse(text).expect(text)).to_string(), text);
        }
        assert_eq!(parse("0.5m"), parse("30"));
    }

    #[test]
    fn invalid_durations_are_refused() {
        for text in ["", "s", "0s", "-1s", "+1s", "1 s", "1S", "1.2.3s", "1e3s", "5 years", "nan", "inf"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
