//! Lanes for the tests of their parts.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tungstenite::WebSocket;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::greeting::Greeted;
use super::handshake::Subprotocol;
use super::link::{Link, NewLink};
use super::roster::{ConsumerSource, MemberId};
use super::{Following, Leading, ProcessHandles, Settings, Shared};
use crate::base::id::{DispatcherId, MessageId};
use crate::base::log_context::LogContext;
use crate::ledger::{Body, Destination, Interests, Keys, Pending, Server};
use crate::net::{Stream, Wait};
use crate::wire::ReadyFlags;

/// A lane that has not started, for consumers at these addresses.
pub(super) fn lane_of(consumers: Vec<String>) -> Arc<Shared> {
    let redis = Server::parse("redis://127.0.0.1:6379").expect("a URL");
    let settings = settings_of(None, redis, "messages", consumers);
    let process = ProcessHandles {
        id: DispatcherId::generate("d0"),
        log: LogContext::new("starting"),
        leading: Leading::default(),
        moved: crossbeam_channel::bounded(1).0,
    };
    Shared::new(settings, process)
}

/// Settings as a dispatcher has them by default.
pub(crate) fn settings_of(name: Option<&str>, redis: Server, group: &str, consumers: Vec<String>) -> Settings {
    Settings {
        name: name.map(str::to_owned),
        redis,
        keys: Keys::new(group),
        interests: Arc::new(Interests::in_channel(&format!("{group}-channel"))),
        destination: Destination::Pending,
        consumers: consumers.iter().map(|entry| ConsumerSource::of(entry)).collect(),
        following: Following::default(),
        link_tls: None,
        link_secret: None,
        lease_ttl: Duration::from_secs(3),
        link_timeout: Duration::from_secs(3),
        max_deliveries: 8,
        retry: "exponential:200ms..5m*4".parse().expect("a policy"),
        max_in_flight: None,
        max_rate: None,
        order_key: None,
        wait_replicas: 0,
        bundles: true,
        ring_bytes: 64 << 20,
        ready_bytes: 64 << 20,
    }
}

/// A link with a small buffer, and its peer, which reads only what the test reads.
pub(super) fn link(prefetch: u32) -> (Link, TcpStream) {
    link_that_speaks(Subprotocol::One, prefetch)
}

/// The same with a subprotocol.
pub(super) fn link_that_speaks(subprotocol: Subprotocol, prefetch: u32) -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (peer, _) = listener.accept().expect("it connects");
    let config = WebSocketConfig::default().write_buffer_size(0);
    let mut stream = Stream::over_tcp(stream).expect("a socket");
    stream.set_wait(Wait::Never).expect("a socket");
    let socket = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
    let greeted = Greeted {
        socket,
        subprotocol,
        proved: false,
        consumer: "c0".to_owned(),
        prefetch,
        flags: ReadyFlags::COMMITS,
        held: Vec::new(),
        leftover: Vec::new(),
    };
    (Link::new(NewLink { member: MemberId::first(), address: "c0:1".into(), is_open: false, greeted }, 1, None), peer)
}

pub(super) fn message(id: u64, bytes: usize) -> Pending {
    Pending { id: MessageId(id), delivery: 1, body: Body::of(vec![b'x'; bytes].into()) }
}
