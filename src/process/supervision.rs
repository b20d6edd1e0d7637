//! Supervision of a running program: logs loops that hang, and notifies systemd.
//!
//! The main thread of a program calls [`Supervisor::report`] at each tick. If systemd started the program
//! (`$NOTIFY_SOCKET` is set) and the supervisor was made by [`Supervisor::from_environment`], the supervisor sends
//! systemd `READY=1` when the program is ready for the first time, `STATUS=` whenever the status changes, `WATCHDOG=1`
//! while no loop hangs, `EXTEND_TIMEOUT_USEC=` while the program waits for others to become ready, and `STOPPING=1`. A
//! program that hangs sends no more watchdog pings, so systemd restarts it. Without systemd a loop that hangs is only
//! logged.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick};
use sd_notify::NotifyState;

use crate::base::text::{Escaped, Quoted};

/// The main thread checks again within this time. If main itself is late, the process was paused, so no loop is
/// reported until main has checked again.
pub const CHECK_WITHIN: Duration = Duration::from_secs(3);
/// The interval of checks, unless systemd's watchdog needs a shorter one.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// By how much each check extends the time to start while the program waits for others.
const START_EXTENSION: Duration = Duration::from_secs(30);
/// Pings per watchdog interval.
const PINGS: u32 = 3;

/// The condition of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is ready; the reason if not.
    pub ready: Result<(), String>,
    /// The loop that has not finished an iteration in time.
    pub hung: Option<&'static str>,
    /// Whether it has done its part to become ready and waits for others: systemd should extend its time to start.
    pub waits: bool,
    /// What it is doing, in a few words, for systemd's status.
    pub doing: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Supervisor {
    every: Duration,
    ticks: Receiver<Instant>,
    /// Whether to notify systemd.
    notifies: bool,
    sent_ready: bool,
    logged_hung: Option<&'static str>,
    sent_status: String,
}

impl Condition {
    /// The condition on one line: systemd would take a second line for another message of ours, such as `STOPPING=1`.
    fn in_words(&self) -> String {
        let words = match (self.hung, &self.ready) {
            (Some(name), _) => format!("the loop {name} hangs"),
            (None, Ok(())) => self.doing.clone(),
            (None, Err(reason)) => format!("not ready: {reason}"),
        };
        Escaped(words).to_string()
    }
}

impl Supervisor {
    /// A supervisor that notifies systemd, if the environment asks for it.
    pub fn from_environment() -> Supervisor {
        let every = sd_notify::watchdog_enabled().map_or(CHECK_EVERY, |limit| CHECK_EVERY.min(limit / PINGS));
        Supervisor { every, ticks: tick(every), notifies: true, ..Supervisor::log_only() }
    }

    /// A supervisor that only logs, for a service inside another program.
    pub fn log_only() -> Supervisor {
        let (every, ticks) = (CHECK_EVERY, tick(CHECK_EVERY));
        Supervisor { every, ticks, notifies: false, sent_ready: false, logged_hung: None, sent_status: String::new() }
    }

    /// How often to report.
    pub fn interval(&self) -> Duration {
        self.every
    }

    /// When to report.
    pub fn ticks(&self) -> &Receiver<Instant> {
        &self.ticks
    }

    /// Notifies systemd of the condition, and logs a loop that hangs or has recovered.
    pub fn report(&mut self, condition: &Condition) {
        let hung = condition.hung;
        let mut states = Vec::with_capacity(3);
        if condition.ready.is_ok() && !self.sent_ready {
            self.sent_ready = true;
            states.push(NotifyState::Ready);
        }
        let status = condition.in_words();
        if hung.is_none() {
            states.push(NotifyState::Watchdog);
            if condition.waits && !self.sent_ready {
                states.push(NotifyState::ExtendTimeoutUsec(START_EXTENSION.as_micros() as u32));
            }
        }
        if status != self.sent_status {
            states.push(NotifyState::Status(&status));
        }
        if !states.is_empty() {
            self.notify(&states);
        }
        self.sent_status = status;
        if hung != self.logged_hung {
            match hung {
                Some(name) => log::error!("event=hung loop={name}"),
                None => log::info!("event=hung-loop-resumed loop={}", self.logged_hung.unwrap_or_default()),
            }
            self.logged_hung = hung;
        }
    }

    /// Notifies systemd that the program has begun to stop.
    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Notifies systemd, unless this supervisor only logs.
    fn notify(&self, states: &[NotifyState<'_>]) {
        if self.notifies
            && let Err(error) = sd_notify::notify(states)
        {
            log::debug!("event=not-notified error={}", Quoted(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_for_systemd() {
        let ready = Err("a handler said\nSTOPPING=1\u{1b}[2J".to_owned());
        let condition = Condition { ready, hung: None, waits: false, doing: String::new() };
        assert_eq!(condition.in_words(), "not ready: a handler said\\nSTOPPING=1\\u{1b}[2J");
    }
}
