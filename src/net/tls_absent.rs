//! In the place of `tls` if the feature `tls` is off: the same interface, of which nothing can be made.

use std::io;
use std::time::Instant;

use super::raw::Raw;
use super::tls_files::{ClientFiles, FileProblem, PemFile, ServerFiles};
use super::wait::Wait;

/// Whether TLS is built in.
pub const IS_BUILT_IN: bool = false;

/// There is none.
#[derive(Clone, Debug)]
pub enum ClientTls {}

impl ClientTls {
    /// There is none.
    pub fn is_named(&self) -> bool {
        match *self {}
    }

    /// There is none.
    pub fn certificate_end(&self) -> Option<u64> {
        match *self {}
    }

    /// Fails.
    pub fn load(_: ClientFiles) -> Result<ClientTls, FileProblem> {
        Err(FileProblem { file: PemFile::Roots, text: "TLS, which is not built in (feature `tls`)".to_owned() })
    }
}

/// There is none.
#[derive(Clone, Debug)]
pub enum ServerTls {}

impl ServerTls {
    /// There is none.
    pub fn requires_certificates(&self) -> bool {
        match *self {}
    }

    /// There is none.
    pub fn certificate_end(&self) -> Option<u64> {
        match *self {}
    }

    /// Fails.
    pub fn load(_: ServerFiles) -> Result<ServerTls, FileProblem> {
        Err(FileProblem { file: PemFile::Certificate, text: "TLS, which is not built in (feature `tls`)".to_owned() })
    }
}

/// There is none.
#[derive(Debug)]
pub(super) enum Session {}

impl Session {
    pub(super) fn of_client(tls: &ClientTls, _: &str) -> io::Result<Session> {
        match *tls {}
    }

    pub(super) fn of_server(tls: &ServerTls) -> io::Result<Session> {
        match *tls {}
    }

    pub(super) fn shake_hands(&self, _: &Raw, _: Instant) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn read(&self, _: &Raw, _: Wait, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn write(&self, _: &Raw, _: Wait, _: &[u8], _: &mut u64) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn say_goodbye(&self, _: &Raw) {
        match *self {}
    }
}
