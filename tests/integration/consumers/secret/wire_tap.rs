//! A proxy for one connection that keeps what goes over it, as someone on the path could.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// See the module's text. It forwards one connection after the other, and ends with the test.
pub struct WireTap {
    pub address: String,
    towards: Arc<Mutex<Vec<u8>>>,
    back: Arc<Mutex<Vec<u8>>>,
}

impl WireTap {
    pub fn to(target: SocketAddr) -> WireTap {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let tap = WireTap { address, towards: Arc::default(), back: Arc::default() };
        let (towards, back) = (tap.towards.clone(), tap.back.clone());
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, Ok(far)) = (near.expect("a connection"), TcpStream::connect(target)) else { continue };
                let (near_again, far_again) = (near.try_clone().expect("shared"), far.try_clone().expect("shared"));
                let towards = towards.clone();
                let pump = thread::spawn(move || copy(near_again, far_again, &towards));
                copy(far, near, &back);
                let _ = pump.join();
            }
        });
        tap
    }

    /// What the client has sent.
    pub fn sent(&self) -> Vec<u8> {
        self.towards.lock().clone()
    }

    /// What the server has answered.
    pub fn answered(&self) -> Vec<u8> {
        self.back.lock().clone()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut part = [0; 4 << 10];
    while let Ok(count @ 1..) = from.read(&mut part) {
        kept.lock().extend_from_slice(&part[..count]);
        if to.write_all(&part[..count]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

/// The value of a header in a recorded request or answer.
pub fn header(recorded: &[u8], name: &str) -> Option<String> {
    let end = recorded.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&recorded[..end]).into_owned();
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
