//! TLS to a Redis server: the handshake of a new connection, and what to do if it fails.
//!
//! Runs on the thread that connects. A Redis without TLS does not answer a handshake, since it waits for the end of a
//! line that it never sees. So if the first handshake with a server is not answered, one more connection asks for a
//! PONG without TLS, and without a password. Once a server has spoken TLS this is not done again.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::hint::{Hint, UrlSetting};
use crate::base::tls::{TlsHint, TlsProblem, TlsSettings};
use crate::net::{self, Address, ClientTls, Stream, Wait};

/// How long a server without TLS may take to answer.
const PLAIN_ANSWER_TIME: Duration = Duration::from_millis(500);

/// TLS to one server. Clones share what is known of it.
#[derive(Clone)]
pub(super) struct Secure {
    tls: ClientTls,
    /// Shared, too: those that ask where a server is have clones from before the settings' names are known.
    settings: Arc<Mutex<TlsSettings>>,
    /// Whether a handshake has ever succeeded.
    spoke_tls: Arc<AtomicBool>,
}

impl Secure {
    pub(super) fn new(tls: ClientTls) -> Secure {
        let settings = TlsSettings { authorities: "redis_ca", certificate: "redis_certificate" };
        Secure { tls, settings: Arc::new(Mutex::new(settings)), spoke_tls: Arc::default() }
    }

    /// When our own certificate ends, in seconds since 1970, if there is one.
    pub(super) fn certificate_end(&self) -> Option<u64> {
        self.tls.certificate_end()
    }

    /// The same with other names for the settings, in all clones.
    pub(super) fn with_settings(self, settings: TlsSettings) -> Secure {
        *self.settings.lock() = settings;
        self
    }

    /// Completes the handshake on a new connection to `address` within `limit`.
    pub(super) fn secure(&self, stream: &mut Stream, address: &Address, limit: Duration) -> io::Result<()> {
        // A path has no TLS, and its URL no way to ask for it.
        let Address::Tcp { host, .. } = address else { return Ok(()) };
        let outcome = stream.secure(&self.tls, host, Instant::now() + limit);
        match &outcome {
            Ok(()) => self.spoke_tls.store(true, Ordering::Relaxed),
            Err(error)
                if TlsProblem::of(error) == Some(&TlsProblem::Slow)
                    && !self.spoke_tls.load(Ordering::Relaxed)
                    && answers_without_tls(address) =>
            {
                return Err(io::Error::new(ErrorKind::InvalidData, TlsProblem::NotTls));
            }
            Err(_) => {}
        }
        outcome
    }

    /// What to do about a failure, if its text does not say it.
    pub(super) fn hint(&self, problem: &TlsProblem, setting: UrlSetting) -> Option<Hint> {
        Some(Hint::Tls(match problem {
            TlsProblem::NotTls | TlsProblem::Closed => TlsHint::NoTls(setting),
            TlsProblem::Slow => TlsHint::SilentTls(setting),
            TlsProblem::UnknownAuthority { .. } => TlsHint::Authority(*self.settings.lock()),
            TlsProblem::Expired(_) | TlsProblem::NotYetValid(_) => TlsHint::CertificateTime,
            TlsProblem::WrongName { .. } => TlsHint::CertificateName(setting),
            TlsProblem::CertificateRequired | TlsProblem::CertificateRefused(_) => {
                TlsHint::ClientCertificate(*self.settings.lock())
            }
            TlsProblem::NoCertificate
            | TlsProblem::BadCertificate(_)
            | TlsProblem::NothingInCommon(_)
            | TlsProblem::Other(_) => return None,
        }))
    }
}

fn answers_without_tls(address: &Address) -> bool {
    let ask = || {
        let mut stream = net::connect(address, PLAIN_ANSWER_TIME)?;
        stream.set_wait(Wait::Until(Instant::now() + PLAIN_ANSWER_TIME))?;
        stream.write_all(b"PING\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first).map(|()| first)
    };
    // PONG, or an error, for instance that a password is required.
    ask().is_ok_and(|first: [u8; 1]| matches!(&first, b"+" | b"-"))
}
