//! What to do about a link whose TLS handshake failed. Pure.

use std::io;

use crate::base::tls::TlsProblem;

/// The failure, with the setting that may be wrong.
pub(super) fn with_hint(error: io::Error) -> io::Error {
    let hint = TlsProblem::of(&error).and_then(|problem| match problem {
        TlsProblem::NotTls | TlsProblem::Closed => {
            Some("if the consumer has no TLS (--tls-cert), its address must begin with ws://")
        }
        TlsProblem::UnknownAuthority { .. } => {
            Some("the file that --tls-ca names must have the authority that signed the consumer's certificate")
        }
        TlsProblem::Expired(_) | TlsProblem::NotYetValid(_) => {
            Some("renew the consumer's certificate, or correct the clock of this machine")
        }
        TlsProblem::WrongName { .. } => {
            Some("write a name of the certificate into --consumers, or make a certificate with this one")
        }
        TlsProblem::CertificateRequired | TlsProblem::CertificateRefused(_) => {
            Some("--tls-cert and --tls-key must name a certificate that the consumer's --tls-client-ca accepts")
        }
        _ => None,
    });
    match hint {
        Some(hint) => io::Error::new(error.kind(), format!("{error} ({hint})")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_tls_names_the_setting() {
        let shown = |problem| with_hint(io::Error::other(problem)).to_string();
        let unknown = TlsProblem::UnknownAuthority { trusted: "ca.pem".to_owned() };
        for (problem, setting) in [
            (TlsProblem::NotTls, "ws://"),
            (unknown, "--tls-ca"),
            (TlsProblem::Expired(Default::default()), "renew"),
            (TlsProblem::WrongName { wanted: "c0".to_owned(), found: Vec::new() }, "--consumers"),
            (TlsProblem::CertificateRequired, "--tls-cert"),
            (TlsProblem::CertificateRefused("it has expired".to_owned()), "--tls-client-ca"),
        ] {
            let (plain, text) = (problem.to_string(), shown(problem));
            assert!(text.starts_with(&plain) && text.contains(setting), "{text}");
        }
        assert_eq!(with_hint(io::Error::other("another")).to_string(), "another");
    }
}
