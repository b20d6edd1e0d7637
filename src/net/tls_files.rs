//! The files that TLS needs, and what can be wrong with them. Known whether or not TLS is built in.

use std::fmt;
use std::path::PathBuf;

/// The files of a client, all in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificates of the authorities that are trusted; `None`: those of the system.
    pub roots: Option<PathBuf>,
    /// The client's own certificate, with those between it and its authority, and its key.
    pub identity: Option<Identity>,
}

/// The files of a server, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's certificate, with those between it and its authority, and its key.
    pub identity: Identity,
    /// The certificates of the authorities that sign clients'; `None`: clients need no certificate.
    pub client_roots: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// The key, not encrypted.
    pub key: PathBuf,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemFile {
    /// The certificates of authorities.
    Roots,
    /// Our own certificate.
    Certificate,
    /// The key of our own certificate.
    Key,
}

impl PemFile {
    /// What the file must be.
    pub fn takes(self) -> &'static str {
        match self {
            PemFile::Roots => "a PEM file with the certificates of authorities",
            PemFile::Certificate => "a PEM file with a certificate, followed by those between it and its authority",
            PemFile::Key => "a PEM file with the certificate's key, not encrypted",
        }
    }
}

/// A file that can't be used. Displayed as its path and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Which one.
    pub file: PemFile,
    /// Its path and what is wrong with it.
    pub text: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for FileProblem {}
