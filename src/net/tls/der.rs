//! Reads from a certificate (RFC 5280, in DER) when it ends. Pure, total. Everything else is left to rustls.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time at which a certificate ends, in seconds since 1970; `None` if it can't be read.
pub fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // The serial number, the algorithm of the signature, and the issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else { return None };
    let (_, _, end) = element(validity)?;
    let (kind, time, _) = element(end)?;
    seconds(kind, std::str::from_utf8(time).ok()?)
}

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A number of bytes with the length.
        0x81..=0x84 => {
            let (number, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (number.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn seconds(kind: u8, time: &str) -> Option<u64> {
    let (year, rest) = match kind {
        UTC_TIME => {
            let year: i64 = time.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, time.get(2..)?)
        }
        GENERALIZED_TIME => (time.get(..4)?.parse().ok()?, time.get(4..)?),
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let [month, day, hour, minute, second] = [number(0)?, number(2)?, number(4)?, number(6)?, number(8)?];
    let plausible = (1..=12).contains(&month) && (1..=31).contains(&day) && rest.get(10..) == Some("Z");
    let total = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    u64::try_from(total).ok().filter(|_| plausible)
}

/// Days since 1970-01-01, by the Gregorian calendar. A year begins in March here, so that leap days are at its end.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 719_469
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, month, day) in [(1999, 12, 31), (2024, 2, 29), (2049, 12, 31), (2050, 1, 1), (2999, 3, 1)] {
            let mut params = CertificateParams::new(vec!["host".to_owned()]).expect("a name");
            params.not_after = date_time_ymd(year, month, day);
            let expected = params.not_after.unix_timestamp();
            let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
            assert_eq!(not_after(certificate.der()), u64::try_from(expected).ok(), "{year}-{month}-{day}");
            for length in 0..certificate.der().len() {
                // Whatever comes of a part, it is no panic.
                let _ = not_after(&certificate.der()[..length]);
            }
        }
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "701301000000Z"), None);
    }
}
