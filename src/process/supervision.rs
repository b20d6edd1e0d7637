//! The watch over a running program: which of its loops hang, and what systemd is told.
//!
//! The main thread of a program calls [`Supervisor::report`] at each tick. Where systemd started the program
//! (`$NOTIFY_SOCKET` is set), and the service is all that runs in it ([`Supervisor::from_environment`]), systemd hears
//! `READY=1` once the program can do its job for the first time, `STATUS=` whenever that changes, `WATCHDOG=1` as long
//! as every loop turns, more time to start while it waits for others, and `STOPPING=1`. A program that hangs stops
//! feeding the watchdog, and systemd restarts it. Elsewhere a loop that hangs is only logged.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick};
use sd_notify::NotifyState;

/// Within this time the main thread looks again. If it has not, the whole process stood still: then all loops are late,
/// and nothing is said of them until the next look.
pub const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// How often a program is looked at, unless systemd's watchdog wants it more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a start that waits for others gets more, at each look.
const START_EXTENSION: Duration = Duration::from_secs(30);
/// The watchdog is fed this many times in its time.
const FEEDS: u32 = 3;

/// How a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it can do its job; the reason if not.
    pub ready: Result<(), String>,
    /// The loop that has not turned in its time.
    pub hung: Option<&'static str>,
    /// Whether it has done what it can to be ready and waits for others: its start may take its time.
    pub waits: bool,
    /// What it is doing, in a few words.
    pub doing: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Supervisor {
    every: Duration,
    ticks: Receiver<Instant>,
    /// Whether systemd is told.
    notifies: bool,
    said_ready: bool,
    said_hung: Option<&'static str>,
    said_status: String,
}

impl Supervisor {
    /// One for this process, as its environment says.
    pub fn from_environment() -> Supervisor {
        let every = sd_notify::watchdog_enabled().map_or(LOOK_EVERY, |limit| LOOK_EVERY.min(limit / FEEDS));
        Supervisor { every, ticks: tick(every), notifies: true, ..Supervisor::unnoticed() }
    }

    /// One that only logs: for a service inside of somebody else's program, who speaks to systemd or does not.
    pub fn unnoticed() -> Supervisor {
        let (every, ticks) = (LOOK_EVERY, tick(LOOK_EVERY));
        Supervisor { every, ticks, notifies: false, said_ready: false, said_hung: None, said_status: String::new() }
    }

    /// How often to report.
    pub fn interval(&self) -> Duration {
        self.every
    }

    /// When to report.
    pub fn ticks(&self) -> &Receiver<Instant> {
        &self.ticks
    }

    /// Passes on how the program is.
    pub fn report(&mut self, condition: &Condition) {
        let hung = condition.hung;
        let mut states = Vec::with_capacity(3);
        if condition.ready.is_ok() && !self.said_ready {
            self.said_ready = true;
            states.push(NotifyState::Ready);
        }
        let status = match (hung, &condition.ready) {
            (Some(name), _) => format!("the loop {name} hangs"),
            (None, Ok(())) => condition.doing.clone(),
            (None, Err(reason)) => format!("not ready: {reason}"),
        };
        if hung.is_none() {
            states.push(NotifyState::Watchdog);
            if condition.waits && !self.said_ready {
                states.push(NotifyState::ExtendTimeoutUsec(START_EXTENSION.as_micros() as u32));
            }
        }
        if status != self.said_status {
            states.push(NotifyState::Status(&status));
        }
        if !states.is_empty() {
            self.notify(&states);
        }
        self.said_status = status;
        if hung != self.said_hung {
            match hung {
                Some(name) => log::error!("event=hung loop={name}"),
                None => log::info!("event=turns-again loop={}", self.said_hung.unwrap_or_default()),
            }
            self.said_hung = hung;
        }
    }

    /// The program has begun to stop.
    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Tells systemd, if it listens.
    fn notify(&self, states: &[NotifyState<'_>]) {
        if self.notifies
            && let Err(error) = sd_notify::notify(states)
        {
            log::debug!("event=not-notified error={}", crate::base::text::Quoted(error));
        }
    }
}
