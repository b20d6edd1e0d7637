//! What an order by key adds to the courier: arrivals that overtake nothing, and pages of keys that are read again.
//!
//! The order of a key is that in which its messages are handed to the table. So with an order new messages queue behind
//! the backlog also while that can't be read yet. One page at a time is asked for, in turn for the backlog and for keys
//! that are cut.

use super::{Courier, READY_LOW};
use crate::base::id::MessageId;
use crate::lane::stats::add;
use crate::lane::table::key_order::KeyOrder;
use crate::lane::tasks::Task;
use crate::ledger::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Page, PageRequest, Pending};

impl Courier {
    /// Hands a new message to the table, which may leave it to Redis for the sake of its key's order.
    pub(super) fn admit_new(&mut self, message: Pending) {
        if self.table.is_ordered() {
            self.backlog.pass(message.id);
        }
        if !self.table.admit(message) {
            add(&self.shared.stats.spilled, 1);
        }
    }

    /// Asks for the next page, unless one is awaited.
    pub(super) fn read_in_order(&mut self) {
        if self.awaits_again() || self.backlog.is_requested() {
            return;
        }
        let room = self.shared.settings.ready_bytes.saturating_sub(self.table.ready_bytes());
        // The backlog may cut more keys, so with very many of them they come first: that bounds their number.
        let first = self.read_again_next || self.table.order().is_some_and(|order| order.has_many_idle());
        for again in [first, !first] {
            let request = match again {
                true => self.request_again(room),
                false if self.table.ready_len() < READY_LOW => self.backlog.request(room),
                false => None,
            };
            if let Some(request) = request {
                self.read_again_next = !again;
                self.tasks.push(Task::Page(request));
                return;
            }
        }
    }

    fn request_again(&mut self, room: usize) -> Option<PageRequest> {
        let frontier = self.backlog.frontier();
        let (after, up_to) = self.table.order()?.next_page(frontier)?;
        Some(PageRequest { after, up_to, messages: MAX_BATCH_MESSAGES, bytes: room.min(MAX_BATCH_BYTES) })
    }

    /// Whether the next page is one of keys that are read again.
    pub(super) fn awaits_again(&mut self) -> bool {
        self.table.order().is_some_and(|order| order.awaits_page())
    }

    /// Such a page has been read.
    pub(super) fn read_again(&mut self, page: Page) {
        let frontier = self.backlog.frontier();
        let Some(ended) = self.table.order().and_then(KeyOrder::begin_page) else { return };
        let delayed: Vec<_> = page.delayed.into_iter().filter(|(message, _)| !ended.contains(&message.id)).collect();
        self.keep_waiting(&delayed);
        let messages = page.messages.into_iter().filter(|message| !ended.contains(&message.id));
        let admitted = messages.filter(|message| self.table.admit_reread(message.clone())).count();
        add(&self.shared.stats.read_back, admitted);
        self.table.order().into_iter().for_each(|order| order.end_page(page.read_up_to, frontier));
    }

    /// To be called when the backlog may begin further back than before.
    pub(super) fn check_frontier(&mut self) {
        let frontier = self.backlog.frontier();
        self.table.order().into_iter().for_each(|order| order.check_frontier(frontier));
    }

    /// Reads messages that were replayed from the backlog, so that each takes its place among those of its key.
    pub(super) fn replayed_in_order(&mut self, ids: &[MessageId]) {
        let unknown = |id: &&MessageId| self.table.whereabouts(**id).is_none() && !self.backlog.covers(**id);
        let Some(first) = ids.iter().filter(unknown).min().copied() else { return };
        log::info!("event=replayed messages={} first_id={first}", ids.len());
        self.backlog.read_again(first);
        self.check_frontier();
    }
}
