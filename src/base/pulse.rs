//! Detects loops that hang: each loop announces the deadline of its next iteration, and a monitor finds the loops that
//! missed it.
//!
//! A process may run while one of its threads hangs. So each loop beats its own [`Pulse`] in every iteration, with the
//! longest time until the next. That time includes waits for Redis, so that a slow server does not count as a hang. A
//! beat is one atomic store, from any thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long opening a connection may take. A name look-up has the system's own limits: with several name servers,
/// attempts and search domains it may take minutes.
pub const OPEN_WITHIN: Duration = Duration::from_secs(180);

/// See the module's text. A new pulse is at rest, so it is never late.
#[derive(Debug)]
pub struct Pulse {
    /// By when the next beat must come, in milliseconds of [`now_ms`].
    due_ms: AtomicU64,
}

/// The value while the loop does not run.
const AT_REST: u64 = u64::MAX;

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { due_ms: AtomicU64::new(AT_REST) }
    }
}

impl Pulse {
    /// The loop is running, and its next iteration begins within this time.
    pub fn beat(&self, within: Duration) {
        self.due_ms.store(now_ms() + within.as_millis() as u64, Ordering::Relaxed);
    }

    /// A beat is due now, so the pulse is late until the loop beats.
    pub fn owe(&self) {
        self.due_ms.store(0, Ordering::Relaxed);
    }

    /// The loop has ended as intended, so the pulse is never late.
    pub fn rest(&self) {
        self.due_ms.store(AT_REST, Ordering::Relaxed);
    }

    /// Whether the loop has missed its deadline.
    pub fn is_late(&self) -> bool {
        self.due_ms.load(Ordering::Relaxed) <= now_ms()
    }
}

/// Milliseconds since the first call in this process.
fn now_ms() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_late_once_its_time_is_over() {
        let pulse = Pulse::default();
        assert!(!pulse.is_late(), "nothing is expected yet");
        pulse.beat(Duration::from_secs(3_600));
        assert!(!pulse.is_late());
        pulse.owe();
        assert!(pulse.is_late());
        pulse.beat(Duration::from_millis(1));
        let began = Instant::now();
        while !pulse.is_late() {
            assert!(began.elapsed() < Duration::from_secs(10), "it never is");
            std::thread::yield_now();
        }
        pulse.rest();
        assert!(!pulse.is_late());
    }
}
