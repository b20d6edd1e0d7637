//! Compares the results of a run with the messages sent: each message must have exactly one result, and there must be
//! no other results.

use std::io::Write;

use super::processes::Replies;
use crate::base::error::{Error, Result};
use crate::ledger::command::command;

/// Roughly the most bytes of results that are read at once, and the most results.
const PAGE_BYTES: usize = 4 << 20;
const PAGE: usize = 5_000;

/// Counts of what is wrong with the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors {
    /// Messages without a result.
    pub(super) missing: u64,
    /// Results in excess of one per message.
    pub(super) twice: u64,
    /// Results that belong to no message.
    pub(super) foreign: u64,
}

impl Errors {
    /// Describes what is wrong with the results of `name`, if anything is.
    pub(super) fn must_be_none(self, name: &str, messages: u64, recorded: u64) -> Result<(), String> {
        let Errors { missing, twice, foreign } = self;
        if self == Errors::default() {
            return Ok(());
        }
        Err(format!(
            "{name}: of {messages} messages {missing} have no result; of {recorded} results {twice} are duplicates and \
             {foreign} belong to no message"
        ))
    }
}

/// Reads all results of the stream `key`. There must be one for each of the messages `0..sent`.
pub(super) fn results(port: u16, key: &str, sent: u64, payload: usize) -> Result<Errors> {
    let (mut replies, mut writer) = Replies::connect(port)?;
    let page = (PAGE_BYTES / payload).clamp(1, PAGE).to_string();
    let mut tally = Tally::new(sent);
    let mut from = "-".to_owned();
    let mut out = Vec::new();
    loop {
        out.clear();
        command(&mut out, &["XRANGE", key, &from, "+", "COUNT", &page]);
        writer.write_all(&out).map_err(Error::io("writing to redis"))?;
        replies.make_room();
        match replies.results(|found| tally.add(found.map(|(number, _)| number)))? {
            Some(last) => from = format!("({last}"),
            None => return Ok(tally.errors()),
        }
    }
}

/// A bit for each message.
struct Tally {
    bits: Vec<u64>,
    sent: u64,
    errors: Errors,
}

impl Tally {
    fn new(sent: u64) -> Tally {
        Tally { bits: vec![0; sent.div_ceil(64) as usize], sent, errors: Errors { missing: sent, ..Errors::default() } }
    }

    fn add(&mut self, number: Option<u64>) {
        let Some(number) = number.filter(|number| *number < self.sent) else {
            self.errors.foreign += 1;
            return;
        };
        let (word, bit) = (&mut self.bits[(number / 64) as usize], 1 << (number % 64));
        match *word & bit {
            0 => self.errors.missing -= 1,
            _ => self.errors.twice += 1,
        }
        *word |= bit;
    }

    fn errors(&self) -> Errors {
        self.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_duplicate_and_foreign_results_are_counted() {
        let mut tally = Tally::new(130);
        (0..130).filter(|number| *number != 64).for_each(|number| tally.add(Some(number)));
        assert_eq!(tally.errors(), Errors { missing: 1, ..Errors::default() });
        [Some(129), Some(129), Some(130), None].into_iter().for_each(|number| tally.add(number));
        assert_eq!(tally.errors(), Errors { missing: 1, twice: 2, foreign: 2 });
        tally.add(Some(64));
        assert_eq!(tally.errors(), Errors { missing: 0, twice: 2, foreign: 2 });
    }
}
