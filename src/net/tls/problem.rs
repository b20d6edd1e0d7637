//! Sorts the failures of rustls into what an operator can do something about. Pure.

use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use crate::base::tls::TlsProblem;

/// The failure as an error of a stream. `first` is what the peer sent first, and `trusted` where the authorities are
/// from.
pub(super) fn failed(error: Error, first: &[u8], trusted: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, sorted(error, first, trusted))
}

fn sorted(error: Error, first: &[u8], trusted: &str) -> TlsProblem {
    match error {
        // Anything that does not begin as a record of TLS: an error of Redis, or HTTP.
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
            if !begins_as_tls(first) =>
        {
            TlsProblem::NotTls
        }
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) if !begins_as_tls(first) => TlsProblem::NotTls,
        Error::InvalidCertificate(why) => bad_certificate(why, trusted),
        Error::NoCertificatesPresented => TlsProblem::NoCertificate,
        Error::AlertReceived(alert) => refused(alert),
        Error::PeerIncompatible(what) => TlsProblem::NothingInCommon(format!("{what:?}")),
        other => TlsProblem::Other(other.to_string()),
    }
}

/// Whether these bytes are the beginning of a record: its type (20 to 24) and the version's first byte.
pub(super) fn begins_as_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [] | [20..=24]) || matches!(bytes, [20..=24, 3, ..])
}

fn bad_certificate(why: CertificateError, trusted: &str) -> TlsProblem {
    let apart =
        |later: UnixTime, earlier: UnixTime| Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()));
    match why {
        CertificateError::ExpiredContext { time, not_after } => TlsProblem::Expired(apart(time, not_after)),
        CertificateError::NotValidYetContext { time, not_before } => TlsProblem::NotYetValid(apart(not_before, time)),
        CertificateError::UnknownIssuer => TlsProblem::UnknownAuthority { trusted: trusted.to_owned() },
        CertificateError::NotValidForNameContext { expected, presented } => {
            let found = presented.iter().map(|name| plain_name(name)).collect();
            TlsProblem::WrongName { wanted: expected.to_str().into_owned(), found }
        }
        CertificateError::Other(OtherError(inner)) if inner.to_string().contains("CaUsedAsEndEntity") => {
            TlsProblem::BadCertificate(
                "it is that of an authority itself; make one for the server, signed by that authority".to_owned(),
            )
        }
        other => TlsProblem::BadCertificate(other.to_string()),
    }
}

/// `DnsName("redis")` as `redis`.
fn plain_name(shown: &str) -> String {
    let inner = shown.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')')).unwrap_or(shown);
    inner.trim_matches('"').to_owned()
}

/// The peer's last word.
fn refused(alert: AlertDescription) -> TlsProblem {
    let said = |text: &str| TlsProblem::CertificateRefused(text.to_owned());
    match alert {
        AlertDescription::CertificateRequired => TlsProblem::CertificateRequired,
        AlertDescription::UnknownCA => said("it does not know its authority"),
        AlertDescription::CertificateExpired => said("it has expired"),
        AlertDescription::CertificateRevoked => said("it was revoked"),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => said("it can't be used"),
        AlertDescription::UnsupportedCertificate => said("it is of a kind that can't be used"),
        AlertDescription::AccessDenied => said("access denied"),
        // Before TLS 1.3 there was no alert for a missing certificate.
        AlertDescription::HandshakeFailure => TlsProblem::NothingInCommon(
            "the peer says handshake_failure, which before TLS 1.3 may also mean that it requires a certificate"
                .to_owned(),
        ),
        AlertDescription::ProtocolVersion => TlsProblem::NothingInCommon("the peer says protocol_version".to_owned()),
        other => TlsProblem::Other(format!("the peer says {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tls_is_known_by_its_first_bytes() {
        for plain in [&b"-ERR unknown command"[..], b"HTTP/1.1 400", b"\0\0", b"\x16\x01"] {
            assert!(!begins_as_tls(plain), "{plain:?}");
            let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
            assert_eq!(sorted(error, plain, ""), TlsProblem::NotTls);
        }
        for tls in [&b""[..], b"\x16", b"\x15\x03\x03"] {
            assert!(begins_as_tls(tls), "{tls:?}");
        }
    }

    #[test]
    fn names_are_shown_plainly() {
        assert_eq!(plain_name("DnsName(\"redis\")"), "redis");
        assert_eq!(plain_name("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(plain_name("redis"), "redis");
    }
}
