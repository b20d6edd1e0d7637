//! How the redistributor answers questions of operators' tools.

use std::time::Instant;

use super::Redistributor;
use crate::base::error::Error;
use crate::base::id::IdMap;
use crate::base::text::Quoted;
use crate::lane::retry::Killed;
use crate::ledger::{Answer, Location, RequestId};

impl Redistributor {
    /// Adds until when messages wait for their next delivery, and writes the answers. They only inform people, so what
    /// Redis refuses is not written again.
    pub(super) fn answer(&mut self, mut answers: Vec<(RequestId, Answer)>) -> Result<(), Killed> {
        self.add_times(&mut answers);
        for (request, answer) in answers {
            let (ledger, epoch) = (&mut self.ledger, self.epoch);
            self.retry.until_done(|| match ledger.write_answer(epoch, request, &answer) {
                Err(error) if !matches!(error, Error::Fenced { .. }) => {
                    log::debug!("event=question-not-answered error={}", Quoted(&error));
                    Ok(())
                }
                written => written,
            })?;
        }
        Ok(())
    }

    /// What waits is kept by its time, so all of it is looked through, once for all questions.
    fn add_times(&self, answers: &mut [(RequestId, Answer)]) {
        let mut places: IdMap<Vec<(usize, usize)>> = IdMap::default();
        for (number, (_, Answer(located))) in answers.iter().enumerate() {
            for (place, (id, location)) in located.iter().enumerate() {
                if *location == Location::Settling {
                    places.entry(*id).or_default().push((number, place));
                }
            }
        }
        if places.is_empty() {
            return;
        }
        let now = Instant::now();
        for waiting in [&self.suspects, &self.common] {
            for (due, id) in waiting.delayed.keys() {
                let due_ms = due.saturating_duration_since(now).as_millis() as u64;
                for (number, place) in places.get(id).into_iter().flatten() {
                    answers[*number].1.0[*place].1 = Location::Delayed { due_ms };
                }
            }
        }
    }
}
