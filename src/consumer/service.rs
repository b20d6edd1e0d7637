//! A consumer's life: how it starts, its main loop, and the order in which it stops. Runs on the thread that calls
//! [`Consumer::run`], which owns all other parts and joins their threads.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select_biased, tick};
use log::{info, warn};

use super::desk::{Desks, Terms};
use super::error::{Error, Result, SettingName};
use super::handler::Handler;
use super::lanes::{Lanes, Place};
use super::observer::{LogOnly, OBSERVE_WITHIN, Observer};
use super::pool::{self, Pool};
use super::server::ConsumerServer;
use super::stats::ConsumerStats;
use crate::base::log_context::{self, LogContext};
use crate::base::retry_policy::RetryPolicy;
use crate::base::shutdown::{ShutdownHandle, ShutdownRequests};
use crate::base::text::Quoted;
use crate::ledger::{Keys, Server as RedisServer};
use crate::net::{LinkSecret, Listener, ServerTls};

/// How often the rate of messages is logged while there are any.
const RATE_INTERVAL: Duration = Duration::from_secs(3);
/// How often a stopping consumer checks for handlers that have timed out.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long Redis may fail to store results before the consumer accepts no more messages and returns those that no
/// handler has begun.
const REDIS_LIMIT: Duration = Duration::from_secs(5);
/// How long connections may take to close when the consumer stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long threads that should have nothing left to do may take to end.
const JOIN_LIMIT: Duration = Duration::from_millis(500);

/// A consumer that listens and is ready to [`run`](Consumer::run). [`Consumer::builder`] makes one.
pub struct Consumer {
    pub(super) settings: Settings,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) listener: Listener,
    pub(super) local_addr: SocketAddr,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) shutdown: (ShutdownHandle, ShutdownRequests),
}

/// Shows no password, and nothing of the handler, which need not implement `Debug`.
impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("consumer_id", &self.settings.consumer_id)
            .field("local_addr", &self.local_addr)
            .field("group", &self.settings.keys.group)
            .field("redis", &self.settings.redis.shown())
            .field("concurrency", &self.settings.concurrency)
            .field("prefetch", &self.settings.prefetch)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// What the builder has checked.
pub(super) struct Settings {
    pub(super) redis: RedisServer,
    pub(super) keys: Keys,
    pub(super) consumer_id: String,
    pub(super) concurrency: usize,
    pub(super) prefetch: u32,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) result_maxlen: Option<NonZeroU64>,
    pub(super) drain_timeout: Duration,
    pub(super) setting_name: SettingName,
    pub(super) tls: Option<ServerTls>,
    pub(super) secret: Option<LinkSecret>,
}

impl Settings {
    /// Whether whoever reaches the port may claim to be the dispatcher.
    fn admits_anyone(&self) -> bool {
        self.secret.is_none() && !self.tls.as_ref().is_some_and(ServerTls::requires_certificates)
    }
}

/// Why normal work ended.
enum Ended {
    Asked,
    Broken(&'static str),
}

/// The running parts, in the order in which they stop.
struct Parts {
    handler: Arc<dyn Handler>,
    pool: Pool,
    server: ConsumerServer,
    desks: Arc<Desks>,
    lanes: Arc<Lanes>,
    /// What new connections need: read again when it changes, so that the log soon says whether it can be used.
    files: (Option<ServerTls>, Option<LinkSecret>),
}

impl Consumer {
    /// The address that the consumer listens on, with the actual port if port 0 was requested.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The name by which dispatchers know this consumer, and which
    /// [`Delivery::consumer_id`](crate::Delivery::consumer_id) returns.
    pub fn consumer_id(&self) -> &str {
        &self.settings.consumer_id
    }

    /// The consumer's counters. They can be read while it runs and afterwards.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Its TLS, if dispatchers must connect with it.
    #[doc(hidden)]
    pub fn tls(&self) -> Option<ServerTls> {
        self.settings.tls.clone()
    }

    /// A handle that stops the consumer from another thread. The consumer first finishes the messages that it holds,
    /// for at most the drain timeout. A second request stops it immediately.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.0.clone()
    }

    /// Makes SIGTERM, SIGINT and SIGHUP stop this consumer. SIGINT and SIGHUP stay ignored if they were ignored when
    /// the process started. Only one consumer in a process can use this. Needs the feature `signals`.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] if another part of this process already catches signals, or if they can't be caught.
    #[cfg(feature = "signals")]
    pub fn stop_on_signals(&self) -> Result<()> {
        let caught = self.shutdown.0.on_signals();
        caught.map_err(|error| Error::start("catching signals")(std::io::Error::other(error.to_string())))
    }

    /// Serves dispatchers until the consumer is asked to stop. Blocks the calling thread; the consumer's own threads do
    /// the work.
    ///
    /// Redis need not be reachable: results that it does not store are kept and retried. If a handler does not return
    /// in time when the consumer stops, its thread is left behind.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] for a thread that could not be started, [`Error::Failed`] for one that ended on its own.
    pub fn run(self) -> Result<()> {
        let before = log_context::current();
        log_context::enter(&LogContext::new("consumer"));
        let outcome = self.run_with(&mut LogOnly::default());
        log_context::enter(&before);
        outcome
    }

    /// Like [`run`](Consumer::run), with an observer that is called regularly, and in the calling thread's log context.
    /// It is for a program that only runs one consumer.
    #[doc(hidden)]
    pub fn run_with(self, observer: &mut dyn Observer) -> Result<()> {
        let Consumer { settings, handler, listener, local_addr, stats, shutdown } = self;
        let consumer_id = Quoted(&settings.consumer_id);
        info!(
            "event=started consumer_id={consumer_id} group={} redis={} concurrency={} prefetch={}",
            Quoted(&settings.keys.group),
            Quoted(&settings.redis.shown()),
            settings.concurrency,
            settings.prefetch
        );
        let drain_timeout = settings.drain_timeout;
        let is_open = settings.admits_anyone() && !local_addr.ip().is_loopback();
        let secret_setting = (settings.setting_name)("link_secret_file");
        let running = Parts::start(settings, handler, listener, stats)?;
        info!("event=listening address={local_addr}");
        if is_open {
            let problem = format!(
                "whoever reaches this address may claim to be the dispatcher; give {secret_setting} here and to the \
                 dispatchers, or require certificates of them"
            );
            warn!("event=listens-openly address={local_addr} problem={}", Quoted(problem));
        }
        let ended = running.work(&shutdown.1, observer);
        running.desks.stats().set_stopping();
        observer.stopping();
        running.stop(&ended, &shutdown.1, drain_timeout);
        match ended {
            Ended::Asked => Ok(()),
            Ended::Broken(part) => Err(Error::Failed { part }),
        }
    }
}

impl Parts {
    fn start(
        settings: Settings,
        handler: Arc<dyn Handler>,
        listener: Listener,
        stats: Arc<ConsumerStats>,
    ) -> Result<Parts> {
        let Settings { concurrency, prefetch, retry, result_maxlen, tls, secret, .. } = settings;
        let name = Arc::from(settings.consumer_id.as_str());
        let terms = Terms {
            consumer_id: settings.consumer_id,
            prefetch,
            concurrency,
            handler_timeout: settings.handler_timeout,
            redis_limit: REDIS_LIMIT,
            setting_name: settings.setting_name,
        };
        let desks = Arc::new(Desks::new(terms, stats.clone()));
        let place = Place { redis: settings.redis, keys: settings.keys, result_maxlen };
        let lanes = Arc::new(Lanes::start(place, desks.clone(), stats)?);
        // The first dispatcher must not deliver messages to a handler that can't work yet.
        check(&desks, &*handler);
        let pool = Pool::start(concurrency, handler.clone(), name, retry, &desks)?;
        let server = ConsumerServer::start(listener, tls.clone(), secret.clone(), lanes.clone())?;
        Ok(Parts { handler, pool, server, desks, lanes, files: (tls, secret) })
    }

    /// The main loop: works until the request to stop, or until a part of the consumer fails.
    fn work(&self, requests: &ShutdownRequests, observer: &mut dyn Observer) -> Ended {
        let stats = self.desks.stats();
        let committer_ended = self.lanes.ended();
        let (looks, ticks) = (tick(observer.interval()), tick(RATE_INTERVAL));
        let mut rate = RateLog::new();
        loop {
            select_biased! {
                recv(requests.receiver()) -> _ => return Ended::Asked,
                recv(committer_ended) -> _ => return Ended::Broken("committer"),
                recv(self.pool.ended()) -> _ => return Ended::Broken("handler threads"),
                recv(looks) -> _ => {
                    check(&self.desks, &*self.handler);
                    self.lanes.tidy(Instant::now());
                    if self.lanes.has_ended() {
                        return Ended::Broken("committer");
                    }
                    observer.observe(stats);
                    stats.main.beat(OBSERVE_WITHIN);
                }
                recv(ticks) -> _ => {
                    rate.log(stats);
                    self.look_at_files();
                }
            }
        }
    }

    fn look_at_files(&self) {
        let (tls, secret) = &self.files;
        drop(secret.as_ref().map(LinkSecret::current));
        let _ = tls.as_ref().and_then(ServerTls::certificate_end);
    }

    /// Stops all parts in order.
    ///
    /// The server stops last, so that dispatchers can connect and are answered until no message is held or the rest is
    /// given up. A new leader that found no consumer here would deliver messages to other consumers while this one
    /// still works on them.
    fn stop(self, ended: &Ended, requests: &ShutdownRequests, drain_timeout: Duration) {
        let Parts { handler, pool, server, desks, lanes, files: _ } = self;
        // A lane that this consumer does not know holds nothing here.
        lanes.close();
        let drained = match ended {
            Ended::Asked => drain(&desks, &*handler, requests, drain_timeout),
            Ended::Broken(_) => {
                desks.drain();
                false
            }
        };
        let stuck = pool.join(JOIN_LIMIT);
        let committed = lanes.join(JOIN_LIMIT);
        server.close(CLOSE_LIMIT);
        report_stop(desks.stats(), drained, stuck, committed);
    }
}

/// The rate of messages, for the log.
struct RateLog {
    received: u64,
    processed: u64,
    at: Instant,
}

impl RateLog {
    fn new() -> RateLog {
        RateLog { received: 0, processed: 0, at: Instant::now() }
    }

    /// Logs the rate since the last call, if there were any messages.
    fn log(&mut self, stats: &ConsumerStats) {
        let before = std::mem::replace(
            self,
            RateLog { received: stats.received.get(), processed: stats.processed(), at: Instant::now() },
        );
        let per_s = (self.processed - before.processed) as f64 / before.at.elapsed().as_secs_f64();
        let failure = stats.take_last_failure();
        if self.received > before.received || self.processed > before.processed || failure.is_some() {
            info!("event=rate processed_per_s={per_s:.0} {}", LoggedCounters(stats));
        }
        if let Some(failure) = failure {
            warn!("event=handler-failed sample={}{}", Quoted(&failure), failure.log_field);
        }
    }
}

/// Checks what changes with time. The handler is asked before the desk is locked, because its answer may take a while.
fn check(desks: &Desks, handler: &dyn Handler) {
    let asked = Instant::now();
    desks.check(pool::ask_ready(handler), asked, Instant::now());
}

/// Finishes the held messages; `false` if that took too long, or if a second request to stop came.
fn drain(desks: &Desks, handler: &dyn Handler, requests: &ShutdownRequests, limit: Duration) -> bool {
    info!("event=draining held={} limit_ms={}", desks.stats().held(), limit.as_millis());
    let drained = desks.drain();
    let (limit, ticks) = (after(limit), tick(DRAIN_CHECK_INTERVAL));
    loop {
        select_biased! {
            recv(drained) -> _ => return true,
            recv(requests.receiver()) -> _ => return false,
            recv(limit) -> _ => return false,
            // A handler may time out meanwhile, or be ready again.
            recv(ticks) -> _ => check(desks, handler),
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
    info!("event=stopped drained={drained} {}", LoggedCounters(stats));
}

/// The counters as a part of a log line.
struct LoggedCounters<'a>(&'a ConsumerStats);

impl fmt::Display for LoggedCounters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
