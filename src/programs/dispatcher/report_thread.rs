//! The thread that writes the reports of a lane or a shadow, and what both have in common.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::ledger::Ledger;

/// How often a report is written.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How long a report lasts.
pub(super) const REPORT_TTL: Duration = Duration::from_secs(5);
/// How long to wait for a reply of Redis.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(2);

/// The handle: stops and joins the thread when dropped.
pub(super) struct ReportThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReportThread {
    /// Starts it. What it gets is disconnected when it should stop; nothing is ever sent.
    pub(super) fn start(run: impl FnOnce(Receiver<()>) + Send + 'static) -> Result<ReportThread> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("reporter".to_owned()).spawn(move || run(stopped));
        let thread = thread.map_err(Error::io("starting the thread reporter"))?;
        Ok(ReportThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ReportThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=reporter");
        }
    }
}

/// Removes the report. It expires by itself, so a Redis that does not answer is not waited for.
pub(super) fn end(ledger: &mut Ledger, key: &str, is_reachable: bool) {
    if is_reachable && let Err(error) = ledger.end_reports(key) {
        log::debug!("event=report-left error={}", Quoted(error));
    }
}
