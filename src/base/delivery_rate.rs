//! A rate of deliveries as people write it: a number and the time that it is for, such as `100/s`, `2.5/m` or `30/h`.

use std::fmt;
use std::str::FromStr;

/// What a rate must look like, for error messages.
pub const RATE_FORM: &str = "a number of deliveries per second, minute or hour, such as 100/s, 2.5/m or 30/h, from \
                             0.001 to 1000000000";

/// The time that a number is for, with its seconds.
const UNITS: [(&str, f64); 3] = [("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
/// Longer texts are no rate.
const MAX_BYTES: usize = 24;
/// The numbers that are taken.
const NUMBERS: std::ops::RangeInclusive<f64> = 0.001..=1e9;

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliveryRate {
    number: f64,
    /// The place of its unit in [`UNITS`].
    unit: usize,
}

impl DeliveryRate {
    /// Deliveries per second.
    pub fn per_s(self) -> f64 {
        self.number / UNITS[self.unit].1
    }
}

impl FromStr for DeliveryRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<DeliveryRate, &'static str> {
        let (number, unit) = text.split_once('/').filter(|_| text.len() <= MAX_BYTES).ok_or(RATE_FORM)?;
        let unit = UNITS.iter().position(|(name, _)| *name == unit).ok_or(RATE_FORM)?;
        let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = number.parse().ok().filter(|_| plain).ok_or(RATE_FORM)?;
        if NUMBERS.contains(&number) { Ok(DeliveryRate { number, unit }) } else { Err(RATE_FORM) }
    }
}

impl fmt::Display for DeliveryRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, UNITS[self.unit].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displayed_rate_reads_back() {
        for (text, per_s) in [("100/s", 100.0), ("1.5/s", 1.5), ("90/m", 1.5), ("1800/h", 0.5), ("1000000000/s", 1e9)] {
            let rate: DeliveryRate = text.parse().expect(text);
            assert_eq!((rate.to_string().as_str(), rate.per_s()), (text, per_s));
        }
        assert_eq!("007.50/m".parse::<DeliveryRate>().map(|rate| rate.to_string()), Ok("7.5/m".to_owned()));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let long = format!("{}/s", "1".repeat(30));
        for text in
            ["", "5", "/s", "0/s", "-1/s", "+1/s", "1e3/s", "nan/s", "inf/s", "5/d", "5/S", "5 /s", "5/s/s", "0.0001/h"]
        {
            assert!(text.parse::<DeliveryRate>().is_err(), "{text}");
        }
        assert!(long.parse::<DeliveryRate>().is_err() && "2000000000/s".parse::<DeliveryRate>().is_err());
    }
}
