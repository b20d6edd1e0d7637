//! How the courier takes links over from the dialers, and drops them. What happens on a link is in `traffic`.

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
use crate::lane::stats::add;
use crate::lane::table::{MAX_TRACKED, Whereabouts};
use crate::lane::tasks::{Claims, Task};
use crate::ledger::{DeliveryNumber, Hold, Returned, Verdict};
use crate::wire::ErrorCode;

impl Courier {
    pub(super) fn hear_dialers(&mut self) -> Result<()> {
        while let Some(news) = self.dialing.next_news() {
            match news {
                LinkNews::Up(link) => self.add_link(*link)?,
                LinkNews::Absent(index) => self.roll_call.note_answer(index),
            }
        }
        Ok(())
    }

    fn add_link(&mut self, mut new: NewLink) -> Result<()> {
        let index = new.index;
        let leftover = std::mem::take(&mut new.greeted.leftover);
        let held = std::mem::take(&mut new.greeted.held);
        let mut link = self.links.make(new);
        self.sockets.add(link.stream(), index)?;
        let believed = self.believe(index, &mut link, &held);
        self.compare_consumers(index, &link.consumer);
        log::info!(
            "event=consumer-linked consumer={} address={} held={}",
            Quoted(&link.consumer),
            self.shared.settings.consumers[index],
            held.len()
        );
        add(&self.shared.stats.links_made, 1);
        self.links.put(index, link);
        self.roll_call.note_answer(index);
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

    /// HELD: gives places to what the consumer reports that it holds, as far as that may be true.
    fn believe(&mut self, index: usize, link: &mut Link, held: &[MessageId]) -> Result<(), Mistake> {
        let now = Instant::now();
        let mut claims = Vec::new();
        let mut outcome = Ok(());
        for id in held {
            let place = match self.table.whereabouts(*id) {
                // No consumer was given it.
                Some(Whereabouts::New) => None,
                None if self.is_untouched(*id) => None,
                // Named twice.
                Some(Whereabouts::Sent(link)) if link == index => continue,
                // The first to have it keeps it.
                Some(Whereabouts::Sent(_)) => Some(Place::Elsewhere),
                Some(Whereabouts::Ready | Whereabouts::Away) => Some(Place::Here),
                // What this leader has delivered and no longer knows is done.
                None if *id > self.inherited => Some(Place::NotPending),
                // There is no room for more; it may be delivered to another consumer when it is read from Redis.
                None if self.table.len() >= MAX_TRACKED => None,
                // Where an earlier leader has delivered it Redis knows whether it is done.
                None => {
                    claims.push(*id);
                    Some(Place::Here)
                }
            };
            if let Some(place) = place {
                link.places.claim(*id, place, now);
            }
            if matches!(place, None | Some(Place::NotPending)) {
                outcome = outcome.and(note_stray(&self.shared.stats, link, *id));
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

    /// Whether this leader took a message in and left it to Redis.
    fn is_untouched(&self, id: MessageId) -> bool {
        id > self.inherited && self.backlog.covers(id)
    }

    /// Of what a consumer named in HELD these are not pending: they are done, or were made up.
    pub(super) fn disbelieve(&mut self, Claims { link: index, serial, ids }: Claims) {
        let Some(link) = self.links.get_same(index, serial) else { return };
        let now = Instant::now();
        let mut outcome = Ok(());
        for id in ids {
            if link.places.vacate(id, now) {
                self.table.forget(id);
                outcome = outcome.and(note_stray(&self.shared.stats, link, id));
            }
        }
        if let Err((code, problem)) = outcome {
            self.bad_frame(index, code, &problem);
        }
    }

    /// Two links to one consumer can't last: at the consumer the newer one replaces the other, which is then made again
    /// and replaces the newer one. Nothing is lost by that, but the consumer makes little progress.
    fn compare_consumers(&mut self, index: usize, consumer: &Arc<str>) {
        if let Some(other) = self.links.new_duplicate(index, consumer) {
            let addresses = &self.shared.settings.consumers;
            log::warn!(
                "event=same-consumer consumer={} addresses={},{} setting=consumers problem=\"two addresses lead to one \
                 consumer, or two consumers have one --consumer-id\"",
                Quoted(consumer),
                addresses[other],
                addresses[index]
            );
        }
    }

    pub(super) fn drop_link(&mut self, index: usize, why: &str) {
        self.end_link(index, why, false);
    }

    /// `told`: the peer was sent the reason, and should be able to read it.
    fn end_link(&mut self, index: usize, why: &str, told: bool) {
        let Some(mut link) = self.links.take(index) else { return };
        log_strays(link.strays.rest(), &link.consumer);
        self.sockets.remove(link.stream());
        let verdict = if link.draining { Verdict::Unused } else { Verdict::Lost };
        let mut held = link.take_attached();
        // One that is stopping has said so.
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
        self.bequeath(&mut held);
        self.give_back(&link.consumer, held, verdict, &reason);
        self.list_members();
        self.dialing.request(index, told.then(|| link.into_socket()));
    }

    /// What another linked consumer holds as well counts as being there from now on. Only its own word
    /// says so: Redis is asked whether the message is pending, and whatever it answers makes others look (see
    /// `outcomes`).
    fn bequeath(&mut self, held: &mut Vec<(MessageId, DeliveryNumber)>) {
        let mut inherited: Vec<Vec<MessageId>> = vec![Vec::new(); self.links.addresses()];
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

    /// Hands messages that brought no result to the redistributor.
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
        *self.shared.stats.linked.lock() = self.links.iter().map(|link| link.figures.clone()).collect();
        self.shared.note_change();
        self.tasks.set_members(members);
    }

    /// Closes the link after a mistake of the peer.
    pub(super) fn bad_frame(&mut self, index: usize, code: ErrorCode, problem: &str) {
        add(&self.shared.stats.bad_frames, 1);
        if let Some(link) = self.links.get_mut(index) {
            link.complain(code, problem);
        }
        self.end_link(index, problem, true);
    }
}

pub(super) fn log_strays(strays: Option<Sum<MessageId>>, consumer: &str) {
    if let Some(Sum { count: answers, example: id }) = strays {
        log::warn!(
            "event=stray-answers consumer={} answers={answers} example_id={id} problem=\"it was not given these \
             messages, or has answered for them before\"",
            Quoted(consumer)
        );
    }
}
