//! Makes states equal that differ only in names: after each step markers, epochs and ids are numbered again from 1.
//!
//! This is sound because names are only compared: whether two are equal and, for leaders' markers, epochs and ids,
//! which one is higher. New names are always higher than all that are known. Names that no part of the state holds are
//! left out.

use crate::redis::{Redis, Script};
use crate::ring::{Cursor, Id, OF_LEADER, Seen};
use crate::rules::Rules;
use crate::world::{Dispatcher, Phase, World};

impl World {
    /// Numbers all names again.
    pub fn rename(&mut self, rules: Rules) {
        let one_clock = self.has_one_clock(rules);
        // Enough for most states: this runs for each step.
        let mut markers = Vec::with_capacity(32);
        let mut epochs = Vec::with_capacity(16);
        let (mut ids, mut recalls) = (Vec::with_capacity(16), Vec::with_capacity(8));
        for Redis { epoch, lease, cursor, recall, pending, letters, .. } in
            [&mut self.redis, &mut self.disk].into_iter().chain(self.old.as_deref_mut())
        {
            epochs.push(epoch);
            epochs.extend(lease.as_mut().map(|lease| &mut lease.epoch));
            cursor_names(cursor, &mut markers, &mut ids);
            ids.extend(pending.iter_mut().chain(letters.iter_mut().flatten()).map(|(id, _)| id));
            epochs.push(&mut recall.epoch);
            recalls.push(&mut recall.up_to);
        }
        for dispatcher in &mut self.dispatchers {
            dispatcher_names(dispatcher, &mut markers, &mut epochs, &mut ids);
        }
        for consumer in &mut self.consumers {
            epochs.push(&mut consumer.epoch);
            epochs.push(&mut consumer.distrusted);
            for held in &mut consumer.held {
                epochs.push(&mut held.from);
                ids.push(&mut held.id);
            }
            if let Some(recall) = &mut consumer.armed {
                epochs.push(&mut recall.epoch);
                recalls.push(&mut recall.up_to);
            }
        }
        for request in &mut self.requests {
            script_names(&mut request.script, &mut markers, &mut epochs, &mut ids);
        }
        // A recall is only compared with ids.
        for up_to in recalls.iter_mut() {
            **up_to = ids.iter().map(|id: &&mut Id| **id).filter(|id| *id <= **up_to).max().unwrap_or(0);
        }
        ids.extend(recalls);
        self.last_marker = number_anew(markers);
        self.last_epoch = number_anew(epochs);
        // If ids do not follow one clock, the next number matters.
        if one_clock {
            self.last_id = number_anew(ids);
        }
        self.requests.sort();
    }
}

impl World {
    /// The names of all markers and dispatchers.
    pub fn marker_names(&mut self) -> Vec<&mut u8> {
        let (mut markers, mut epochs, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for redis in [&mut self.redis, &mut self.disk].into_iter().chain(self.old.as_deref_mut()) {
            cursor_names(&mut redis.cursor, &mut markers, &mut ids);
        }
        for dispatcher in &mut self.dispatchers {
            dispatcher_names(dispatcher, &mut markers, &mut epochs, &mut ids);
        }
        for request in &mut self.requests {
            script_names(&mut request.script, &mut markers, &mut epochs, &mut ids);
        }
        markers
    }
}

fn cursor_names<'a>(cursor: &'a mut Option<Cursor>, markers: &mut Vec<&'a mut u8>, ids: &mut Vec<&'a mut u8>) {
    if let Some(Cursor { position, last_id }) = cursor {
        markers.push(&mut position.marker);
        ids.push(last_id);
    }
}

fn dispatcher_names<'a>(
    dispatcher: &'a mut Dispatcher,
    markers: &mut Vec<&'a mut u8>,
    epochs: &mut Vec<&'a mut u8>,
    ids: &mut Vec<&'a mut u8>,
) {
    markers.push(&mut dispatcher.id);
    for seen in &mut dispatcher.inbox {
        match seen {
            Seen::Marker(marker) => markers.push(marker),
            Seen::Join(marker, who) => markers.extend([marker, who]),
            Seen::Message(_) => {}
        }
    }
    dispatcher.ring.marker_names(markers);
    ids.extend(&mut dispatcher.returned);
    let Some(term) = &mut dispatcher.term else { return };
    epochs.push(&mut term.epoch);
    cursor_names(&mut term.cursor, markers, ids);
    markers.extend(&mut term.last_marker);
    if let Phase::TakingOver(marker) = &mut term.phase {
        markers.push(marker);
    }
    if let Some(offer) = &mut term.offer {
        markers.push(&mut offer.next.position.marker);
        ids.push(&mut offer.next.last_id);
        ids.extend(offer.batch.iter_mut().map(|(id, _)| id));
        if let Some((marker, _, last_id)) = &mut offer.doubt {
            markers.push(marker);
            ids.push(last_id);
        }
    }
    ids.extend(&mut term.backlog);
    ids.extend(term.table.iter_mut().map(|(id, ..)| id));
    ids.extend(term.overdue.iter_mut().map(|(_, id)| id));
}

fn script_names<'a>(
    script: &'a mut Script,
    markers: &mut Vec<&'a mut u8>,
    epochs: &mut Vec<&'a mut u8>,
    ids: &mut Vec<&'a mut u8>,
) {
    match script {
        Script::Intake { epoch, expected, next, batch, doubt } => {
            epochs.push(epoch);
            for (marker, _, last_id) in expected.iter_mut().chain([next]).chain(doubt) {
                markers.push(marker);
                ids.push(last_id);
            }
            ids.extend(batch.iter_mut().map(|(id, _)| id));
        }
        Script::IntakeExec { epoch, next: (marker, _, last_id), batch, .. } => {
            epochs.push(epoch);
            markers.push(marker);
            ids.push(last_id);
            ids.extend(batch.iter_mut().map(|(id, _)| id));
        }
        Script::Rewind { epoch, moved, back, batch } => {
            epochs.push(epoch);
            for (marker, _, last_id) in back.iter_mut().chain([moved]) {
                markers.push(marker);
                ids.push(last_id);
            }
            ids.extend(batch.iter_mut().map(|(id, _)| id));
        }
        Script::Commit { id, .. } | Script::CommitExec { id, .. } | Script::PutBack { id, .. } => ids.push(id),
        Script::DeadLetter { epoch, id, .. } | Script::Record { epoch, id, .. } => {
            epochs.push(epoch);
            ids.push(id);
        }
    }
}

/// Numbers from 1 in the same order; 0 stays 0. Returns the highest.
fn number_anew(names: Vec<&mut u8>) -> u8 {
    // A bit for each name in use. The bit that marks leaders' markers is not part of the number.
    let used = names.iter().fold(0_u128, |used, name| used | 1 << (**name & !OF_LEADER)) & !1;
    for name in names {
        let bit = 1_u128 << (*name & !OF_LEADER);
        *name = (used & (bit | (bit - 1))).count_ones() as u8 | *name & OF_LEADER;
    }
    used.count_ones() as u8
}
