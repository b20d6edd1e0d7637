//! A dialer: the thread that connects to one consumer, greets it and passes the link to the courier.
//!
//! Name lookups, connects and handshakes may block for seconds. On a dialer's thread they delay neither the courier nor
//! other dialers. A dialer lives as long as its consumer is on the [roster](super::roster), and works on request: it
//! retries until the link is up or the term ends.

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tungstenite::WebSocket;

use super::greeting::{self, Greeted, GreetingError, Introduction};
use super::link::NewLink;
use super::link_hint::with_hint;
use super::roster::{Member, MemberId, Target};
use super::settings::Settings;
use super::shared::Shared;
use super::sockets::Waker;
use super::stats::add;
use crate::base::backoff::Backoff;
use crate::base::id::Epoch;
use crate::base::text::{Quoted, beginning};
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::ledger::Keys;
use crate::net::{self, ClientTls, Keepalive, Stream};

/// How long connecting to one address may take, and then its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The link timeout detects a silent link. Keepalive frees the system's state of a dead connection.
const KEEPALIVE: Keepalive = Keepalive { after: Duration::from_secs(10), every: Duration::from_secs(75) };
/// How often one consumer can make the dispatcher take a higher epoch.
const RAISE_EVERY: Duration = Duration::from_secs(60);
/// The wait after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait between attempts.
const MOST_WAIT: Duration = Duration::from_secs(1);
/// After a link that lasted this long, the next attempt is made at once.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A request for a link, for one term.
pub(super) struct Dial {
    pub(super) epoch: Epoch,
    pub(super) kill: KillSwitch,
    pub(super) news: Sender<LinkNews>,
    pub(super) waker: Waker,
    /// The previous connection, if the consumer should read what is left on it before it closes.
    pub(super) farewell: Option<WebSocket<Stream>>,
}

/// What a dialer is asked for.
pub(super) enum Request {
    /// A link.
    Dial(Dial),
    /// Only to close a connection in order.
    Close(WebSocket<Stream>),
}

/// What a dialer reports to the courier.
pub(super) enum LinkNews {
    /// The link is up.
    Up(Box<NewLink>),
    /// No process listens there now, so none holds anything; the dialer continues.
    Absent(MemberId),
}

/// Returns the addresses of a name that get no link, if there are any. One IPv4 and one IPv6 address may belong to the
/// same consumer.
fn unused(used: SocketAddr, all: &[SocketAddr]) -> Option<String> {
    let mut others: Vec<&SocketAddr> = all.iter().filter(|address| **address != used).collect();
    others.sort();
    others.dedup();
    let same_kind = others.iter().filter(|address| address.is_ipv4() == used.is_ipv4()).count();
    let other_kind = others.len() - same_kind;
    let several = same_kind > 0 || other_kind > 1;
    several.then(|| others.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// The text of HELLO: what a consumer should know about this dispatcher.
fn hello_of(settings: &Settings) -> String {
    /// Keeps HELLO below its limit, however many characters have to be escaped.
    const MAX_LANE_BYTES: usize = 512;
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "link_timeout_ms": settings.link_timeout.as_millis() as u64,
        "max_deliveries": settings.max_deliveries,
        "lane": beginning(settings.name.as_deref().unwrap_or_default(), MAX_LANE_BYTES),
    })
    .to_string()
}

/// See the module's text.
pub(super) struct Dialer {
    member: MemberId,
    target: Arc<Target>,
    /// The text of HELLO.
    hello: String,
    /// Whether it was logged that the name has addresses that get no link.
    logged_unused: Cell<bool>,
    shared: Arc<Shared>,
    asked: Receiver<Request>,
    /// Set when it is to end.
    ended: Arc<AtomicBool>,
    /// When this consumer last made the dispatcher take a higher epoch.
    raised: Option<Instant>,
}

/// Why there is no link.
enum DialError {
    /// No process listens there.
    Absent(io::Error),
    /// The connection could not be made.
    Unreachable(io::Error),
    /// The connection was made, but the greeting failed.
    Greeting(GreetingError),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Absent(error) | DialError::Unreachable(error) => error.fmt(f),
            DialError::Greeting(refusal) => refusal.fmt(f),
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> DialError {
        match error.kind() {
            ErrorKind::ConnectionRefused => DialError::Absent(error),
            _ => DialError::Unreachable(error),
        }
    }
}

impl Dialer {
    /// It works on what is `asked`. It ends when the other end is gone; before that, `ended` interrupts its attempts.
    pub(super) fn new(
        shared: &Arc<Shared>,
        member: &Member,
        asked: Receiver<Request>,
        ended: Arc<AtomicBool>,
    ) -> Dialer {
        Dialer {
            member: member.id,
            target: member.target.clone(),
            hello: hello_of(&shared.settings),
            logged_unused: Cell::new(false),
            shared: shared.clone(),
            asked,
            ended,
            raised: None,
        }
    }

    /// The main loop of the thread.
    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        let mut last_up: Option<(Epoch, Instant)> = None;
        while let Ok(request) = self.asked.recv() {
            let mut dial = match request {
                Request::Dial(dial) => dial,
                Request::Close(socket) => {
                    greeting::flush_and_close(socket);
                    continue;
                }
            };
            if let Some(farewell) = dial.farewell.take() {
                greeting::flush_and_close(farewell);
            }
            // A new term starts with the shortest wait, because it waits only a short time for the consumers' reports.
            if last_up.is_none_or(|(epoch, up)| epoch != dial.epoch || up.elapsed() >= SETTLED_AFTER) {
                backoff.reset();
            } else if dial.kill.wait(backoff.next_wait()) {
                // A link that was lost soon after it was made is not made again at once.
                continue;
            }
            if self.dial(&dial, &mut backoff) {
                last_up = Some((dial.epoch, Instant::now()));
            }
        }
    }

    /// Retries until the link is up or the term ends. Returns whether it is up.
    fn dial(&mut self, dial: &Dial, backoff: &mut Backoff) -> bool {
        let mut said_absent = false;
        while !dial.kill.is_set() && !self.ended.load(Ordering::Acquire) {
            match self.connect(dial) {
                Ok(link) => {
                    self.tell(dial, LinkNews::Up(Box::new(link)));
                    return true;
                }
                Err(refusal) => {
                    if backoff.should_log() {
                        log::warn!(
                            "event=consumer-unreachable address={} setting=consumers error={}",
                            self.target,
                            Quoted(&refusal)
                        );
                    }
                    match refusal {
                        DialError::Absent(_) if !std::mem::replace(&mut said_absent, true) => {
                            self.tell(dial, LinkNews::Absent(self.member));
                        }
                        DialError::Greeting(refusal) => self.learn(dial, refusal.seen_epoch()),
                        // The failure may be temporary, and the consumer may then report what it holds.
                        DialError::Absent(_) | DialError::Unreachable(_) => {}
                    }
                }
            }
            if dial.kill.wait(backoff.next_wait()) {
                break;
            }
        }
        false
    }

    /// The courier may have ended meanwhile, with its term.
    fn tell(&self, dial: &Dial, news: LinkNews) {
        if dial.news.send(news).is_ok() {
            dial.waker.wake();
        }
    }

    /// The consumer has seen a higher epoch than Redis gives out, because Redis has lost data and its clock is behind.
    /// Such a consumer would refuse every leader. So its epoch becomes the floor for the next one, as if a leader had
    /// announced it, and the term ends.
    fn learn(&mut self, dial: &Dial, seen: Option<Epoch>) {
        let Some(seen) = seen.filter(|seen| *seen > dial.epoch) else { return };
        let plausible = self.shared.listener.hearing.is_plausible(seen);
        if !plausible || self.raised.is_some_and(|raised| raised.elapsed() < RAISE_EVERY) {
            return;
        }
        self.raised = Some(Instant::now());
        log::warn!("event=epoch-behind epoch={} seen={seen} address={}", dial.epoch, self.target);
        self.shared.listener.highest_epoch.fetch_max(seen.0, Ordering::Relaxed);
        dial.kill.set(Reason::EpochBehind);
    }

    fn connect(&self, dial: &Dial) -> Result<NewLink, DialError> {
        let Keys { group, base, .. } = &self.shared.settings.keys;
        let secret = self.shared.settings.link_secret.as_ref();
        let introduction = Introduction { epoch: dial.epoch, group, base, hello: &self.hello, secret };
        let (stream, place) = self.open()?;
        let greeted = greeting::greet(stream, self.target.host_port(), introduction, &dial.kill);
        self.note_proof(&greeted);
        let greeted = greeted.map_err(DialError::Greeting)?;
        // Without a certificate of ours the consumer can't know us. Whether it would ask for one is not known here.
        let certified =
            self.target.is_secure() && self.shared.settings.link_tls.as_ref().is_some_and(ClientTls::is_named);
        let is_open = !greeted.proved && !certified && !place.ip().is_loopback();
        Ok(NewLink { member: self.member, address: self.target.to_string().into(), is_open, greeted })
    }

    /// Notes for the figures whether the two have proved the link secret.
    fn note_proof(&self, greeted: &Result<Greeted, GreetingError>) {
        let stats = &self.shared.stats;
        if greeted.as_ref().err().is_some_and(GreetingError::is_unauthenticated) {
            add(&stats.unauthenticated, 1);
            stats.unproven.lock().insert(self.target.to_string());
        } else {
            stats.unproven.lock().remove(&self.target.to_string());
        }
    }

    /// Connects, also by TLS if the address asks for it. Gives the address of the many that a name may have, too.
    fn open(&self) -> io::Result<(Stream, SocketAddr)> {
        let addresses = net::resolve(self.target.host_port())?;
        let (mut stream, used) = net::connect_any(&addresses, CONNECT_TIMEOUT)?;
        if let Some(unused) = unused(used, &addresses)
            && !self.logged_unused.replace(true)
        {
            log::warn!(
                "event=addresses-unused consumer={} used={used} unused={unused} setting=consumers \
                 problem=\"a name leads to one consumer; write dns:{}, or list each address by itself\"",
                self.target,
                self.target.host_port()
            );
        }
        stream.set_keepalive(KEEPALIVE)?;
        if let Some(name) = self.target.tls_name() {
            let tls = self.shared.settings.link_tls.as_ref();
            let tls = tls
                .ok_or_else(|| io::Error::other("its address has TLS, and neither --tls-ca nor --tls-cert is given"))?;
            let secured = stream.secure(tls, name, Instant::now() + CONNECT_TIMEOUT);
            secured.map_err(with_hint)?;
        }
        Ok((stream, used))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use crossbeam_channel::unbounded;
    use tungstenite::Message;

    use super::*;
    use crate::lane::dialers::Dialers;
    use crate::lane::sockets::Sockets;
    use crate::lane::tests::lane_of;
    use crate::wire::{Frame, ReadyFlags};

    /// Greets each dispatcher that connects and leaves at once, for as long as the test runs. Gives its address.
    fn fickle_consumer() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut socket = tungstenite::accept(stream.expect("a connection")).expect("a handshake");
                socket.read().expect("LEAD");
                let ready = Frame::Ready { prefetch: 1, flags: ReadyFlags::COMMITS, consumer: "c0" };
                let answer = [ready.to_vec(), Frame::Held(Vec::new()).to_vec()].concat();
                socket.send(Message::Binary(answer.into())).expect("the dispatcher reads");
            }
        });
        address
    }

    #[test]
    fn addresses_that_get_no_link_are_named() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let of = |all: &[&str]| {
            let all: Vec<SocketAddr> = all.iter().map(|text| address(text)).collect();
            unused(all[0], &all)
        };
        assert_eq!(of(&["10.0.0.1:1"]), None);
        assert_eq!(of(&["[::1]:1", "127.0.0.1:1"]), None, "one machine, most likely");
        assert_eq!(of(&["10.0.0.1:1", "10.0.0.1:1"]), None, "the same");
        assert_eq!(of(&["10.0.0.1:1", "10.0.0.3:1", "10.0.0.2:1"]).as_deref(), Some("10.0.0.2:1,10.0.0.3:1"));
        assert!(of(&["[::1]:1", "10.0.0.1:1", "10.0.0.2:1"]).is_some(), "two IPv4 addresses");
    }

    #[test]
    fn a_new_term_does_not_wait_for_the_links_that_an_older_one_lost() {
        let dialers = Dialers::start(&lane_of(vec![fickle_consumer()])).expect("a thread");
        let sockets = Sockets::new().expect("a poller");
        let (news, links) = unbounded();
        let dial = |epoch| {
            let asked = Instant::now();
            let kill = KillSwitch::until(asked + Duration::from_secs(3600));
            let dial = Dial { epoch: Epoch(epoch), kill, news: news.clone(), waker: sockets.waker(), farewell: None };
            dialers.requests().request(MemberId::first(), dial);
            while !matches!(links.recv().expect("the dialer lives"), LinkNews::Up(_)) {}
            asked.elapsed()
        };
        // Each link is lost as soon as it is made, so each waits longer than the one before.
        while dial(1) < Duration::from_millis(400) {}
        let took = dial(2);
        assert!(took < Duration::from_millis(400), "a new leader waited {took:?}: the reports would come too late");
    }
}
