//! The part of the sorted set that the leader does not hold in memory: a range of ids still to be read, in order.
//!
//! Such a range has one of two causes: a new leader finds messages that earlier leaders left, or memory is full and new
//! arrivals stay in Redis only. While there is a backlog, new messages queue behind it, which keeps the order of
//! intake. Once it has been read to its end, new messages bypass it again. Pure; owned by the courier.

use std::time::Duration;

use crate::base::id::{IdSet, MessageId};
use crate::ledger::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Page, PageRequest, Pending};

/// See the module's text.
pub(super) struct Backlog {
    /// Everything up to here has been read.
    after: MessageId,
    /// The range ends here.
    up_to: MessageId,
    /// Where the range ended when the page being read was requested.
    requested: Option<MessageId>,
    /// A message in the range that this leader stored and no consumer received, if there is one.
    undelivered: Option<MessageId>,
    /// Where to begin again once the page being read has arrived.
    again: Option<MessageId>,
    /// Messages acknowledged while a page was being read: the page may still show them.
    acked_meanwhile: IdSet,
}

impl Backlog {
    /// The backlog of a new term: all that was stored up to `up_to`.
    pub(super) fn new(up_to: MessageId) -> Backlog {
        Backlog {
            after: MessageId::ZERO,
            up_to,
            requested: None,
            undelivered: None,
            again: None,
            acked_meanwhile: IdSet::default(),
        }
    }

    /// Whether everything has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.after >= self.up_to
    }

    /// A message has been stored and is left to Redis. Ids must rise.
    pub(super) fn extend(&mut self, id: MessageId) {
        if self.is_empty() && self.requested.is_none() {
            self.after = MessageId(id.0 - 1);
        }
        self.up_to = id;
        self.undelivered.get_or_insert(id);
    }

    /// A message has been stored and is not left to Redis, while there was no backlog. Only an order by key needs this.
    pub(super) fn pass(&mut self, id: MessageId) {
        self.after = self.after.max(id);
        self.up_to = self.up_to.max(id);
    }

    /// Everything up to here has been read or passed.
    pub(super) fn frontier(&self) -> MessageId {
        self.after
    }

    /// Whether a page is being read.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.is_some()
    }

    /// Reads everything from this message on, which was not pending for a while, once more. The caller knows which
    /// messages it has.
    pub(super) fn read_again(&mut self, id: MessageId) {
        let before = MessageId(id.0.saturating_sub(1));
        self.up_to = self.up_to.max(id);
        match self.requested {
            None => self.after = self.after.min(before),
            // That page may have been read before, or begin after it.
            Some(_) => self.again = Some(self.again.map_or(before, |again| again.min(before))),
        }
    }

    /// A message that this leader stored, no consumer received, and that has not been read back. Redis must have it.
    pub(super) fn undelivered(&self) -> Option<MessageId> {
        self.undelivered
    }

    /// Whether a message may be in the part that is still to be read.
    pub(super) fn covers(&self, id: MessageId) -> bool {
        self.after < id && id <= self.up_to
    }

    /// The next page to read, if there is one and none is being read.
    pub(super) fn request(&mut self, bytes: usize) -> Option<PageRequest> {
        if self.is_empty() || self.requested.is_some() {
            return None;
        }
        self.requested = Some(self.up_to);
        Some(PageRequest {
            after: self.after,
            up_to: self.up_to,
            messages: MAX_BATCH_MESSAGES,
            bytes: bytes.min(MAX_BATCH_BYTES),
        })
    }

    /// A message was acknowledged.
    pub(super) fn acked(&mut self, id: MessageId) {
        if self.requested.is_some() && id > self.after {
            self.acked_meanwhile.insert(id);
        }
    }

    /// A page has been read. Returns its messages, and those that must wait, without those acknowledged since the page
    /// was requested.
    pub(super) fn arrived(&mut self, mut page: Page) -> (Vec<Pending>, Vec<(Pending, Duration)>) {
        let requested = self.requested.take().unwrap_or(self.after);
        self.after = page.read_up_to.unwrap_or(requested).max(self.after);
        if let Some(again) = self.again.take() {
            self.after = self.after.min(again);
        }
        self.undelivered.take_if(|undelivered| *undelivered <= self.after);
        let acked = std::mem::take(&mut self.acked_meanwhile);
        page.messages.retain(|message| !acked.contains(&message.id));
        page.delayed.retain(|(message, _)| !acked.contains(&message.id));
        (page.messages, page.delayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Body;

    fn page(ids: &[u64]) -> Page {
        let messages = ids.iter().map(|id| Pending { id: MessageId(*id), delivery: 1, body: Body::copied(None, b"x") });
        let read_up_to = ids.last().map(|id| MessageId(*id));
        Page { read_up_to, messages: messages.collect(), delayed: Vec::new() }
    }

    fn ids((messages, _): (Vec<Pending>, Vec<(Pending, Duration)>)) -> Vec<u64> {
        messages.into_iter().map(|message| message.id.0).collect()
    }

    #[test]
    fn it_is_read_page_by_page_to_its_end() {
        let mut backlog = Backlog::new(MessageId(10));
        let request = backlog.request(100).expect("there is something to read");
        assert_eq!((request.after, request.up_to), (MessageId(0), MessageId(10)));
        assert_eq!(backlog.request(100), None, "one at a time");
        assert_eq!(ids(backlog.arrived(page(&[3, 4]))), [3, 4]);
        assert_eq!(backlog.request(100).map(|request| request.after), Some(MessageId(4)));
        assert_eq!(ids(backlog.arrived(page(&[]))), [0; 0]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn spilled_messages_are_read_later() {
        let mut backlog = Backlog::new(MessageId(0));
        assert!(backlog.is_empty());
        backlog.extend(MessageId(7));
        let request = backlog.request(100).expect("there is something to read");
        assert_eq!((request.after, request.up_to), (MessageId(6), MessageId(7)));
        // More messages arrive while the page is being read. An empty page ends only the requested range.
        backlog.extend(MessageId(9));
        assert_eq!(ids(backlog.arrived(page(&[]))), [0; 0]);
        assert!(!backlog.is_empty());
        assert_eq!(backlog.undelivered(), None, "what was read is in memory");
        backlog.extend(MessageId(11));
        assert_eq!(backlog.undelivered(), Some(MessageId(11)));
        assert_eq!(backlog.request(100).map(|request| request.after), Some(MessageId(7)));
    }

    #[test]
    fn it_is_read_again_from_a_message_that_is_back() {
        let mut backlog = Backlog::new(MessageId(10));
        backlog.request(100);
        backlog.read_again(MessageId(5));
        assert_eq!(ids(backlog.arrived(page(&[8]))), [8]);
        assert!(backlog.covers(MessageId(5)) && !backlog.covers(MessageId(4)));
        assert_eq!(backlog.request(100).map(|request| request.after), Some(MessageId(4)));
        assert_eq!(ids(backlog.arrived(page(&[]))), [0; 0]);
        assert!(backlog.is_empty());
        backlog.read_again(MessageId(12));
        let request = backlog.request(100).expect("there is something to read");
        assert_eq!((request.after, request.up_to), (MessageId(10), MessageId(12)));
    }

    #[test]
    fn messages_acknowledged_meanwhile_are_left_out() {
        let mut backlog = Backlog::new(MessageId(10));
        backlog.acked(MessageId(2));
        backlog.request(100);
        backlog.acked(MessageId(4));
        assert_eq!(ids(backlog.arrived(page(&[2, 3, 4]))), [2, 3]);
        backlog.request(100);
        backlog.acked(MessageId(6));
        let delayed: Vec<_> =
            page(&[6, 7]).messages.into_iter().map(|message| (message, Duration::from_secs(1))).collect();
        let (messages, waiting) = backlog.arrived(Page { delayed: delayed.clone(), ..page(&[5]) });
        assert_eq!((messages.len(), waiting), (1, delayed[1..].to_vec()), "also if they must wait");
    }
}
