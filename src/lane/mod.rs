//! The dispatcher: competes for leadership, and as leader takes messages in and hands them out.
//!
//! ```text
//!  main ── signals, wiring, ordered shutdown
//!   ├─ listener ──────── ring                             in every dispatcher, always
//!   ├─ reporter ──────── says once a second how this dispatcher is, and looks how the group stands
//!   ├─ dialers ───────── one for each consumer: connect, greet, hand the link to the courier
//!   └─ election ──────── the lease; the main loop of the service
//!        └─ a term, while leader: three workers that all check one kill switch
//!             ingest ──arrivals──▶ courier ──tasks──▶ redistributor
//!                                     ▲◀────news───────────┘
//! ```
//!
//! Ends in order: the election stops its term and gives the lease back, then the dialers and last the listener go,
//! since the lease counts as abandoned once the listener's connection is closed.

mod backlog;
mod courier;
mod dead_letters;
mod deaths;
mod dialer;
mod election;
mod exposition;
mod greeting;
mod health;
pub mod hearing;
mod ingest;
mod kill_switch;
pub mod lease;
mod link;
pub mod listener;
mod places;
mod precedence;
mod reach;
mod redistributor;
mod refused;
mod reporter;
mod retry;
pub mod retry_policy;
pub mod ring;
mod sockets;
mod stats;
mod strays;
mod stream;
mod table;
mod term;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, select};
use parking_lot::Mutex;

use self::dialer::Dialers;
use self::election::Election;
use self::reporter::Reporter;
use crate::base::error::{Error, Result};
use crate::base::id::{DispatcherId, Epoch, MessageId, wall_clock_us};
use crate::base::shutdown::ShutdownRequests;
use crate::base::text::Quoted;
use crate::base::trouble::Troubles;
use crate::lane::listener::{Listener, ListenerStats};
use crate::lane::ring::Ring;
use crate::ledger::subscription::Channels;
use crate::process::supervision::{LOOK_WITHIN, Supervisor};
use crate::programs::dispatcher::settings::DispatcherConfig;

pub use self::health::Pulses;
pub use self::reporter::Board;
pub use self::stats::DispatcherStats;

/// What all parts of a dispatcher share.
pub struct Shared {
    /// The settings.
    pub config: DispatcherConfig,
    /// This process.
    pub id: DispatcherId,
    /// What was seen on the channel.
    pub ring: Arc<Ring>,
    /// Figures of the subscription.
    pub listener: Arc<ListenerStats>,
    /// Figures of everything else.
    pub stats: DispatcherStats,
    /// Signs of life of its threads.
    pub pulses: Pulses,
    /// How the group stands, as this dispatcher last saw it.
    pub board: Board,
    /// What is wrong with the way to Redis.
    pub troubles: Arc<Troubles>,
    /// The highest message id that this process has heard of.
    highest_id: AtomicU64,
    /// When this dispatcher led last: its epoch, and a message that it took in and gave to nobody. Redis must have it.
    witness: Mutex<Option<(Epoch, MessageId)>>,
}

/// How long a worker waits for a reply of Redis, at most: what it asks may be asked again.
const REPLY_LIMIT: Duration = Duration::from_secs(2);

impl Shared {
    /// This id has been given out.
    fn note_id(&self, id: MessageId) {
        self.highest_id.fetch_max(id.0, Ordering::Relaxed);
    }

    /// The id after which a term's ids begin, if Redis says that `known` was the last.
    ///
    /// Where Redis has lost some of its data, or our clock is behind another's, ids beyond the known ones may have been
    /// given out and be in a consumer's hands: a stretch is left out, so that none is used twice.
    fn last_id_before(&self, known: Option<MessageId>) -> MessageId {
        last_id_before(known, MessageId(self.highest_id.load(Ordering::Relaxed)), wall_clock_us())
    }
}

fn last_id_before(known: Option<MessageId>, heard_of: MessageId, now_us: u64) -> MessageId {
    /// More than a leader gives out between two looks, by a clock that is not too far ahead.
    const LEFT_OUT: u64 = 10_000_000;
    let known = known.unwrap_or(MessageId::ZERO);
    if heard_of <= known && known.0 < now_us {
        return known;
    }
    MessageId(known.max(heard_of).0.max(now_us) + LEFT_OUT)
}

/// A dispatcher that has not started yet.
pub struct Dispatcher {
    shared: Arc<Shared>,
}

impl Dispatcher {
    /// A dispatcher with these settings and a new id.
    pub fn new(config: DispatcherConfig) -> Dispatcher {
        let id = DispatcherId::generate(&config.name);
        let ring = Arc::new(Ring::new(config.ring_bytes));
        let shared = Shared {
            config,
            id,
            ring,
            listener: Arc::default(),
            stats: DispatcherStats::default(),
            pulses: Pulses::default(),
            board: Board::default(),
            troubles: Arc::default(),
            highest_id: AtomicU64::new(0),
            witness: Mutex::default(),
        };
        Dispatcher { shared: Arc::new(shared) }
    }

    /// What its parts share: the id, the figures.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs until asked to stop. A Redis that can't be reached is no reason to end.
    pub fn run(self, requests: ShutdownRequests) -> Result<()> {
        let shared = self.shared;
        log::info!(
            "event=started version={} redis={} group={} channel={} consumers={}",
            env!("CARGO_PKG_VERSION"),
            shared.config.common.redis.shown(),
            Quoted(&shared.config.common.keys.group),
            Quoted(&shared.config.channel),
            shared.config.consumers.len()
        );
        let (retry, max_deliveries) = (shared.config.retry, shared.config.max_deliveries);
        let dead_after_s = retry.dead_after(max_deliveries).as_secs_f64();
        log::info!("event=retry-policy retry={retry} max_deliveries={max_deliveries} dead_after_s={dead_after_s}");
        let metrics_addr = shared.config.common.metrics_addr.as_deref();
        let metrics = metrics_addr.map(|address| exposition::serve(address, &shared)).transpose()?;
        let channels = Channels {
            server: shared.config.common.redis.clone(),
            keys: Arc::new(shared.config.common.keys.clone()),
            published: shared.config.channel.clone(),
            dispatcher: shared.id.clone(),
        };
        let (released, released_news) = bounded(1);
        let listener =
            Listener::start(channels, shared.ring.clone(), shared.listener.clone(), shared.troubles.clone(), released)?;
        let dialers = Dialers::start(&shared)?;
        let reporter = Reporter::start(&shared)?;
        let election = Election::new(shared.clone(), dialers.requests(), released_news, requests);
        let (alive, ended) = bounded::<()>(0);
        let election = thread::Builder::new()
            .name("election".to_owned())
            .spawn(move || {
                let _alive = alive;
                election.run()
            })
            .map_err(Error::io("starting the thread election"))?;
        let mut supervisor = Supervisor::from_environment();
        loop {
            select! {
                // Nothing is ever sent: the election has ended.
                recv(ended) -> _ => break,
                recv(supervisor.ticks()) -> _ => supervisor.report(&health::condition(&shared)),
            }
            shared.pulses.main.beat(LOOK_WITHIN);
        }
        supervisor.stopping();
        let outcome = election.join().unwrap_or_else(|_| Err(Error::Failed("the thread election panicked".to_owned())));
        drop(dialers);
        drop(reporter);
        drop(listener);
        drop(metrics);
        crate::process::log::set_role("stopped", Epoch::default());
        log::info!("event=stopped {}", shared.stats.summary());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_on_after_the_last_known_one() {
        assert_eq!(last_id_before(None, MessageId::ZERO, 5), MessageId::ZERO);
        assert_eq!(last_id_before(Some(MessageId(1_000)), MessageId(1_000), 2_000), MessageId(1_000));
    }

    #[test]
    fn no_id_comes_back_after_a_loss_or_with_a_clock_that_is_behind() {
        let second = 1_000_000;
        assert!(last_id_before(Some(MessageId(1_000)), MessageId::ZERO, 900).0 > 5 * second, "a clock that is behind");
        assert!(
            last_id_before(Some(MessageId(1_000)), MessageId(3_000), 5_000).0 > 5 * second,
            "a cursor that went back"
        );
        assert!(last_id_before(None, MessageId(3_000), 5_000).0 > 5 * second, "a cursor that is gone");
    }
}
