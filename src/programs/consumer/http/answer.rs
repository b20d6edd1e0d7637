//! What an answer of the HTTP server means for the message. Pure.
//!
//! | status | message |
//! |---|---|
//! | 2xx | done: a JSON object becomes fields, any other body the field `body`, an empty one nothing |
//! | 429, 503 with `Retry-After` | again after that time |
//! | 408, 425, 429, 5xx | again, by backoff |
//! | 3xx, 1xx and what is not in HTTP | again, by backoff: a redirect is not followed, and a setting is wrong |
//! | other 4xx | rejected |

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, StatusCode, header};

use super::super::fields::outcome_of_object;
use crate::base::text::{Escaped, beginning};
use crate::consumer::{HandlerError, Outcome};

/// The most bytes of a body that a reason repeats.
const MAX_SHOWN_BYTES: usize = 1_024;
/// The field for a body that is not a JSON object.
const BODY: &str = "body";

/// The outcome of a request that was answered. `body` is the whole body of a 2xx, or the beginning of any other.
pub(super) fn verdict(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<Outcome, HandlerError> {
    if status.is_success() {
        let whole = || if body.is_empty() { Outcome::new() } else { Outcome::new().field(BODY, body) };
        return Ok(outcome_of_object(body).unwrap_or_else(whole));
    }
    let reason = format!("HTTP {status}{}", shown(body));
    Err(match status.as_u16() {
        429 | 503 => match headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.as_bytes(), now)) {
            Some(delay) => HandlerError::retry_after(delay, reason),
            None => HandlerError::retry(reason),
        },
        408 | 425 => HandlerError::retry(reason),
        300..=399 => HandlerError::retry(redirect(status, headers)),
        400..=499 => HandlerError::reject(reason),
        _ => HandlerError::retry(reason),
    })
}

/// The beginning of a body, made harmless, as the end of a sentence.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN_BYTES)]);
    let text = Escaped(text.trim()).to_string();
    if text.is_empty() { String::new() } else { format!(": {}", beginning(&text, MAX_SHOWN_BYTES)) }
}

fn redirect(status: StatusCode, headers: &HeaderMap) -> String {
    let to = headers.get(header::LOCATION).map_or_else(String::new, |location| {
        format!(" to {}", Escaped(beginning(&String::from_utf8_lossy(location.as_bytes()), MAX_SHOWN_BYTES)))
    });
    format!("HTTP {status}: a redirect{to}, which is not followed; --url / ONCECAST_URL must name the final place")
}

/// How long the server asks to wait, if it does: whole seconds or a date (RFC 9110, section 10.2.3). A time that is
/// over says nothing.
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let delay = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_date(text)?.duration_since(now).ok()?,
    };
    Some(delay).filter(|delay| !delay.is_zero())
}

/// A date such as `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers must send (RFC 9110, section 5.6.7).
fn parse_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let number = |text: &str, digits: usize, most: u64| {
        let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u64>().ok())?.filter(|number| *number <= most)
    };
    let (day, year) = (number(day, 2, 31)?, number(year, 4, 9_999).filter(|year| *year >= 1970)?);
    // 60 is a leap second.
    let (hour, minute, second) = (number(hour, 2, 23)?, number(minute, 2, 59)?, number(second, 2, 60)?);
    let seconds = days_before(year, month) + day.checked_sub(1)?;
    let seconds = ((seconds * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The days from 1970 to the first of this month.
fn days_before(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let in_year: u64 = lengths[..month as usize - 1].iter().sum();
    (year - 1970) * 365 + leaps_before(year) - leaps_before(1970) + in_year
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &[u8]) -> Result<Outcome, HandlerError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().expect("a value"));
        }
        verdict(StatusCode::from_u16(status).expect("a status"), &headers, body, at(784_111_777))
    }

    #[test]
    fn a_success_becomes_fields() {
        assert_eq!(answer(200, None, b" {\"a\":1,\"b\":null} "), Ok(Outcome::new().field("a", "1")));
        assert_eq!(answer(201, None, b"done"), Ok(Outcome::new().field("body", "done")));
        assert_eq!(answer(200, None, b"[1]"), Ok(Outcome::new().field("body", "[1]")));
        assert_eq!(answer(200, None, b"\0\xff{"), Ok(Outcome::new().field("body", b"\0\xff{")));
        for empty in [answer(204, None, b""), answer(200, None, b""), answer(200, None, b"{}")] {
            assert_eq!(empty, Ok(Outcome::new()));
        }
    }

    #[test]
    fn each_class_of_status_has_its_consequence() {
        for status in [400, 401, 403, 404, 405, 410, 413, 422, 426, 431, 499] {
            assert!(answer(status, Some("5"), b"no").expect_err("an error").is_reject(), "{status}");
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 599, 101, 300, 304, 307, 600] {
            let error = answer(status, None, b"later").expect_err("an error");
            assert!(error.to_string().starts_with(&format!("retry: HTTP {status}")), "{error}");
        }
        for status in [429, 503] {
            let error = answer(status, Some("7"), b"").expect_err("an error");
            assert!(error.to_string().starts_with(&format!("retry after 7000 ms: HTTP {status} ")), "{error}");
        }
        let elsewhere = answer(500, Some("7"), b"").expect_err("an error");
        assert_eq!(elsewhere, HandlerError::retry("HTTP 500 Internal Server Error"));
    }

    #[test]
    fn retry_after_may_be_a_date() {
        let delay = |text: &str| answer(503, Some(text), b"").expect_err("an error").to_string();
        assert!(delay("Sun, 06 Nov 1994 08:50:07 GMT").starts_with("retry after 30000 ms"));
        assert!(delay("Thu, 06 Nov 3094 08:50:07 GMT").starts_with("retry after 4294967294 ms"), "the most");
        assert!(delay("18446744073709551615").starts_with("retry after 4294967294 ms"), "the most");
        let none = [
            "0",
            "-1",
            "1.5",
            "soon",
            "",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1993 08:49:37 GMT",
            "Sun, 00 Nov 1995 08:49:37 GMT",
            "Sun, 06 Nov 1995 24:49:37 GMT",
            "Sun, 06 nov 1995 08:49:37 GMT",
            "Sunday, 06-Nov-95 08:49:37 GMT",
            "Sun, 06 Nov 1995 08:49:37 CET",
            "18446744073709551616",
        ];
        for text in none {
            assert!(delay(text).starts_with("retry: HTTP 503"), "{text}: {}", delay(text));
        }
    }

    #[test]
    fn dates_are_counted_with_leap_years() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(parse_date(text), Some(at(seconds)), "{text}");
        }
    }

    #[test]
    fn a_reason_repeats_the_beginning_of_the_body_harmlessly() {
        let reason = |body: &[u8]| answer(404, None, body).expect_err("an error").reason().to_owned();
        assert_eq!(
            reason(b"  no such\norder \x1b[31m\xff\n"),
            "HTTP 404 Not Found: no such\\norder \\u{1b}[31m\u{fffd}"
        );
        assert_eq!(reason(b""), "HTTP 404 Not Found");
        for byte in [b'x', 0, 0xff] {
            let reason = reason(&vec![byte; 100_000]);
            assert!((1_000..1_100).contains(&reason.len()), "{}", reason.len());
        }
    }

    #[test]
    fn a_redirect_names_its_place() {
        let mut headers = HeaderMap::new();
        headers.insert("location", "https://h/other".parse().expect("a value"));
        let error = verdict(StatusCode::FOUND, &headers, b"", at(0)).expect_err("an error");
        assert!(error.reason().starts_with("HTTP 302 Found: a redirect to https://h/other, which"), "{error}");
        assert!(!error.is_reject());
    }
}
