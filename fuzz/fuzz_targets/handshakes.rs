//! Any request of a peer's is answered by one whole response of HTTP, or ends before it is whole.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use oncecast::consumer::handshake::{Failed, accept};

/// A peer that sends this, in pieces of a few bytes, and keeps what it is answered.
struct Peer<'a> {
    sends: &'a [u8],
    answer: Vec<u8>,
}

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(7);
        self.sends.read(&mut buffer[..count])
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|request: &[u8]| {
    let mut peer = Peer { sends: request, answer: Vec::new() };
    let answered = match accept(&mut peer, |_| Ok(String::new())) {
        Ok(()) => Some("101".to_owned()),
        Err(Failed::Rejected(rejection)) => Some(rejection.status.to_string()),
        Err(Failed::Gone(..)) => None,
    };
    let status = peer.answer.get(9..12).map(|status| String::from_utf8_lossy(status).into_owned());
    assert_eq!(status, answered);
});
