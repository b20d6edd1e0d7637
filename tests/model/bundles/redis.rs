//! What Redis has in the search of bundles, and what transactions and scripts do there.

/// A rule that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A transaction removes a bundle in both forms: as one member, and as one for each message.
    BothForms,
    /// A transaction removes a bundle only with the results of all its messages.
    AllResults,
    /// It does so only if all of them are above the recall.
    AllAboveRecall,
    /// A transaction does nothing if the recall was written since it was read.
    CommitWatchesRecall,
    /// A script that repeats a transaction of unknown outcome raises the recall.
    RetryRaisesRecall,
    /// For a script, a message in a bundle is pending.
    BundledIsPending,
    /// A script takes a bundle apart before it removes a message of it.
    CommitSplits,
    /// Settling takes a bundle apart, because a redelivery does not say that its message is in one.
    SettleSplits,
    /// Taking a bundle apart removes it.
    SplitRemoves,
    /// Messages are put back once, however often that is asked for.
    PutBackOnce,
    /// Putting back takes a bundle apart that Redis has again after a restart.
    PutBackSplits,
    /// After a restart of Redis every message is checked until a leader has written a new recall.
    RestartChecks,
}

/// The rules in force.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub missing: Option<Rule>,
}

/// Something that must be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    RemovedWhole,
    /// A transaction finds that its bundle was taken apart.
    MetSplit,
    CommitSplit,
    SettleSplit,
    LateIsVoid,
    PutBack,
    PutBackSplit,
}

/// Messages, each a bit, in the order of their ids: A, B and C.
pub type Set = u8;
pub const BUNDLE: Set = 0b011;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recall {
    pub epoch: u8,
    pub server: u8,
    pub up_to: Set,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Whether it has the bundle.
    pub whole: bool,
    /// Members of single messages.
    pub single: Set,
    pub results: [u8; 3],
    pub epoch: u8,
    pub recall: Recall,
    /// The nonces of what was put back.
    pub put_back: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Transaction { ids: Set, bundled: bool, recall: Recall },
    Commit { ids: Set, raise: Set },
    PutBack { ids: Set, nonce: u8 },
    Settle { epoch: u8, id: usize, held: bool, first: bool },
}

/// What an answer says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// Messages that a transaction has left to the script, or the settled message if it is pending.
    pub left: Set,
    /// Messages that were removed and whose results were refused.
    pub removed: Set,
    pub situation: Option<Situation>,
}

/// The highest of these messages and all before it.
pub fn up_to(ids: Set) -> Set {
    u8::MAX.checked_shr(ids.leading_zeros()).unwrap_or(0)
}

pub fn each(ids: Set) -> impl Iterator<Item = usize> {
    (0..3).filter(move |id| ids & 1 << id != 0)
}

impl Rules {
    pub fn has(self, rule: Rule) -> bool {
        self.missing != Some(rule)
    }
}

impl Redis {
    pub fn has(&self, id: usize) -> bool {
        (self.single | if self.whole { BUNDLE } else { 0 }) & 1 << id != 0
    }

    /// Takes the bundle apart if one of these messages is in it. Returns whether one was.
    pub fn split(&mut self, ids: Set, rules: Rules) -> bool {
        let splits = self.whole && ids & BUNDLE & !self.single != 0;
        if splits {
            self.single |= BUNDLE;
            self.whole = !rules.has(Rule::SplitRemoves);
        }
        splits
    }

    /// Executes a request. `refused`: results that a transaction can't store. `late`: nobody waits for the answer.
    pub fn execute(&mut self, call: Call, refused: Set, late: bool, rules: Rules) -> Answer {
        match call {
            Call::Transaction { ids, recall, .. } if rules.has(Rule::CommitWatchesRecall) && recall != self.recall => {
                Answer { left: ids, situation: late.then_some(Situation::LateIsVoid), ..Answer::default() }
            }
            Call::Transaction { ids, bundled, .. } => {
                let was_whole = bundled && std::mem::take(&mut self.whole);
                self.single &= !if bundled && !rules.has(Rule::BothForms) { ids & !BUNDLE } else { ids };
                each(ids & !refused).for_each(|id| self.results[id] += 1);
                let situation = if was_whole { Situation::RemovedWhole } else { Situation::MetSplit };
                Answer { removed: refused, situation: bundled.then_some(situation), ..Answer::default() }
            }
            Call::Commit { ids, raise } => {
                self.recall.up_to |= if rules.has(Rule::RetryRaisesRecall) { raise } else { 0 };
                let splits = each(ids).filter(|id| self.record(*id, rules)).count() > 0;
                Answer { situation: splits.then_some(Situation::CommitSplit), ..Answer::default() }
            }
            Call::PutBack { nonce, .. } if rules.has(Rule::PutBackOnce) && self.put_back & 1 << nonce != 0 => {
                Answer::default()
            }
            Call::PutBack { ids, nonce } => {
                let splits = rules.has(Rule::PutBackSplits) && self.split(ids, rules);
                self.single |= ids;
                self.put_back |= 1 << nonce;
                self.recall.up_to |= up_to(ids);
                let situation = if splits { Situation::PutBackSplit } else { Situation::PutBack };
                Answer { situation: Some(situation), ..Answer::default() }
            }
            Call::Settle { epoch, .. } if epoch != self.epoch => Answer::default(),
            Call::Settle { id, held, .. } => {
                self.recall.up_to |= if held { up_to(1 << id) } else { 0 };
                let splits = rules.has(Rule::SettleSplits) && self.split(1 << id, rules);
                let situation = splits.then_some(Situation::SettleSplit);
                Answer { left: u8::from(self.has(id)) << id, situation, ..Answer::default() }
            }
        }
    }

    /// Records a message if it is pending. Returns whether that took the bundle apart.
    fn record(&mut self, id: usize, rules: Rules) -> bool {
        let is_single = self.single & 1 << id != 0;
        if !self.has(id) || !is_single && !rules.has(Rule::BundledIsPending) {
            return false;
        }
        let splits = rules.has(Rule::CommitSplits) && self.split(1 << id, rules);
        // Without its rule, a script that removes a message from a bundle removes the bundle.
        self.whole &= is_single || splits;
        self.single &= !(1 << id);
        self.results[id] += 1;
        splits
    }
}
