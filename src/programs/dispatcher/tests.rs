//! Lanes in one process: two groups against a private Redis, and in `clusters` the lanes of one group.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, unbounded};
use log::{Log, Metadata, Record};
use parking_lot::Mutex;
use tungstenite::{Message, WebSocket};

use super::balance::Balance;
use super::exposition;
use super::hosted::Host;
use super::lanes::{End, Lanes};
use super::plan::Plan;
use super::service::run_lanes;
use crate::base::id::{DispatcherId, Epoch};
use crate::base::log_context;
use crate::base::shutdown::shutdown_channel;
use crate::lab::{RedisOptions, RedisServer, wait_until};
use crate::lane::tests::settings_of;
use crate::ledger::Command;
use crate::wire::{self, Frame, ReadyFlags};

mod clusters;

const LIMIT: Duration = Duration::from_secs(20);

/// A consumer without Redis that acknowledges every message and passes the payloads on. Returns its address.
fn consumer(name: &'static str, payloads: Sender<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            serve(tcp.expect("a connection"), name, &payloads);
        }
    });
    address
}

fn serve(tcp: TcpStream, name: &str, payloads: &Sender<String>) {
    let send = |socket: &mut WebSocket<TcpStream>, frames: Vec<u8>| socket.send(Message::Binary(frames.into()));
    let mut socket = tungstenite::accept(tcp).expect("a handshake");
    socket.read().expect("LEAD");
    let ready = Frame::Ready { prefetch: 100, flags: ReadyFlags(0), consumer: name };
    send(&mut socket, [ready.to_vec(), Frame::Held(Vec::new()).to_vec()].concat()).expect("it reads");
    // Until the lane has ended.
    while let Ok(message) = socket.read() {
        let Message::Binary(bytes) = message else { continue };
        for frame in wire::frames(&bytes) {
            let Ok(Frame::Process { id, body, .. }) = frame else { panic!("{frame:?}") };
            payloads.send(String::from_utf8_lossy(body).into_owned()).expect("the test runs");
            send(&mut socket, Frame::Ack(vec![id]).to_vec()).expect("it reads");
        }
    }
}

/// A role, and its epoch if it has one.
type RoleAndEpoch = (&'static str, Option<Epoch>);

/// What lanes with a name have logged: the name, the role and the text of each line.
static LINES: Mutex<Vec<(String, RoleAndEpoch, String)>> = Mutex::new(Vec::new());

struct Capture;

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let context = log_context::current();
        if let Some(lane) = context.lane() {
            LINES.lock().push((lane.to_owned(), context.role(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// The role and the epoch with which a lane has logged an event.
fn logged(lane: &str, event: &str) -> RoleAndEpoch {
    let lines = LINES.lock();
    let line = lines.iter().find(|(name, _, text)| name == lane && text.starts_with(event));
    line.map(|(_, role, _)| *role).unwrap_or_else(|| panic!("{lane} has logged {event}: {lines:#?}"))
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Publishes on the channels of both lanes, and checks that each consumer gets its own messages.
fn publish(redis: &RedisServer, received: &[(&str, Receiver<String>)]) {
    let mut connection = redis.connection();
    for (group, _) in received {
        let command = Command::of(&["PUBLISH", &format!("{group}-channel"), &format!("one of {group}")]);
        connection.query("publishing", command).expect("it is carried out");
    }
    for (group, payloads) in received {
        assert_eq!(payloads.recv_timeout(LIMIT), Ok(format!("one of {group}")));
        assert!(payloads.try_recv().is_err(), "only its own");
    }
}

fn wait_for(host: &Host, what: &str, holds: impl Fn(&crate::lane::Shared) -> bool) {
    let all = || (host.lanes().len() == 2 && host.lanes().iter().all(|hosted| holds(&hosted.lane))).then_some(());
    wait_until(LIMIT, what, || Ok(all())).expect("in time");
}

/// A consumer that does not answer keeps its dialer busy, as a lookup that hangs does. That holds up the end of the
/// lane, and not the main thread.
#[test]
fn a_lane_that_is_slow_to_end_does_not_hold_up_the_main_thread() {
    let redis = RedisServer::start(RedisOptions::default()).expect("a private Redis starts");
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = mute.local_addr().expect("it is bound").to_string();
    let settings = settings_of(None, redis.server(), "slow", vec![address]);
    let host = Arc::new(Host::new(DispatcherId::generate("d0"), String::new()));
    let plan = Plan::from([(0, (*settings.interests).clone())]);
    let mut lanes = Lanes::new(&host, Box::new(move |_, _| Some(settings.clone())));
    lanes.follow(plan).expect("it starts");
    let (_dialing, _) = mute.accept().expect("its dialer connects");
    lanes.stop();
    let ends = lanes.ends();
    let began = Instant::now();
    let election = ends.recv_timeout(LIMIT).expect("its election ends");
    assert!(matches!(election, End::Election(0)));
    let ended = began.elapsed();
    assert!(lanes.join(election).expect("no failure") && !lanes.is_empty());
    assert!(began.elapsed() - ended < Duration::from_millis(500), "{:?}", began.elapsed() - ended);
    let threads = ends.recv_timeout(LIMIT).expect("its threads end");
    assert!(lanes.join(threads).expect("no failure") && lanes.is_empty());
}

#[test]
fn two_lanes_of_one_process_lead_deliver_and_log_each_by_itself() {
    log::set_logger(&Capture).expect("no other test logs");
    log::set_max_level(log::LevelFilter::Info);
    let redis = RedisServer::start(RedisOptions::default()).expect("a private Redis starts");
    let groups = ["orders", "mails"];
    let (consumers, received): (Vec<String>, Vec<_>) = groups
        .iter()
        .map(|group| {
            let (payloads, received) = unbounded();
            (consumer(group, payloads), (*group, received))
        })
        .unzip();
    let lanes = groups.iter().zip(consumers);
    let settings = lanes.map(|(group, consumer)| settings_of(Some(group), redis.server(), group, vec![consumer]));
    let settings: Vec<crate::lane::Settings> = settings.collect();
    let host = Arc::new(Host::new(DispatcherId::generate("d0"), String::new()));
    let plan: Plan = (0..2).map(|lane| (lane, (*settings[usize::from(lane)].interests).clone())).collect();
    let (handle, requests) = shutdown_channel();
    let process = thread::spawn({
        let host = host.clone();
        move || {
            let lanes = Lanes::new(&host, Box::new(move |lane, _| settings.get(usize::from(lane)).cloned()));
            run_lanes(&host, lanes, Some(plan), &never(), Balance::new(Duration::MAX), None, &requests)
        }
    });

    wait_for(&host, "both to lead", |lane| get(&lane.stats.leading) == 1 && lane.stats.linked.lock().len() == 1);
    publish(&redis, &received);
    wait_for(&host, "both to have an ACK", |lane| get(&lane.stats.acked) == 1);

    let text = exposition::metrics(&host).text().expect("it is text");
    for line in ["leader{lane=\"orders\"} 1", "messages_acked_total{lane=\"mails\"} 1"] {
        assert!(text.contains(&format!("\noncecast_{line}\n")), "{line}: {text}");
    }
    assert!(text.contains("oncecast_in_flight{lane=\"orders\",consumer=\"orders\"} 0"), "{text}");

    let ran = host.lanes();
    handle.shutdown();
    process.join().expect("no panic").expect("a clean end");
    for hosted in ran.iter() {
        let name = hosted.lane.settings.name.as_deref().expect("a name");
        let leader = ("leader", Some(Epoch(get(&hosted.lane.stats.epoch))));
        // Lines of the election, of a worker of the term, and of the main thread, which belongs to no lane.
        assert_eq!((logged(name, "event=elected"), logged(name, "event=taken-over")), (leader, leader));
        assert_eq!(logged(name, "event=started"), ("starting", None));
        assert_eq!(logged(name, "event=stopped"), ("stopped", None));
    }
    assert_ne!(get(&ran[0].lane.stats.epoch), 0);
}
