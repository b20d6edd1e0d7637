//! The courier's figures for metrics, and the log lines for throughput and for a full table.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::link_set::LinkSet;
use crate::base::rate::Rate;
use crate::lane::stats::{LaneStats, add, set};
use crate::lane::table::{MAX_TRACKED, Table};

/// How often it is logged that the table is full.
const LOG_FULL_EVERY: Duration = Duration::from_secs(10);

pub(super) struct CourierFigures {
    /// The rates of stored and of acknowledged messages.
    rate: Rate<2>,
    /// When a full table was last logged.
    logged_full: Option<Instant>,
    /// Messages acknowledged since the rate was last updated.
    acked: u64,
    /// Messages that this process had stored when the rate was last updated.
    stored_before: u64,
}

impl CourierFigures {
    pub(super) fn new(stats: &LaneStats) -> CourierFigures {
        let stored_before = stats.taken_in.load(Ordering::Relaxed);
        CourierFigures { rate: Rate::new(), logged_full: None, acked: 0, stored_before }
    }

    pub(super) fn note_acked(&mut self, messages: usize) {
        self.acked += messages as u64;
    }

    /// Publishes the figures, and logs what is due.
    pub(super) fn update(&mut self, stats: &LaneStats, links: &LinkSet, table: &mut Table, behind: bool) {
        let mut in_flight = 0;
        for link in links.iter() {
            in_flight += link.places.taken();
            set(&link.figures.in_flight, link.places.taken() as u64);
            set(&link.figures.overdue, link.places.left() as u64);
        }
        let order = table.order().map(|order| (order.figures(), order.take_unkeyed()));
        let (order, unkeyed) = order.unwrap_or_default();
        set(&stats.order_keys, order.keys as u64);
        set(&stats.parked, order.parked as u64);
        set(&stats.cut_keys, order.cut as u64);
        add(&stats.unkeyed, unkeyed);
        set(&stats.behind, (behind || order.cut > 0).into());
        set(&stats.ready, table.ready_len() as u64);
        // Stored messages are traffic even while no consumer acknowledges anything.
        let stored = stats.taken_in.load(Ordering::Relaxed);
        let new = stored - std::mem::replace(&mut self.stored_before, stored);
        if let Some([new, acked]) = self.rate.count([new, std::mem::take(&mut self.acked)]) {
            log::info!(
                "event=rate taken_in_per_s={new} processed_per_s={acked} in_flight={in_flight} ready={}",
                table.ready_len()
            );
        }
        set(&stats.full, (table.len() >= MAX_TRACKED).into());
        // Messages that wait for a redelivery are tracked, too. If there are enough of them, nothing else is delivered.
        if table.len() >= MAX_TRACKED && self.logged_full.is_none_or(|logged| logged.elapsed() >= LOG_FULL_EVERY) {
            self.logged_full = Some(Instant::now());
            let delayed = table.len().saturating_sub(in_flight + table.ready_len() + order.parked);
            log::warn!("event=table-full messages={} in_flight={in_flight} delayed={delayed}", table.len());
        }
    }

    /// At the end of a term nothing is waiting here.
    pub(super) fn end(stats: &LaneStats) {
        set(&stats.ready, 0);
        set(&stats.behind, 0);
        [&stats.order_keys, &stats.parked, &stats.cut_keys].into_iter().for_each(|gauge| set(gauge, 0));
        set(&stats.full, 0);
    }
}
