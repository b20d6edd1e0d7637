//! Asks the leader where messages are, and waits for the answers for a limited time. Nothing depends on an answer: the
//! leader drops questions when it has other work.

use std::thread;
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::id::{IdMap, MessageId};
use crate::ledger::{Answer, Ledger, Location, MOST_ASKED, Question, RequestId};
use crate::programs::patience::patiently;

/// How long the leader has.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// When a question without an answer is asked once more.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(700);
/// How often it is looked for the answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module's text.
pub(super) struct Asker {
    patience: Duration,
    /// Why the leader is not asked any more.
    silence: Option<String>,
}

impl Asker {
    /// `asks`: whether to ask at all.
    pub(super) fn new(asks: bool, patience: Duration) -> Asker {
        Asker { patience, silence: (!asks).then(|| "the leader was not asked".to_owned()) }
    }

    /// Why it is not known of each message where it is.
    pub(super) fn silence(&self) -> Option<&str> {
        self.silence.as_deref()
    }

    /// Where these are, as far as the leader answers.
    pub(super) fn locate(&mut self, ledger: &mut Ledger, ids: &[MessageId]) -> Result<IdMap<Location>> {
        let mut found = IdMap::default();
        if self.silence.is_some() || ids.is_empty() {
            return Ok(found);
        }
        match self.ask(ledger, ids, &mut found) {
            Ok(silence) => self.silence = silence,
            Err(error) if error.is_denied() => self.silence = Some(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Returns why the leader did not answer everything, if it did not.
    fn ask(&self, ledger: &mut Ledger, ids: &[MessageId], found: &mut IdMap<Location>) -> Result<Option<String>> {
        if !patiently(ledger, self.patience, Ledger::is_led)? {
            return Ok(Some("no dispatcher leads".to_owned()));
        }
        let question = |ids: &[MessageId]| Question { request: RequestId::generate(), ids: ids.to_vec() };
        let mut open: Vec<Question> = ids.chunks(MOST_ASKED).map(question).collect();
        let mut asked = self.publish(ledger, &open)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut still_open = Vec::with_capacity(open.len());
            for question in open {
                match patiently(ledger, self.patience, |ledger| ledger.answer_to(question.request))? {
                    Some(Answer(located)) => found.extend(located),
                    None => still_open.push(question),
                }
            }
            open = still_open;
            if open.is_empty() {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let within = ANSWER_WITHIN.as_secs();
                return Ok(Some(format!(
                    "the leader did not answer within {within} s: it is busy, does not reach Redis, or its version \
                     can't"
                )));
            }
            if asked.elapsed() >= ASK_AGAIN_AFTER {
                asked = self.publish(ledger, &open)?;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn publish(&self, ledger: &mut Ledger, questions: &[Question]) -> Result<Instant> {
        for question in questions {
            patiently(ledger, self.patience, |ledger| ledger.ask(question))?;
        }
        Ok(Instant::now())
    }
}
