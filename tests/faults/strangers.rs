//! Rows about strangers: clients that reach a port but do not belong to the group.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{ChildProcess, ports};
use oncecast::wire::{Field, Frame, ReadyFlags};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::dispatchers::Watched;
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{
    DEADLINE, bare_cluster, client_of, dispatcher as start_dispatcher, programs, run as run_command, state, wait_until,
    wait_until_in_sync,
};
use crate::workers::Workers;

/// A limit on files with which the consumer works, having some 15 open, and which strangers can use up.
const FILES: u32 = 32;

/// A consumer with that limit, and its address.
fn consumer(redis_url: &str) -> (ChildProcess, String) {
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let program = programs().command("oncecast-consumer").expect("the program is built");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    command.args(["--redis-url", redis_url, "--listen", &address]);
    let consumer = ChildProcess::spawn("few-files", command).expect("it starts");
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (consumer, address)
}

fn dispatcher(url: &str, name: &str, address: &str) -> Watched {
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    Watched::spawn(command, name, url, &[address.to_owned()], "127.0.0.1", "--lease-ttl-ms 1000")
}

/// Row 39: strangers open so many connections to a consumer that it has no files left, and stay silent.
#[test]
fn row_39_strangers_use_up_the_files() {
    let mut this = Run::of("row_39_strangers_use_up_the_files");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let url = cluster.redis().url();
    let (mut consumer, address) = consumer(&url);
    let mut leader = dispatcher(&url, "d0", &address);
    wait_until_in_sync(connection, 1);
    let load = Load::start(&url, "m", 300);
    load.wait_for_more(100);
    for round in 1..=this.scale(2, 10) {
        // Some arrive while there are no files, and are accepted once others are closed.
        let crowd: Vec<_> = (0..this.random.u64(40..80))
            .map(|_| TcpStream::connect(&address).expect("the system takes connections"))
            .collect();
        consumer.wait_for_line("event=files-short", DEADLINE).expect("the files are used up");
        load.wait_for_more(100);
        // A new leader is accepted while they are connected.
        let next = dispatcher(&url, &format!("d{round}"), &address);
        wait_until_in_sync(connection, 2);
        let before: String = run_command(connection, &["GET", "messages:leader"]);
        leader.process.kill().expect("it is ours");
        leader = next;
        wait_until("another to lead", || {
            let now: Option<String> = run_command(connection, &["GET", "messages:leader"]);
            now.filter(|now| *now != before)
        });
        let recorded = state(connection).1;
        wait_until("the new leader's messages to be done", || (state(connection).1 > recorded + 100).then_some(()));
        // The remaining ones are closed for their silence.
        let ended = crowd.into_iter().map(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
            stream
                .read(&mut [0])
                .map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |count| count == 0)
        });
        assert!(ended.into_iter().all(|ended| ended), "none stays open");
        load.wait_for_more(100);
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    consumer.must_run().expect("it lives");
    // Only shown.
    let refused = consumer.stderr().all().iter().filter(|line| line.contains("event=files-short")).count();
    this.say(format_args!("{refused} lines about files"));
    leader.process.must_run().expect("it lives");
}

/// Repeats an action in threads of its own until the guard is dropped.
struct Strangers {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Strangers {
    fn start(acts: Vec<Box<dyn FnMut() + Send>>) -> Strangers {
        let stop = Arc::new(AtomicBool::new(false));
        let act = |mut act: Box<dyn FnMut() + Send>| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    act();
                }
            })
        };
        let threads = acts.into_iter().map(act).collect();
        Strangers { stop, threads }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been reported already.
            let _ = thread.join();
        }
    }
}

/// How long a stranger waits for anything.
const PATIENCE: Duration = Duration::from_millis(500);

/// Connects to a consumer; `origin` is what a browser would add.
fn connect(address: &str, origin: Option<&'static str>) -> Option<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request = format!("ws://{address}/").into_client_request().ok()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("Origin", origin.parse().ok()?);
    }
    tungstenite::client(request, stream).ok().map(|(socket, _)| socket)
}

/// Sends frames and reads until the other side closes or is silent.
fn say(socket: &mut WebSocket<TcpStream>, frames: &[Frame<'_>]) {
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_vec).collect();
    if socket.send(Message::binary(bytes)).is_ok() {
        while socket.read().is_ok() {}
    }
}

/// A web page, a peer with the highest possible epoch, and one that knows the true epoch and invents messages.
fn at_a_consumer(address: &str, epoch: u64, random: fastrand::Rng) -> Vec<Box<dyn FnMut() + Send>> {
    let [page, highest, forger] = [0; 3].map(|_| address.to_owned());
    let mut random = random;
    let lead = |epoch| Frame::Lead { epoch: Epoch(epoch), group: "messages" };
    vec![
        Box::new(move || {
            let socket = connect(&page, Some("https://example.com"));
            assert!(socket.is_none(), "a page was let in");
        }),
        Box::new(move || {
            if let Some(mut socket) = connect(&highest, None) {
                say(&mut socket, &[lead(u64::MAX)]);
            }
        }),
        Box::new(move || {
            let forged = |_| Frame::Process { id: MessageId(random.u64(1..1 << 52)), delivery: 1, body: FORGED };
            let frames: Vec<_> = std::iter::once(lead(epoch)).chain((0..8).map(forged)).collect();
            if let Some(mut socket) = connect(&forger, None) {
                say(&mut socket, &frames);
            }
        }),
    ]
}

/// The payload of a stranger's message. If it were recorded, L0 would fail, since it was never published.
const FORGED: &[u8] = b"{\"message_id\":\"forged\"}";

/// A consumer that answers at full speed for messages that it never received, and lists them in HELD.
fn at_a_dispatcher(listener: TcpListener, mut random: fastrand::Rng) -> Vec<Box<dyn FnMut() + Send>> {
    listener.set_nonblocking(true).expect("our own socket");
    vec![Box::new(move || {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("accepting: {error}"),
        };
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).expect("our own socket");
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let mut ids = |count| (0..count).map(|_| MessageId(random.u64(1..1 << 52))).collect::<Vec<_>>();
        let greeting =
            [Frame::Ready { prefetch: 1, flags: ReadyFlags::COMMITS, consumer: "junk" }, Frame::Held(ids(1_000))];
        let mut send = |frames: &[Frame<'_>]| {
            socket.send(Message::binary(frames.iter().flat_map(Frame::to_vec).collect::<Vec<_>>())).is_ok()
        };
        if !send(&greeting) {
            return;
        }
        loop {
            let result = |id| Frame::Result { id, fields: vec![Field { name: b"message_id", value: b"forged" }] };
            let results = ids(100).into_iter().map(result).collect::<Vec<_>>();
            if !send(&[Frame::Ack(ids(1_000)), Frame::Progress(ids(1_000))]) || !send(&results) {
                return;
            }
        }
    })]
}

/// Row 34: strangers attack a consumer and a dispatcher in every way. The true leader stays, and work continues.
#[test]
fn row_34_strangers_on_links() {
    let mut this = Run::of("row_34_strangers_on_links");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let mut workers = Workers::new(&mut cluster, 2, 2);
    (0..2).for_each(|number| workers.start(number));
    let junk = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addresses = [workers.addresses.clone(), vec![junk.local_addr().expect("it is bound").to_string()]].concat();
    // Messages that the junk consumer happens to get count as lost.
    let mut process = start_dispatcher(&cluster, "d0", &addresses, "--max-deliveries 1000");
    wait_until_in_sync(connection, 1);
    let lease: String = run_command(connection, &["GET", "messages:leader"]);
    let epoch: u64 = run_command(connection, &["GET", "messages:epoch"]);
    let load = Load::start(&cluster.redis().url(), "m", 600);
    // Until the leader is proven.
    wait_until("some to be done", || (state(connection).1 > 200).then_some(()));
    let acts =
        [at_a_consumer(&workers.addresses[0], epoch, this.random.fork()), at_a_dispatcher(junk, this.random.fork())];
    let strangers = Strangers::start(acts.into_iter().flatten().collect());
    let (published, done) = (load.first_unpublished(), state(connection).1);
    load.wait_for_more(this.scale(3_000, 30_000));
    let (published, done) = (load.first_unpublished() - published, state(connection).1 - done);
    drop(strangers);
    this.say(format_args!("{done} done while {published} were published"));
    assert!(10 * done as u64 >= 8 * published, "{done} of {published}");
    assert_l0(connection, &load.stop());
    let now: String = run_command(connection, &["GET", "messages:leader"]);
    assert_eq!(now, lease, "the leader did not change");
    process.must_run().expect("it lives");
    process.wait_for_line("event=stray-answers consumer=junk", DEADLINE).expect("they are counted");
    workers.must_run();
    assert_eq!(state(connection).2, 0);
}
