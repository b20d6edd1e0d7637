//! A private Redis, a running consumer, and a dispatcher that does what the test says.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::id::{Epoch, MessageId};
use oncecast::ledger::{Command, Connection, Server, encode_member};
use oncecast::shutdown::ShutdownHandle;
use oncecast::wire::{self, Frame};
use oncecast::{Consumer, ConsumerBuilder, ConsumerStats};
use redis::Value;
use tungstenite::{Message, WebSocket};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The program `oncecast-consumer`; killed, if it still runs, when it is dropped.
pub struct ConsumerProgram(Child);

impl ConsumerProgram {
    pub fn start(arguments: &[&str]) -> ConsumerProgram {
        let child = Program::new(env!("CARGO_BIN_EXE_oncecast-consumer"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        ConsumerProgram(child)
    }

    pub fn signal(&self, name: &str) {
        let status = Program::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    #[cfg(target_os = "linux")]
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it lives");
        stat.contains(") T ")
    }

    /// Waits for its end; gives its exit code and what it wrote to standard error.
    pub fn end(mut self) -> (Option<i32>, String) {
        eventually("the program ends", || self.0.try_wait().expect("our child").is_some());
        let mut text = String::new();
        self.0.stderr.take().expect("it is piped").read_to_string(&mut text).expect("UTF-8");
        (self.0.wait().expect("our child").code(), text)
    }
}

impl Drop for ConsumerProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis server of its own, which keeps its data when it is stopped and restarted.
pub struct RedisServer {
    port: u16,
    directory: PathBuf,
    process: Option<Child>,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        // Another test may take the port first.
        (0..5).find_map(|_| RedisServer::try_start(free_port())).expect("redis-server starts")
    }

    fn try_start(port: u16) -> Option<RedisServer> {
        let directory = std::env::temp_dir().join(format!("oncecast-consumer-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let mut server = RedisServer { port, directory, process: None };
        server.launch().then_some(server)
    }

    /// Starts the process and waits until it answers; `false` if it ended.
    fn launch(&mut self) -> bool {
        let process = Program::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "no", "--dir"])
            .arg(&self.directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let process = self.process.insert(process);
        let deadline = Instant::now() + DEADLINE;
        let mut connection = connection(self.port);
        while connection.query("test", Command::of(&["PING"])).is_err() {
            if process.try_wait().expect("our child").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).expect("our child");
        }
    }

    pub fn restart(&mut self) {
        assert!(self.launch(), "redis-server did not start again");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A consumer of this server, on any port.
    pub fn consumer(&self) -> ConsumerBuilder {
        Consumer::builder().redis_url(self.url()).listen("127.0.0.1:0")
    }

    fn query(&self, command: Command) -> Value {
        connection(self.port).query("test", command).expect("redis answers")
    }

    /// Makes a message pending.
    pub fn pend(&self, id: u64, payload: &str) {
        let mut member = Vec::new();
        encode_member(MessageId(id), payload.as_bytes(), &mut member);
        self.query(Command::new(4).arg("ZADD").arg("messages:pending").arg(id.to_string()).arg(member));
    }

    /// How many messages are pending.
    pub fn pending(&self) -> i64 {
        match self.query(Command::of(&["ZCARD", "messages:pending"])) {
            Value::Int(count) => count,
            other => panic!("{other:?}"),
        }
    }

    /// The entries of the result stream, each as `name=value` in order.
    pub fn entries(&self) -> Vec<Vec<String>> {
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?}"),
        };
        let Value::Array(entries) = self.query(Command::of(&["XRANGE", "messages:processed", "-", "+"])) else {
            panic!("XRANGE gives a list")
        };
        let fields = |entry: &Value| match entry {
            Value::Array(parts) => match &parts[1] {
                Value::Array(fields) => {
                    fields.chunks(2).map(|pair| format!("{}={}", text(&pair[0]), text(&pair[1]))).collect()
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        entries.iter().map(fields).collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn connection(port: u16) -> Connection {
    let server = Server::parse(&format!("redis://127.0.0.1:{port}")).expect("a good URL");
    Connection::new(server, Duration::from_secs(5))
}

/// A consumer in this process, on a thread of its own.
pub struct Running {
    pub address: SocketAddr,
    pub stats: Arc<ConsumerStats>,
    pub handle: ShutdownHandle,
    thread: Option<JoinHandle<oncecast::error::Result<()>>>,
}

impl Running {
    pub fn start(builder: ConsumerBuilder) -> Running {
        let consumer = builder.bind().expect("a free port");
        let (address, stats, handle) = (consumer.local_addr(), consumer.stats(), consumer.shutdown_handle());
        let thread = thread::spawn(move || consumer.run());
        Running { address, stats, handle, thread: Some(thread) }
    }

    /// Asks it to stop, and for its result.
    pub fn stop(mut self) {
        self.handle.shutdown();
        let thread = self.thread.take().expect("it is stopped once");
        eventually("the consumer stops", || thread.is_finished());
        thread.join().expect("no panic").expect("a clean end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown();
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A dispatcher that does what the test says.
pub struct Peer {
    socket: WebSocket<TcpStream>,
    frames: VecDeque<String>,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.set_nodelay(true).expect("set");
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a handshake");
        Peer { socket, frames: VecDeque::new() }
    }

    /// Connects, leads, and hears READY and that these are held.
    pub fn lead(address: SocketAddr, epoch: u64, held: &[u64]) -> Peer {
        let mut peer = Peer::connect(address);
        peer.send(&[Frame::Lead { epoch: Epoch(epoch), group: "messages" }]);
        let ready = peer.next();
        assert!(ready.starts_with("READY"), "{ready}");
        let ids: String = held.iter().map(|id| format!(" {id}")).collect();
        assert_eq!(peer.next(), format!("HELD{ids}"));
        peer
    }

    /// Sends bytes that are no WebSocket, and waits until the socket is closed.
    pub fn raw(address: SocketAddr, bytes: &[u8]) {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write)).expect("it is read");
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut Vec::new()).map_err(|error| {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it stays open");
        });
    }

    pub fn send(&mut self, frames: &[Frame<'_>]) {
        assert!(self.try_send(frames), "the consumer closed the connection");
    }

    /// Sends frames as one message; `false` if the connection is closed.
    pub fn try_send(&mut self, frames: &[Frame<'_>]) -> bool {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.socket.send(Message::binary(bytes)).is_ok()
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("it is read");
    }

    pub fn ping(&mut self) {
        self.send_message(Message::Ping(Default::default()));
    }

    /// Waits until the consumer has obeyed all that was sent so far.
    pub fn sync(&mut self) {
        self.ping();
        loop {
            match self.socket.read().expect("a pong in time") {
                Message::Pong(_) => return,
                Message::Binary(message) => {
                    self.frames.extend(wire::frames(&message).map(|frame| shown(frame.expect("a good frame"))));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Pings without reading anything, until the consumer does not read any more, either.
    pub fn ping_until_stalled(&mut self) {
        self.socket.get_ref().set_write_timeout(Some(Duration::from_millis(200))).expect("set");
        while self.socket.send(Message::Ping(Default::default())).is_ok() {}
    }

    /// The bytes of the next message.
    pub fn next_message(&mut self) -> Vec<u8> {
        loop {
            match self.socket.read().expect("a message in time") {
                Message::Binary(bytes) => return bytes.to_vec(),
                Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next frame, as text; lists of ids are sorted.
    pub fn next(&mut self) -> String {
        while self.frames.is_empty() {
            let message = self.next_message();
            self.frames.extend(wire::frames(&message).map(|frame| shown(frame.expect("a good frame"))));
        }
        self.frames.pop_front().expect("there is one")
    }

    pub fn next_but_progress(&mut self) -> String {
        loop {
            let frame = self.next();
            if !frame.starts_with("PROGRESS") {
                return frame;
            }
        }
    }

    /// Reads ACKs until these have come, each once.
    pub fn expect_acks(&mut self, ids: &[u64]) {
        let mut acknowledged: Vec<u64> = Vec::new();
        while acknowledged.len() < ids.len() {
            let frame = self.next_but_progress();
            let Some(list) = frame.strip_prefix("ACK ") else { panic!("{frame}") };
            acknowledged.extend(list.split(' ').map(|id| id.parse::<u64>().expect("an id")));
        }
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, ids);
    }

    /// Reads an ERROR with this code, and then the end.
    pub fn expect_error(&mut self, code: u16) {
        let frame = self.next_but_progress();
        assert!(frame.starts_with(&format!("ERROR {code} ")), "{frame}");
        self.expect_close();
    }

    /// Reads nothing more than a goodbye.
    pub fn expect_close(&mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("it stays open")
                }
                Err(_) => return,
            }
        }
    }
}

fn shown(frame: Frame<'_>) -> String {
    let list = |name: &str, mut ids: Vec<MessageId>| {
        ids.sort();
        ids.iter().fold(name.to_owned(), |text, id| format!("{text} {}", id.0))
    };
    match frame {
        Frame::Ack(ids) => list("ACK", ids),
        Frame::Held(ids) => list("HELD", ids),
        Frame::Progress(ids) => list("PROGRESS", ids),
        Frame::Nack { id, delay_ms, reason } => format!("NACK {} {delay_ms} {reason}", id.0),
        Frame::Error { code, text } => format!("ERROR {} {text}", code.code()),
        frame => frame.name().to_owned(),
    }
}
