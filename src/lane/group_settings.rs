//! The group's settings on their way to the courier: which ones the term began with, and that they have changed since.
//!
//! A leader reads them in the step that acquires the lease, so that it delivers nothing against them. An election
//! [starts over](SettingsNews::start_over) just before that step, and whatever is heard from then on is kept, even
//! before the term's workers run. Then the redistributor reads them again. A leader whose subscription breaks ends its
//! term.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::ledger::SettingsReading;

/// Settings, and when they arrived by this process's clock, from which the rest of a pause counts.
#[derive(Clone, Debug)]
pub(super) struct KnownSettings {
    pub(super) reading: SettingsReading,
    pub(super) at: Instant,
}

/// Whether a change was announced since this was last asked.
#[derive(Debug, Default)]
pub(super) struct SettingsNews(AtomicBool);

impl KnownSettings {
    /// What was just read.
    pub(super) fn now(reading: SettingsReading) -> KnownSettings {
        KnownSettings { reading, at: Instant::now() }
    }
}

impl SettingsNews {
    /// A change was announced.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Forgets what was announced.
    pub(super) fn start_over(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether a change was announced. Asked in each iteration of the courier.
    pub(super) fn take(&self) -> bool {
        self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_is_taken_once() {
        let news = SettingsNews::default();
        assert!(!news.take());
        (0..2).for_each(|_| news.note());
        assert!(news.take() && !news.take());
        news.note();
        news.start_over();
        assert!(!news.take());
    }
}
