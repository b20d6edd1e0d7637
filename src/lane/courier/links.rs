//! The beginning and the end of the courier's links: taken over from the dialers, and dropped. `traffic` reads and
//! writes them.

use std::sync::Arc;
use std::time::Instant;

use super::Courier;
use super::outcomes::{Mistake, note_stray};
use crate::base::error::Result;
use crate::base::id::MessageId;
use crate::base::log_sum::Sum;
use crate::base::text::Quoted;
use crate::lane::dialer::LinkNews;
use crate::lane::link::{Link, NewLink};
use crate::lane::places::Place;
use crate::lane::stats::{LaneStats, add};
use crate::lane::table::{MAX_TRACKED, Whereabouts};
use crate::lane::tasks::{Claims, Task};
use crate::ledger::{DeliveryNumber, Hold, Returned, Verdict};
use crate::wire::ErrorCode;

impl Courier {
    pub(super) fn hear_dialers(&mut self) -> Result<()> {
        while let Some(news) = self.dialing.next_news() {
            match news {
                LinkNews::Up(link) => self.add_link(*link)?,
                LinkNews::Absent(member) if self.roster.has(member) => self.consumer_reports.note_answer(member.slot),
                LinkNews::Absent(_) => {}
            }
        }
        Ok(())
    }

    fn add_link(&mut self, mut new: NewLink) -> Result<()> {
        if !self.roster.has(new.member) {
            // It was released while its dialer was at work.
            return Ok(());
        }
        let index = new.member.slot;
        let leftover = std::mem::take(&mut new.greeted.leftover);
        let held = std::mem::take(&mut new.greeted.held);
        let mut link = self.links.make(new);
        link.set_leaving(self.roster.leaves(index));
        self.sockets.add(link.socket.stream(), index)?;
        let believed = self.adopt_held(index, &mut link, &held);
        self.compare_consumers(index, &link.consumer);
        log::info!(
            "event=consumer-linked consumer={} address={} held={}",
            Quoted(&link.consumer),
            self.roster.address(index),
            held.len()
        );
        add(&self.shared.stats.links_made, 1);
        self.links.put(index, link);
        self.consumer_reports.note_answer(index);
        self.list_members();
        if let Err((code, problem)) = believed {
            self.bad_frame(index, code, &problem);
            return Ok(());
        }
        self.handle_frames(index, leftover.into());
        // What came with the answer is in the WebSocket's buffer, where the poller does not see it.
        self.links.read_again(index);
        Ok(())
    }

    /// Handles HELD: gives places to the listed messages that the consumer may really hold.
    fn adopt_held(&mut self, index: usize, link: &mut Link, held: &[MessageId]) -> Result<(), Mistake> {
        let now = Instant::now();
        link.note_listed(held);
        let mut claims = Vec::new();
        let mut outcome = Ok(());
        for id in held {
            let place = match self.table.whereabouts(*id) {
                // No consumer has received it.
                Some(Whereabouts::New) => None,
                None if self.is_untouched(*id) => None,
                // Named twice.
                Some(Whereabouts::Sent(link)) if link == index => continue,
                // The consumer that had it first keeps it.
                Some(Whereabouts::Sent(_)) => Some(Place::Elsewhere),
                Some(Whereabouts::Ready | Whereabouts::Parked | Whereabouts::Away) => Some(Place::Here),
                // This leader delivered it and no longer tracks it, so it is done.
                None if *id > self.inherited => Some(Place::NotPending),
                // There is no room for more; it may be delivered to another consumer when it is read from Redis.
                None if self.table.len() >= MAX_TRACKED => None,
                // An earlier leader delivered it. Only Redis knows whether it is done.
                None => {
                    claims.push(*id);
                    Some(Place::Here)
                }
            };
            // The answer of a consumer that keeps results will come, so until then the id takes room.
            let place = place.or(link.confirms().then_some(Place::NotPending));
            if let Some(place) = place {
                link.places.claim(*id, place, now);
            }
            if matches!(place, None | Some(Place::NotPending)) {
                outcome = outcome.and(note_unknown(&self.shared.stats, link, *id));
            }
            if place == Some(Place::Here) {
                self.table.adopt(*id, index);
            }
        }
        if !claims.is_empty() {
            self.tasks.push(Task::Verify(Claims { link: index, serial: link.serial, ids: claims }));
        }
        outcome
    }

    /// Whether this leader stored a message and kept it in Redis only.
    fn is_untouched(&self, id: MessageId) -> bool {
        id > self.inherited && self.backlog.covers(id)
    }

    /// These messages that a consumer listed in HELD are not pending: they are done, or never existed.
    pub(super) fn drop_not_pending(&mut self, Claims { link: index, serial, ids }: Claims) {
        let Some(link) = self.links.get_same(index, serial) else { return };
        let now = Instant::now();
        let mut outcome = Ok(());
        for id in ids {
            if link.places.vacate(id, now) {
                self.table.forget(id);
                outcome = outcome.and(note_unknown(&self.shared.stats, link, id));
            }
        }
        if let Err((code, problem)) = outcome {
            self.bad_frame(index, code, &problem);
        }
    }

    /// Logs two addresses that lead to one consumer. The consumer lets the newer link replace the older, which is then
    /// made again and replaces the newer. Nothing is lost, but the consumer makes little progress.
    fn compare_consumers(&mut self, index: usize, consumer: &Arc<str>) {
        if let Some(other) = self.links.new_duplicate(index, consumer) {
            log::warn!(
                "event=same-consumer consumer={} addresses={},{} setting=consumers problem=\"two addresses lead to one \
                 consumer, or two consumers have one --consumer-id\"",
                Quoted(consumer),
                self.roster.address(other),
                self.roster.address(index)
            );
        }
    }

    pub(super) fn drop_link(&mut self, index: usize, why: &str) {
        self.end_link(index, why, false);
    }

    /// With `told`, the peer was sent the reason, and the connection stays open long enough to read it.
    fn end_link(&mut self, index: usize, why: &str, told: bool) {
        let Some(mut link) = self.links.take(index) else { return };
        log_strays(link.strays.rest(), &link.consumer);
        self.sockets.remove(link.socket.stream());
        let verdict = if link.draining { Verdict::Unused } else { Verdict::Lost };
        let mut held = link.take_attached();
        // A consumer that is stopping has announced it.
        let level = if link.draining { log::Level::Info } else { log::Level::Warn };
        log::log!(
            level,
            "event=consumer-lost consumer={} draining={} held={} reason={}",
            Quoted(&link.consumer),
            link.draining,
            held.len(),
            Quoted(why)
        );
        add(&self.shared.stats.links_lost, 1);
        let reason = format!("the link to the consumer was lost: {why}");
        self.keep_held_elsewhere(&mut held);
        self.give_back(&link.consumer, held, verdict, &reason);
        self.list_members();
        self.shared.roster.doubt();
        self.dial_again(index, told.then(|| link.into_socket()));
    }

    /// Messages that another linked consumer holds as well are assigned to that consumer. Only its HELD says that it
    /// holds them. So Redis is asked whether they are pending, and settling them raises the recall (see `outcomes`).
    fn keep_held_elsewhere(&mut self, held: &mut Vec<(MessageId, DeliveryNumber)>) {
        let mut inherited: Vec<Vec<MessageId>> = vec![Vec::new(); self.links.slots()];
        held.retain(|(id, _)| {
            let heir = self.links.inherit(*id);
            if let Some(heir) = heir {
                self.table.adopt(*id, heir);
                inherited[heir].push(*id);
            }
            heir.is_none()
        });
        for (link, ids) in inherited.into_iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            let Some(serial) = self.links.get(link).map(|link| link.serial) else { continue };
            self.tasks.push(Task::Verify(Claims { link, serial, ids }));
        }
    }

    /// Gives messages that came back without a result to the redistributor.
    pub(super) fn give_back(
        &mut self,
        consumer: &Arc<str>,
        ids: Vec<(MessageId, DeliveryNumber)>,
        verdict: Verdict,
        reason: &str,
    ) {
        let reason: Arc<str> = reason.into();
        let returned = ids.into_iter().map(|(id, delivery)| {
            self.table.set_away(id);
            (
                Returned {
                    id,
                    verdict,
                    delivery,
                    hold: Hold::Held,
                    consumer: consumer.clone(),
                    reason: reason.clone(),
                },
                None,
            )
        });
        let returned: Vec<_> = returned.collect();
        if !returned.is_empty() {
            self.tasks.push(Task::Returned(returned));
        }
    }

    pub(super) fn list_members(&mut self) {
        let members: Vec<String> = self.links.iter().map(|link| link.consumer.to_string()).collect();
        self.shared.bundling.note_links(self.links.iter());
        *self.shared.stats.linked.lock() = self.links.iter().map(|link| link.figures.clone()).collect();
        self.shared.note_change();
        self.tasks.set_members(members);
    }

    /// Closes the link after a mistake of the peer.
    pub(super) fn bad_frame(&mut self, index: usize, code: ErrorCode, problem: &str) {
        add(&self.shared.stats.bad_frames, 1);
        if let Some(link) = self.links.get_mut(index) {
            link.socket.send_error(code, problem);
        }
        self.end_link(index, problem, true);
    }
}

/// Notes an id in HELD that is not pending. A consumer that keeps results until they are confirmed rightly lists such
/// ids: the confirmation was lost with its last connection.
fn note_unknown(stats: &LaneStats, link: &mut Link, id: MessageId) -> Result<(), Mistake> {
    if link.confirms() { Ok(()) } else { note_stray(stats, link, id) }
}

pub(super) fn log_strays(strays: Option<Sum<MessageId>>, consumer: &str) {
    if let Some(Sum { count: answers, example: id }) = strays {
        log::warn!(
            "event=stray-answers consumer={} answers={answers} example_id={id} problem=\"it does not hold these \
             messages, or has answered for them already\"",
            Quoted(consumer)
        );
    }
}
