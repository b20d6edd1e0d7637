//! The dispatcher: competes for leadership, and as leader takes messages in and hands them out.
//!
//! ```text
//!  main ── signals, wiring, ordered shutdown
//!   ├─ listener ──────── ring                             in every dispatcher, always
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
mod dialer;
mod election;
mod exposition;
mod ingest;
mod link;
mod redistributor;
mod retry;
mod sockets;
mod stats;
mod table;
mod term;

use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;

use self::dialer::Dialers;
use self::election::Election;
use crate::config::DispatcherConfig;
use crate::error::{Error, Result};
use crate::id::{DispatcherId, Epoch};
use crate::ledger::subscription::Channels;
use crate::listener::{Listener, ListenerStats};
use crate::log::Quoted;
use crate::ring::Ring;
use crate::shutdown::ShutdownRequests;

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
        let shared = Shared { config, id, ring, listener: Arc::default(), stats: DispatcherStats::default() };
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
        let metrics_addr = shared.config.common.metrics_addr.as_deref();
        let metrics = metrics_addr.map(|address| exposition::serve(address, &shared)).transpose()?;
        let channels = Channels {
            server: shared.config.common.redis.clone(),
            keys: Arc::new(shared.config.common.keys.clone()),
            published: shared.config.channel.clone(),
            dispatcher: shared.id.clone(),
        };
        let (released, released_news) = bounded(1);
        let listener = Listener::start(channels, shared.ring.clone(), shared.listener.clone(), released)?;
        let dialers = Dialers::start(&shared)?;
        let election = Election::new(shared.clone(), dialers.requests(), released_news, requests);
        let election = thread::Builder::new()
            .name("election".to_owned())
            .spawn(move || election.run())
            .map_err(Error::io("starting the thread election"))?;
        let outcome = election.join().unwrap_or_else(|_| Err(Error::Failed("the thread election panicked".to_owned())));
        drop(dialers);
        drop(listener);
        drop(metrics);
        crate::log::set_role("stopped", Epoch::default());
        log::info!("event=stopped {}", shared.stats.summary());
        outcome
    }
}
