//! Reads keys again that are cut: a sweep over what was read before, page by page, from the first
//! such key that needs messages.
//!
//! A sweep passes a stretch of ids. A key whose cut lies in the stretch takes part from its cut on, until there is no
//! more room for it, where it is cut anew. A sweep ends when no key takes part in it any more, or at the *frontier*, up
//! to which everything was read once: the keys that still take part have all their messages then, and are no longer
//! cut. Keys are read again only when they have few messages left, and then get as many as fit. So each sweep reads
//! only stretches that it takes messages from, and a key costs about one more reading of what lies between its
//! messages, however many it has. Pure; part of the order.
//!
//! Limitation: if so many keys wait for others that all room is taken by at most a few messages of each, a sweep may
//! find room for one message only.

use super::KeyOrder;
use super::lines::{Cut, Sweep};
use crate::base::id::{IdSet, MessageId};

impl KeyOrder {
    /// The next page to read, after the first id up to the second, if there is one and none is awaited.
    pub(in crate::lane) fn next_page(&mut self, frontier: MessageId) -> Option<(MessageId, MessageId)> {
        if self.rereading.awaited.is_some() {
            return None;
        }
        if self.rereading.sweep.is_none() {
            self.begin_sweep(frontier)?;
        }
        let sweep = self.rereading.sweep.as_ref()?;
        self.rereading.awaited = Some((sweep.number, frontier));
        Some((sweep.at, frontier))
    }

    /// Whether a page is awaited.
    pub(in crate::lane) fn awaits_page(&self) -> bool {
        self.rereading.awaited.is_some()
    }

    /// The page that was asked for arrives. Returns the messages that ended meanwhile, or `None` if the page is no
    /// longer of use.
    pub(in crate::lane) fn begin_page(&mut self) -> Option<IdSet> {
        let (number, up_to) = self.rereading.awaited.take()?;
        let ended = std::mem::take(&mut self.rereading.ended);
        let sweep = self.rereading.sweep.as_mut().filter(|sweep| sweep.number == number)?;
        sweep.page_end = up_to;
        Some(ended)
    }

    /// The page's messages have been handed over. `read_up_to`: where it ended before its end.
    pub(in crate::lane) fn end_page(&mut self, read_up_to: Option<MessageId>, frontier: MessageId) {
        let Some(sweep) = &mut self.rereading.sweep else { return };
        sweep.at = read_up_to.unwrap_or(sweep.page_end).max(sweep.at);
        let at = sweep.at;
        // A key with nothing in hand that lies behind is not kept waiting.
        let is_behind = self.idle.first().is_some_and(|(from, _)| *from <= at);
        if at >= frontier || sweep.open.is_empty() || is_behind {
            self.end_sweep(at >= frontier);
        }
    }

    /// The frontier may have been moved back. What a sweep has read beyond it will be read again.
    pub(in crate::lane) fn check_frontier(&mut self, frontier: MessageId) {
        if self.rereading.sweep.as_ref().is_some_and(|sweep| sweep.at >= frontier) {
            self.end_sweep(true);
        }
    }

    fn begin_sweep(&mut self, frontier: MessageId) -> Option<()> {
        let low = if self.has_slack() { self.low.first() } else { None };
        let first = [self.idle.first(), low].into_iter().flatten().min()?;
        let &(from, key) = Some(first).filter(|(from, _)| *from <= frontier)?;
        let after = MessageId(from.0.saturating_sub(1));
        self.rereading.sweeps += 1;
        let number = self.rereading.sweeps;
        self.rereading.sweep = Some(Sweep { number, after, at: after, page_end: after, open: Vec::new() });
        self.unlist(key);
        self.open(key, from);
        Some(())
    }

    /// Ends the sweep. `complete`: nothing lies before the frontier that it has not read.
    fn end_sweep(&mut self, complete: bool) {
        let Some(Sweep { at, open, .. }) = self.rereading.sweep.take() else { return };
        for key in open {
            let rest = self.lines.get_mut(&key).and_then(|line| line.rest.as_mut());
            let Some((rest, cut)) = rest.and_then(|rest| rest.cut.map(|cut| (rest, cut))) else { continue };
            if complete {
                rest.cut = None;
                self.cut -= 1;
            } else {
                rest.cut = Some(Cut { from: cut.from.max(MessageId(at.0 + 1)), open: false, ..cut });
            }
            self.list(key);
        }
    }

    /// A cut key takes part in the sweep. Its messages below `from` are tracked.
    pub(super) fn open(&mut self, key: u64, from: MessageId) {
        let Some(sweep) = &mut self.rereading.sweep else { return };
        let rest = self.lines.get_mut(&key).and_then(|line| line.rest.as_mut());
        let Some(cut) = rest.and_then(|rest| rest.cut.as_mut()) else { return };
        if !cut.open {
            sweep.open.push(key);
        }
        *cut = Cut { from, sweep: sweep.number, open: true, stalled: false };
    }

    /// There is no room for a key's messages from `from` on. It no longer takes part in the sweep.
    pub(super) fn close(&mut self, key: u64, from: MessageId) {
        let rest = self.lines.entry(key).or_default().rest.get_or_insert_default();
        let mut number = 0;
        if let Some(sweep) = &mut self.rereading.sweep {
            number = sweep.number;
            if rest.cut.is_some_and(|cut| cut.open) {
                sweep.open.retain(|other| *other != key);
            }
        }
        self.cut += usize::from(rest.cut.is_none());
        rest.cut = Some(Cut { from, sweep: number, open: false, stalled: true });
    }
}
