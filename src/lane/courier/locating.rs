//! Where messages are, as far as the courier knows: the answers to questions of operators' tools. The redistributor
//! completes and writes them.

use std::time::Instant;

use super::Courier;
use crate::base::id::MessageId;
use crate::lane::places::Place;
use crate::lane::table::Whereabouts;
use crate::lane::tasks::Task;
use crate::ledger::{Answer, DeliveryNumber, Location};

impl Courier {
    /// Answers what was asked, unless the redistributor has more to do than it can take. Questions that wait too long
    /// are dropped, like those that are too many.
    pub(super) fn hear_questions(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        let now = Instant::now();
        let questions = self.shared.questions.take(now);
        if questions.is_empty() {
            return;
        }
        let answers = questions.into_iter().map(|question| {
            let located = question.ids.into_iter().map(|id| (id, self.locate(id, now)));
            (question.request, Answer(located.collect()))
        });
        let answers = answers.collect();
        self.tasks.push(Task::Answer(answers));
    }

    fn locate(&self, id: MessageId, now: Instant) -> Location {
        match self.table.whereabouts(id) {
            Some(_) if self.table.is_parked(id) => Location::Behind,
            Some(Whereabouts::New | Whereabouts::Ready) => Location::Waiting,
            Some(Whereabouts::Away | Whereabouts::Parked) => Location::Settling,
            Some(Whereabouts::Sent(index)) => self.locate_at(index, id, now),
            // With keys that are cut, a message that is not known may be one of theirs.
            None if self.backlog.covers(id) || self.table.has_cut_keys() => Location::Stored,
            None => Location::Unknown,
        }
    }

    fn locate_at(&self, index: usize, id: MessageId, now: Instant) -> Location {
        let Some(link) = self.links.get(index) else { return Location::Settling };
        let consumer = link.consumer.to_string();
        match link.places.get(id) {
            Some(held) if held.place == Place::Recording => Location::Recording { consumer },
            Some(held) => {
                let delivery = match held.delivery {
                    DeliveryNumber::Known(number) => number,
                    DeliveryNumber::Adopted => 0,
                };
                Location::At { for_ms: held.age(now).as_millis() as u64, delivery, consumer }
            }
            None => Location::Settling,
        }
    }
}
