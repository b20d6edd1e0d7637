//! The group's pause and limits in the courier: it reads them again when they change, and asks the gate.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Courier;
use super::gate::{PauseLeft, Rules};
use crate::base::duration::ShownDuration;
use crate::base::text::Quoted;
use crate::lane::delivery_state::{DeliveryState, Limit};
use crate::lane::group_settings::KnownSettings;
use crate::lane::stats::set;
use crate::lane::tasks::Task;

impl Courier {
    /// After a change was announced the redistributor reads the settings again. Until then the old ones hold.
    pub(super) fn hear_settings(&mut self) {
        if self.shared.settings_news.take() {
            self.tasks.push(Task::Settings);
        }
        if self.gate.end_pause(Instant::now()) {
            log::info!("event=resumed reason=time-over");
            let state = self.shared.stats.delivery.lock().clone().unwrap_or_default();
            self.show(DeliveryState { pause: None, ..state });
        }
    }

    /// Keeps to these settings from now on.
    pub(in crate::lane) fn keep_to(&mut self, known: &KnownSettings) {
        let KnownSettings { reading, at } = known;
        for (field, value) in &reading.foreign {
            log::warn!(
                "event=setting-ignored key={} field={field} holds={} note=\"no tool has written this; oncecast set and \
                 oncecast resume replace it\"",
                Quoted(&self.shared.settings.keys.settings),
                Quoted(value)
            );
        }
        let own = &self.shared.settings;
        let state = DeliveryState::new(&reading.settings, own.max_in_flight, own.max_rate);
        // An end beyond what a clock can show is none.
        let end = |left: Option<Duration>| left.and_then(|left| at.checked_add(left));
        let rules = Rules {
            pause: reading.pause_left().map(|left| end(left).map_or(PauseLeft::Forever, PauseLeft::Until)),
            max_in_flight: state.max_in_flight.map(|limit| limit.value),
            per_s: state.rate.map(|limit| limit.value.per_s()),
        };
        self.gate.keep_to(&rules, Instant::now());
        let before = self.shared.stats.delivery.lock().clone().unwrap_or_default();
        if state != before {
            log_change(&state, reading.pause_left());
        }
        self.show(state);
    }

    /// Shows what holds deliveries back, in reports and metrics.
    fn show(&self, state: DeliveryState) {
        set(&self.shared.stats.paused, state.pause.is_some().into());
        *self.shared.stats.delivery.lock() = Some(state);
        self.shared.note_change();
    }

    /// At the end of a term nothing is delivered, whatever is set.
    pub(super) fn end_limits(&self) {
        set(&self.shared.stats.paused, 0);
        *self.shared.stats.delivery.lock() = None;
    }

    /// How many messages may be delivered now. Only as far as the consumers have reported what they hold is it known
    /// how many are in flight.
    pub(super) fn room_at_gate(&mut self, now: Instant) -> usize {
        let in_flight = match self.gate.counts_in_flight() {
            true if !self.consumer_reports.is_complete() => usize::MAX,
            true => self.links.iter().map(|link| link.places.in_hand()).sum(),
            false => 0,
        };
        let room = self.gate.room(in_flight, now);
        let held = self.gate.note_holding(room == 0 && self.table.ready_len() > 0, now);
        if !held.is_zero() {
            self.shared.stats.held_back_us.fetch_add(held.as_micros() as u64, Ordering::Relaxed);
        }
        room
    }

    /// The longest wait for news. With messages that wait for the gate, no longer than until it opens.
    pub(super) fn longest_wait(&mut self) -> Duration {
        if self.links.has_unread() {
            return Duration::ZERO;
        }
        let waits = self.table.ready_len() > 0;
        let opens = if waits { self.gate.opens_in(Instant::now()) } else { None };
        opens.map_or(self.patience, |opens| self.patience.min(opens))
    }
}

fn log_change(state: &DeliveryState, left: Option<Option<Duration>>) {
    let max_in_flight = state.max_in_flight.map_or("none".to_owned(), Limit::in_words);
    let rate = state.rate.map_or("none".to_owned(), Limit::in_words);
    let paused = match left {
        None => "no".to_owned(),
        Some(None) => "forever".to_owned(),
        Some(Some(left)) => ShownDuration(left).to_string(),
    };
    let by = state.pause.as_ref().map_or(String::new(), |pause| format!(" by={}", Quoted(&pause.by)));
    log::info!("event=settings paused={paused}{by} max_in_flight={max_in_flight} rate={rate}");
}
