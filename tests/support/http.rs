//! One request to the HTTP server of a program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::waiting::DEADLINE;

/// The status code and the body of the answer to a `GET`; `None` if there is no answer.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE / 10).ok()?;
    stream.set_read_timeout(Some(DEADLINE / 10)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}
