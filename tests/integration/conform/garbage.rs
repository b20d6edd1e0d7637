//! Servers that are no consumers: the tool ends by itself and says what is wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Message;

use super::run;

/// A server that does this to every connection. It lives as long as the test program.
fn server(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn repeat(mut stream: impl Write, bytes: &[u8], pause: Duration) {
    while stream.write_all(bytes).is_ok() {
        thread::sleep(pause);
    }
}

/// A WebSocket server that sends these bytes again and again, after `first`.
fn web_socket(stream: TcpStream, first: &[u8], bytes: &[u8], pause: Duration) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    let _ = socket.get_mut().write_all(first);
    repeat(socket.get_mut(), bytes, pause);
}

/// What the run ends with.
fn error_of(serve: fn(TcpStream)) -> String {
    let begin = Instant::now();
    let error = run(server(serve), "--timeout 1s").expect_err("it is no consumer");
    assert_eq!(error.exit_code(), 1, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{error}: {:?}", begin.elapsed());
    error.to_string()
}

#[test]
fn what_does_not_listen_or_speaks_no_websocket_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let error = run(closed, "").expect_err("nothing listens").to_string();
    assert!(error.contains(&closed.to_string()) && error.contains("refused"), "{error}");
    let http = error_of(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    assert!(http.contains("refused with status 200"), "{http}");
    let silent = error_of(|stream| {
        thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    assert!(silent.contains("no answer to the WebSocket handshake: timed out"), "{silent}");
    let closing = error_of(drop);
    assert!(closing.contains("no answer to the WebSocket handshake"), "{closing}");
    let endless = error_of(|stream| repeat(stream, &[b'x'; 4096], Duration::ZERO));
    assert!(endless.contains("not a WebSocket server: it answered \"xxx"), "{endless}");
    let headers = error_of(|stream| repeat(stream, b"HTTP/1.1 101 Fine\r\n", Duration::from_millis(1)));
    assert!(headers.contains("WebSocket"), "{headers}");
    let slow = error_of(|stream| repeat(stream, b"HTTP/1.1 101 Fine\r\n", Duration::from_millis(100)));
    assert!(slow.contains("WebSocket"), "{slow}");
}

#[test]
fn a_websocket_server_that_is_no_consumer_is_named() {
    let quiet = error_of(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while socket.read().is_ok() {}
    });
    assert!(quiet.contains("expected READY and HELD within 3 s of the connection, got nothing in time"), "{quiet}");
    let text = error_of(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = socket.send(Message::text("hello"));
        while socket.read().is_ok() {}
    });
    assert!(text.contains("a text message"), "{text}");
    let drains = error_of(|stream| web_socket(stream, b"", b"\x82\x06\x01\x08\0\0\0\0", Duration::ZERO));
    assert!(drains.contains("another frame where READY is expected"), "{drains}");
    let pings = error_of(|stream| web_socket(stream, b"", b"\x89\0", Duration::ZERO));
    assert!(pings.contains("expected READY"), "{pings}");
    // A message of a megabyte that arrives byte by byte.
    let trickle = error_of(|stream| web_socket(stream, b"\x82\x7f\0\0\0\0\0\x10\0\0", b"x", Duration::from_millis(1)));
    assert!(trickle.contains("expected READY"), "{trickle}");
    let masked = error_of(|stream| web_socket(stream, b"", b"\x82\x80\0\0\0\0", Duration::from_millis(1)));
    assert!(masked.contains("not a correct WebSocket message"), "{masked}");
}
