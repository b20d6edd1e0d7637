//! The reporter of a shadow: once a second it writes the shadow's report, the only thing that a shadow writes.
//!
//! One thread, with a connection of its own. It also checks the server's settings once a minute, since a group that
//! listens to keyspace events hears nothing if Redis does not publish them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::health::{self, Watched};
use crate::base::backoff::Backoff;
use crate::base::error::Result;
use crate::ledger::Ledger;
use crate::ledger::server_check::{self, ServerWatch};
use crate::programs::dispatcher::report_thread::{self, EVERY, REPLY_LIMIT, REPORT_TTL, ReportThread};
use crate::programs::status::shadow::{Compared, ShadowReport};

/// How often the server's settings are checked.
const SETTINGS_EVERY: Duration = Duration::from_secs(60);

/// Starts reporting.
pub(super) fn start(watched: &Arc<Watched>) -> Result<ReportThread> {
    let watched = watched.clone();
    ReportThread::start(move |stopped| ReportLoop::new(watched, stopped).run())
}

struct ReportLoop {
    ledger: Ledger,
    /// The report's key.
    key: String,
    watched: Arc<Watched>,
    /// Disconnected when the thread should stop.
    stopped: Receiver<()>,
    began: Instant,
    /// Logs which of the server's settings endanger the guarantees.
    settings: ServerWatch,
    settings_checked: Option<Instant>,
    backoff: Backoff,
    /// Whether the last report was written.
    reachable: bool,
}

impl ReportLoop {
    fn new(watched: Arc<Watched>, stopped: Receiver<()>) -> ReportLoop {
        let settings = &watched.shadow.settings;
        ReportLoop {
            ledger: Ledger::new(settings.redis.clone(), Arc::new(settings.keys.clone()), REPLY_LIMIT),
            key: settings.keys.shadow_report_of(watched.shadow.id.as_str()),
            watched,
            stopped,
            began: Instant::now(),
            settings: ServerWatch::default(),
            settings_checked: None,
            backoff: Backoff::for_redis(),
            reachable: false,
        }
    }

    /// The main loop of the thread.
    fn run(mut self) {
        loop {
            let next = Instant::now() + EVERY;
            self.iterate();
            if self.stopped.recv_deadline(next) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        report_thread::end(&mut self.ledger, &self.key, self.reachable);
    }

    fn iterate(&mut self) {
        let report = self.report().to_json().to_string();
        let outcome = self.ledger.report(&self.key, &report, REPORT_TTL);
        self.reachable = outcome.is_ok();
        match outcome.and_then(|()| self.check_settings()) {
            Ok(()) => drop(self.backoff.reset()),
            Err(error) => self.watched.shadow.troubles.report("reporter", "not-reported", &error, &mut self.backoff),
        }
    }

    fn check_settings(&mut self) -> Result<()> {
        if self.settings_checked.is_some_and(|checked| checked.elapsed() < SETTINGS_EVERY) {
            return Ok(());
        }
        let found = server_check::check(self.ledger.connection(), Some(&self.watched.shadow.settings.interests))?;
        self.settings.note(found);
        self.settings_checked = Some(Instant::now());
        Ok(())
    }

    fn report(&self) -> ShadowReport {
        let shadow = &self.watched.shadow;
        let figures = shadow.figures();
        let (received, findings) = (figures.received, &figures.findings);
        let (restarts, last_restart) = findings.restarts;
        ShadowReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            channel: shadow.settings.interests.summary(),
            state: health::state(&figures).to_owned(),
            trouble: findings.trouble.clone().or_else(|| health::ready(&self.watched).err()),
            uptime_s: self.began.elapsed().as_secs_f64(),
            messages: received.messages,
            bytes: received.bytes,
            largest_bytes: received.largest,
            overlaps: figures.overlaps,
            messages_per_s: findings.pace.messages,
            bytes_per_s: findings.pace.bytes,
            busiest_per_s: findings.pace.busiest,
            compared: Compared {
                seconds: findings.totals.time.as_secs_f64(),
                heard: findings.totals.heard,
                stored: findings.totals.stored,
                gaps: findings.totals.gaps,
                exact: findings.is_exact,
                restarts,
                last_restart: last_restart.map(|why| why.to_string()),
            },
        }
    }
}
