use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use tungstenite::{Message, WebSocket};

use super::*;
use crate::base::id::Epoch;
use crate::consumer::desk::{Desk, Desks, Terms};
use crate::consumer::lanes::Place;
use crate::ledger::{Keys, Server as RedisServer};
use crate::wire::{self, Frame, ReadyFlags};

const EPOCH: Epoch = Epoch(5);
const DEADLINE: Duration = Duration::from_secs(20);

/// Places as letters: left, closing, stranger, known (a regular), rules.
fn places(text: &str) -> Vec<Rank> {
    let place = |letter| match letter {
        'c' => Rank::Closing,
        'l' => Rank::Left,
        's' => Rank::SilentStranger,
        'k' => Rank::SilentRegular,
        'r' => Rank::Rules,
        other => panic!("{other}"),
    };
    text.chars().map(place).collect()
}

fn room(text: &str, regular: bool) -> Room {
    Room::for_one_more(&places(text), 1, regular)
}

#[test]
fn places_are_left_in_order() {
    let full = |first: &str| format!("{first}{}", "r".repeat(MAX_SOCKETS - first.len()));
    assert_eq!(room("rss", false), Room::Free);
    assert_eq!(room(&full("rskscs"), false), Room::After(4), "what is being closed goes first");
    assert_eq!(room(&full("rkrss"), false), Room::After(3), "then the oldest silent stranger");
    assert_eq!(room(&full("rkrk"), false), Room::None, "no stranger takes the place of a regular");
    assert_eq!(room(&full("rkrk"), true), Room::After(1));
    assert_eq!(room(&full("r"), true), Room::None, "who rules never goes");
    assert_eq!(room(&full("l"), true), Room::Free);
    assert_eq!(room(&format!("s{}", "l".repeat(2 * MAX_SOCKETS)), true), Room::None, "threads are bounded, too");
}

#[test]
fn a_share_is_kept_for_regulars() {
    let crowd = format!("r{}", "s".repeat(MAX_SOCKETS - KEPT_PLACES));
    assert_eq!(room(&crowd, false), Room::After(1));
    assert_eq!(room(&crowd, true), Room::Free);
}

#[test]
fn each_lane_adds_places() {
    let full = "r".repeat(MAX_SOCKETS);
    let room = |lanes| Room::for_one_more(&places(&full), lanes, true);
    assert_eq!((room(1), room(2)), (Room::None, Room::Free));
}

/// The lanes of a consumer that reaches no Redis.
fn lanes() -> (Arc<Lanes>, Arc<Desks>) {
    let redis = RedisServer::parse("redis://127.0.0.1:1").expect("a URL");
    let terms = Terms { prefetch: 16, ..Terms::of_tests(1) };
    let desks = Arc::new(Desks::new(terms, Arc::default()));
    let place = Place { redis, keys: Keys::new("g"), result_maxlen: None };
    (Arc::new(Lanes::start(place, desks.clone(), Arc::default()).expect("a thread")), desks)
}

/// A server whose desk has seen epoch 5, so that it need not ask any Redis.
struct Running {
    server: Option<ConsumerServer>,
    desk: Desk,
    address: SocketAddr,
}

impl Running {
    fn start() -> Running {
        let (lanes, desks) = lanes();
        let desk = desks.desk(0);
        desk.lead(0, &Arc::default(), EPOCH, ReadyFlags::COMMITS, Instant::now()).expect("it is the first");
        desk.leave(0);
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.address().expect("bound");
        let server = ConsumerServer::start(listener, None, None, lanes).expect("it starts");
        Running { server: Some(server), desk, address }
    }

    /// A connection that has sent LEAD.
    fn lead(&self) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
        let (mut socket, _) = tungstenite::client(format!("ws://{}/", self.address), stream).expect("a handshake");
        socket.send(Message::binary(Frame::Lead { epoch: EPOCH, group: "g" }.to_vec())).expect("it is read");
        socket
    }

    /// One that rules and is proven.
    fn proven(&self) -> WebSocket<TcpStream> {
        let mut socket = self.lead();
        assert_eq!(answer(&mut socket), "READY");
        self.desk.prove(self.desk.ruler().expect("it rules"));
        socket
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.close(Duration::ZERO);
        }
    }
}

#[test]
fn connections_that_fail_while_they_are_accepted_are_paced_like_useless_ones() {
    let running = Running::start();
    let (_accepting, stopping) = bounded(0);
    let (ended, _all_ended) = bounded(0);
    let acceptor = Acceptor {
        listener: Arc::new(Listener::bind("127.0.0.1:0").expect("a free port")),
        address: running.address,
        stopping,
        links: Links::default(),
        common: Arc::new(Common {
            tls: None,
            secret: None,
            lanes: lanes().0,
            refusals: Refusals::new(Instant::now()),
            regulars: Regulars::default(),
        }),
        ended,
        last_link: 0,
    };
    let paused = || acceptor.common.refusals.pause(Instant::now()).is_some();
    let down = NotAccepted::from(io::Error::from(io::ErrorKind::NetworkDown));
    acceptor.not_accepted(&down);
    assert!(!paused());
    (0..1_000).for_each(|_| acceptor.not_accepted(&down));
    assert!(paused(), "a failure that repeats does not make the thread spin");
}

/// The first frame that arrives.
fn answer(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().expect("an answer in time") {
            Message::Binary(message) => {
                match wire::frames(&message).next().expect("there is one").expect("it is one") {
                    Frame::Error { code, text } => return format!("ERROR {} {text}", code.code()),
                    frame => return frame.name().to_owned(),
                }
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads, and thereby answers pings, until the other side closes the connection.
fn live(mut socket: WebSocket<TcpStream>) -> JoinHandle<()> {
    thread::spawn(move || while socket.read().is_ok() {})
}

#[test]
fn a_proven_ruler_keeps_its_place_while_it_is_alive() {
    let running = Running::start();
    let ruler = running.proven();
    let rules = running.desk.ruler();
    let stream = ruler.get_ref().try_clone().expect("a second handle");
    let living = live(ruler);
    let text = answer(&mut running.lead());
    assert!(text.starts_with("ERROR 10 another connection of epoch 5 rules here and is alive"), "{text}");
    assert_eq!(running.desk.ruler(), rules);
    // The leader reconnects after its machine was lost: the old connection does not answer.
    stream.shutdown(std::net::Shutdown::Both).expect("it is open");
    living.join().expect("no panic");
    let mut half_open = running.proven();
    let began = Instant::now();
    let mut again = running.lead();
    assert_eq!(answer(&mut again), "READY");
    assert!(began.elapsed() < DEADLINE / 4, "it took {:?}", began.elapsed());
    // READY and HELD may have come in two messages.
    let reply = (0..2).map(|_| answer(&mut half_open)).find(|reply| reply.starts_with("ERROR"));
    assert!(reply.as_ref().is_some_and(|reply| reply.starts_with("ERROR 10 ")), "{reply:?}");
}

#[test]
fn many_connections_of_the_same_epoch_do_not_replace_a_proven_ruler() {
    let running = Running::start();
    let ruler = running.proven();
    let rules = running.desk.ruler();
    let _living = live(ruler);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let text = answer(&mut running.lead());
                    assert!(text.starts_with("ERROR 10 "), "{text}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((running.desk.ruler(), refused.into_inner()), (rules, 200));
}
