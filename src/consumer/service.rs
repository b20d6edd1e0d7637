//! The consumer: a WebSocket server that runs a handler on each message it is handed and records each outcome once.
//!
//! ```text
//!  dispatcher ──► read-N ──PROCESS──► desk ──► handler-N ──outcome──► commit ──► Redis
//!      ▲                               │           │                    │
//!      └───────── write-N ◄── outbox ◄─┴── NACK ◄──┴───────── ACK ◄─────┘
//! ```
//!
//! In reading order: `handler` is what a user writes, [`stamp`] the built-in one; `builder` checks the settings;
//! this file starts and stops the rest. `server` accepts connections and owns their threads, `refusals` bounds what
//! strangers cost; `link` is one connection, which begins with a `handshake`; `inlet` is its reading side, `socket` and
//! `outbox` are what its two threads share; `epochs` asks Redis whether a new leader's epoch is true; `desk`
//! decides who may hand messages over and where answers go; `pool` runs handlers, `commit` records what they give.
//!
//! Guarantees: a message is acknowledged only after Redis has said that its outcome is recorded; of several outcomes
//! for one message the first is recorded and the others dropped; everything accepted is answered, to the dispatcher that
//! rules by then. Everything that can grow has a limit: connections (`server`), messages in hand (prefetch), their
//! bytes (`desk`), what waits for Redis (`pool`) and for a socket (`outbox`).

mod builder;
mod commit;
mod desk;
mod epochs;
mod exposition;
mod handler;
mod handshake;
mod inlet;
mod link;
mod outbox;
mod pool;
mod refusals;
mod server;
mod socket;
mod stamp;
mod stats;
mod trust;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, bounded, select_biased, tick};
use log::{info, warn};

use self::commit::Committer;
use self::desk::{Desk, Terms};
use self::epochs::Epochs;
use self::pool::Pool;
use self::server::Server;
use crate::base::error::{Error, Result};
use crate::base::shutdown::{ShutdownHandle, ShutdownRequests};
use crate::ledger::{Keys, Ledger, Server as RedisServer};
use crate::process::log::Quoted;
use crate::process::supervision::{Condition, LOOK_WITHIN, Supervisor};

pub use self::builder::ConsumerBuilder;
pub use self::handler::{Delivery, Handler, HandlerError, Outcome};
pub(crate) use self::stamp::outcome_of;
pub use self::stamp::stamp;
pub use self::stats::{ConsumerStats, Counter};

/// How often the rate of messages is logged while there are any.
const RATE_INTERVAL: Duration = Duration::from_secs(3);
/// How often a consumer that stops looks what has changed with time.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long Redis may take no results before the consumer accepts nothing more and hands back what it has not begun.
const REDIS_LIMIT: Duration = Duration::from_secs(5);
/// How long connections may take to close when the consumer stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long threads that should have nothing left to do may take to end.
const JOIN_LIMIT: Duration = Duration::from_millis(500);

/// A consumer that listens and is ready to [`run`](Consumer::run).
pub struct Consumer {
    settings: Settings,
    handler: Arc<dyn Handler>,
    listener: TcpListener,
    local_addr: SocketAddr,
    stats: Arc<ConsumerStats>,
    shutdown: (ShutdownHandle, ShutdownRequests),
}

/// What the builder has checked.
struct Settings {
    redis: RedisServer,
    keys: Keys,
    consumer_id: String,
    concurrency: usize,
    prefetch: u32,
    handler_timeout: Option<Duration>,
    result_maxlen: u64,
    drain_timeout: Duration,
    metrics_addr: Option<String>,
    service: bool,
}

/// How the time of normal work ended.
enum Ended {
    Asked,
    Broken(&'static str),
}

impl Consumer {
    /// The settings, each with a default; only the handler must be given.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }

    /// Where it listens; tells the port if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The name it introduces itself with.
    pub fn consumer_id(&self) -> &str {
        &self.settings.consumer_id
    }

    /// What it counts; stays readable while it runs and after.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Asks it to stop: it finishes what it has in hand, for at most the drain timeout. Asked again it stops at once.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.0.clone()
    }

    /// Serves dispatchers until it is asked to stop. The order of start and stop is all here.
    ///
    /// Redis need not be there: what it does not take is kept and tried again. A handler that does not return in time
    /// is left behind on its thread. The error says which part of the consumer could not be started or broke.
    pub fn run(self) -> Result<()> {
        let Consumer { settings, handler, listener, local_addr, stats, shutdown } = self;
        let consumer_id = Quoted(&settings.consumer_id);
        info!(
            "event=started consumer_id={consumer_id} group={} redis={} concurrency={} prefetch={}",
            Quoted(&settings.keys.group),
            Quoted(settings.redis.shown()),
            settings.concurrency,
            settings.prefetch
        );
        // First, since an address in use is what most often goes wrong here, and nothing has to be stopped yet.
        let metrics_addr = settings.metrics_addr.as_deref();
        let metrics = metrics_addr.map(|address| exposition::serve(address, &stats)).transpose()?;
        let desk = Arc::new(Desk::new(
            Terms {
                group: settings.keys.group.clone(),
                consumer_id: settings.consumer_id.clone(),
                prefetch: settings.prefetch,
                concurrency: settings.concurrency,
                handler_timeout: settings.handler_timeout,
                redis_limit: REDIS_LIMIT,
            },
            stats.clone(),
        ));
        // Room for all that may be in hand, so that hardly anyone ever waits to send.
        let (commits, for_committer) = bounded(settings.prefetch as usize);
        let keys = Arc::new(settings.keys.clone());
        let epochs = Arc::new(Epochs::new(settings.redis.clone(), keys.clone(), stats.clone()));
        let ledger = Ledger::new(settings.redis.clone(), keys, commit::REPLY_TIMEOUT);
        let committer = Committer::start(ledger, settings.result_maxlen, desk.clone(), for_committer)?;
        let name = Arc::from(settings.consumer_id.as_str());
        let pool = Pool::start(settings.concurrency, handler, name, &desk, &commits)?;
        drop(commits);
        let server = Server::start(listener, desk.clone(), epochs)?;
        info!("event=listening address={local_addr}");

        let mut supervisor = if settings.service { Supervisor::from_environment() } else { Supervisor::unnoticed() };
        let ended = work(&shutdown.1, &desk, committer.ended(), pool.ended(), &mut supervisor);

        stats.set_stopping();
        supervisor.stopping();
        let drained = match ended {
            Ended::Asked => drain(&desk, &shutdown.1, settings.drain_timeout),
            Ended::Broken(_) => {
                desk.drain();
                false
            }
        };
        // Until nothing is in hand any more, or what is left is given up, dispatchers may come and are answered: a new leader
        // that found nobody here would give others what this consumer is at work on. So the server goes last.
        let stuck = pool.join(JOIN_LIMIT);
        let committed = committer.join(JOIN_LIMIT);
        server.close(CLOSE_LIMIT);
        drop(metrics);
        report_stop(&stats, drained, stuck, committed);
        match ended {
            Ended::Asked => Ok(()),
            Ended::Broken(part) => Err(Error::Failed(format!("the consumer's {part} ended, which is a bug"))),
        }
    }
}

/// The time of normal work: waits for the request to stop; meanwhile it says how the consumer is and logs the rate.
fn work(
    requests: &ShutdownRequests,
    desk: &Desk,
    committer_ended: &Receiver<()>,
    pool_ended: &Receiver<()>,
    supervisor: &mut Supervisor,
) -> Ended {
    let (stats, ticks) = (desk.stats(), tick(RATE_INTERVAL));
    let (mut last_received, mut last_processed, mut last_tick) = (0, 0, Instant::now());
    loop {
        select_biased! {
            recv(requests.receiver()) -> _ => return Ended::Asked,
            recv(committer_ended) -> _ => return Ended::Broken("committer"),
            recv(pool_ended) -> _ => return Ended::Broken("handler threads"),
            recv(supervisor.ticks()) -> _ => {
                desk.look(Instant::now());
                supervisor.report(&condition(stats));
                stats.main.beat(LOOK_WITHIN);
                continue;
            }
            recv(ticks) -> _ => {}
        }
        let (received, processed, elapsed) = (stats.received.get(), stats.processed(), last_tick.elapsed());
        let rate = (processed - last_processed) as f64 / elapsed.as_secs_f64();
        let failure = stats.take_last_failure();
        if received > last_received || processed > last_processed || failure.is_some() {
            info!("event=rate processed_per_s={rate:.0} {}", Totals(stats));
        }
        if let Some(failure) = failure {
            warn!("event=handler-failed sample={}", Quoted(failure));
        }
        (last_received, last_processed, last_tick) = (received, processed, Instant::now());
    }
}

/// How the consumer is, for whoever watches over it. Handlers are not watched: they may take their time.
fn condition(stats: &ConsumerStats) -> Condition {
    Condition {
        ready: stats.ready(),
        hung: stats.committer_hangs().then_some("committer"),
        waits: false,
        doing: match stats.ruling_epoch() {
            0 => "waits for a dispatcher".to_owned(),
            epoch => format!("serves the dispatcher of epoch {epoch}"),
        },
    }
}

/// Finishes what is in hand; `false` if that took too long or was to stop at once.
fn drain(desk: &Desk, requests: &ShutdownRequests, limit: Duration) -> bool {
    info!("event=draining held={} limit_ms={}", desk.stats().held(), limit.as_millis());
    let drained = desk.drain();
    let (limit, ticks) = (after(limit), tick(LOOK_INTERVAL));
    loop {
        select_biased! {
            recv(drained) -> _ => return true,
            recv(requests.receiver()) -> _ => return false,
            recv(limit) -> _ => return false,
            // A handler may run out of its time meanwhile.
            recv(ticks) -> _ => desk.look(Instant::now()),
        }
    }
}

fn report_stop(stats: &ConsumerStats, drained: bool, stuck: usize, committed: bool) {
    if stuck > 0 {
        warn!("event=handlers-left-behind count={stuck}");
    }
    if !committed {
        warn!("event=committer-left-behind reason=\"Redis does not answer\"");
    }
    info!("event=stopped drained={drained} {}", Totals(stats));
}

/// The counters as a part of a log line.
struct Totals<'a>(&'a ConsumerStats);

impl std::fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stats = self.0;
        write!(
            f,
            "received={} recorded={} dropped={} retried={} rejected={} panicked={} timed_out={} held={}",
            stats.received.get(),
            stats.recorded.get(),
            stats.dropped.get(),
            stats.retried.get(),
            stats.rejected.get(),
            stats.panicked.get(),
            stats.timed_out.get(),
            stats.held()
        )
    }
}
