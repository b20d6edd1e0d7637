//! Why TLS failed, and what to do about it, in words. Pure. It knows nothing of the implementation, so that other rooms
//! can sort failures by it.

use std::fmt;
use std::io;
use std::time::Duration;

/// What is wrong. Displayed as a sentence about the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// The peer answers something else.
    NotTls,
    /// The peer did not complete the handshake in time.
    Slow,
    /// The peer closed the connection in the middle of the handshake.
    Closed,
    /// None of the authorities that are trusted here signed the peer's certificate.
    UnknownAuthority {
        /// Where the authorities are from.
        trusted: String,
    },
    /// The peer's certificate is no longer valid, for this long.
    Expired(Duration),
    /// The peer's certificate is not valid yet, for this long.
    NotYetValid(Duration),
    /// The peer's certificate names others.
    WrongName {
        /// The name of the peer.
        wanted: String,
        /// The names in the certificate.
        found: Vec<String>,
    },
    /// The peer's certificate can't be used for another reason.
    BadCertificate(String),
    /// The peer has shown no certificate, and one is required here.
    NoCertificate,
    /// The peer wants a certificate and was shown none.
    CertificateRequired,
    /// The peer refuses the certificate that it was shown, with this alert.
    CertificateRefused(String),
    /// The two have no version or cipher in common.
    NothingInCommon(String),
    /// Anything else.
    Other(String),
}

impl TlsProblem {
    /// The problem in an error of a stream, if it is one of TLS.
    pub fn of(error: &io::Error) -> Option<&TlsProblem> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsProblem::NotTls => f.write_str("it speaks no TLS on this port"),
            TlsProblem::Slow => f.write_str("it did not complete the TLS handshake in time"),
            TlsProblem::Closed => f.write_str("it closed the connection during the TLS handshake"),
            TlsProblem::UnknownAuthority { trusted } => {
                write!(f, "its certificate was not signed by an authority in {trusted}")
            }
            TlsProblem::Expired(since) => write!(f, "its certificate expired {} ago", Long(*since)),
            TlsProblem::NotYetValid(until) => write!(f, "its certificate becomes valid in {}", Long(*until)),
            TlsProblem::WrongName { wanted, found } if found.is_empty() => {
                write!(f, "its certificate is not for {wanted}, and names no host")
            }
            TlsProblem::WrongName { wanted, found } => {
                write!(f, "its certificate is not for {wanted}, but for {}", found.join(", "))
            }
            TlsProblem::BadCertificate(why) => write!(f, "its certificate can't be used: {why}"),
            TlsProblem::NoCertificate => f.write_str("it showed no certificate, and one is required here"),
            TlsProblem::CertificateRequired => f.write_str("it requires a certificate from us"),
            TlsProblem::CertificateRefused(alert) => write!(f, "it refuses our certificate: {alert}"),
            TlsProblem::NothingInCommon(what) => write!(f, "no TLS version or cipher in common: {what}"),
            TlsProblem::Other(what) => write!(f, "TLS failed: {what}"),
        }
    }
}

impl std::error::Error for TlsProblem {}

/// What the settings for TLS to a Redis server are called where they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The file with the authorities.
    pub authorities: &'static str,
    /// Certificate and key.
    pub certificate: &'static str,
}

/// What to do about a failure of TLS to Redis. The texts in it name settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsHint {
    /// The server speaks no TLS.
    NoTls(&'static str),
    /// The TLS handshake was not answered.
    SilentTls(&'static str),
    /// Nobody trusted here signed the server's certificate.
    Authority(TlsSettings),
    /// The server's certificate is too old or too new.
    CertificateTime,
    /// The server's certificate is for other names.
    CertificateName(&'static str),
    /// The server wants a certificate, or another one.
    ClientCertificate(TlsSettings),
}

impl fmt::Display for TlsHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsHint::NoTls(setting) => {
                write!(f, "use the port that has TLS, or redis:// in {setting} if there is none")
            }
            TlsHint::SilentTls(setting) => write!(
                f,
                "is the server hung or far away, or does another service listen there? the address is {setting}"
            ),
            TlsHint::Authority(settings) => write!(
                f,
                "the file that {} names must have the certificate of the authority that signed the server's",
                settings.authorities
            ),
            TlsHint::CertificateTime => {
                f.write_str("renew the server's certificate, unless this machine's clock is wrong")
            }
            TlsHint::CertificateName(setting) => {
                write!(f, "name the server in {setting} as in its certificate, or add that name to the certificate")
            }
            TlsHint::ClientCertificate(settings) => write!(
                f,
                "{} must name a certificate that an authority of the server has signed, and its key",
                settings.certificate
            ),
        }
    }
}

/// A time in its largest whole unit.
struct Long(Duration);

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0..60 => (seconds, "second"),
            60..3_600 => (seconds / 60, "minute"),
            3_600..86_400 => (seconds / 3_600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_their_largest_unit() {
        for (seconds, shown) in [(1, "1 second"), (90, "1 minute"), (7_200, "2 hours"), (200_000, "2 days")] {
            let problem = TlsProblem::Expired(Duration::from_secs(seconds));
            assert_eq!(problem.to_string(), format!("its certificate expired {shown} ago"));
        }
    }

    #[test]
    fn it_is_found_in_an_error_of_a_stream() {
        let error = io::Error::new(io::ErrorKind::TimedOut, TlsProblem::Slow);
        assert_eq!(TlsProblem::of(&error), Some(&TlsProblem::Slow));
        assert_eq!(TlsProblem::of(&io::ErrorKind::TimedOut.into()), None);
    }
}
