//! Compares the results of a run with what was sent: each message must be there once, and nothing else.

use super::parts::{Link, read_id};
use super::rig::RESULTS;
use crate::base::error::Result;
use crate::ledger::command::command;

/// About how many bytes of results are read at once, and the most results.
const PAGE_BYTES: usize = 4 << 20;
const PAGE: usize = 5_000;

/// What is wrong with the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Messages without a result.
    pub(super) missing: u64,
    /// Results beyond one for each message.
    pub(super) twice: u64,
    /// Results of no message.
    pub(super) foreign: u64,
}

/// Reads all results; messages `0 … sent` are owed.
pub(super) fn results(port: u16, sent: u64, payload: usize) -> Result<Faults> {
    let mut link = Link::connect(port)?;
    let page = (PAGE_BYTES / payload).clamp(1, PAGE).to_string();
    let mut seen = Seen::new(sent);
    let mut from = "-".to_owned();
    let mut out = Vec::new();
    loop {
        out.clear();
        command(&mut out, &["XRANGE", RESULTS, &from, "+", "COUNT", &page]);
        link.send(&out)?;
        link.settle();
        let entries = link.list()?.unwrap_or(0);
        if entries == 0 {
            return Ok(seen.faults());
        }
        let mut last = 0..0;
        for _ in 0..entries {
            link.list()?;
            last = link.bulk()?;
            let fields = link.list()?.unwrap_or(0);
            let mut number = None;
            for _ in 0..fields / 2 {
                let (name, value) = (link.bulk()?, link.bulk()?);
                if matches!(link.text(&name), b"message_id" | b"payload") {
                    number = read_id(link.text(&value)).map(|(number, _)| number);
                }
            }
            seen.add(number);
        }
        from = format!("({}", String::from_utf8_lossy(link.text(&last)));
    }
}

/// A bit for each message.
struct Seen {
    bits: Vec<u64>,
    sent: u64,
    faults: Faults,
}

impl Seen {
    fn new(sent: u64) -> Seen {
        Seen { bits: vec![0; sent.div_ceil(64) as usize], sent, faults: Faults { missing: sent, ..Faults::default() } }
    }

    fn add(&mut self, number: Option<u64>) {
        let Some(number) = number.filter(|number| *number < self.sent) else {
            self.faults.foreign += 1;
            return;
        };
        let (word, bit) = (&mut self.bits[(number / 64) as usize], 1 << (number % 64));
        match *word & bit {
            0 => self.faults.missing -= 1,
            _ => self.faults.twice += 1,
        }
        *word |= bit;
    }

    fn faults(&self) -> Faults {
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_twice_or_foreign_is_counted() {
        let mut seen = Seen::new(130);
        (0..130).filter(|number| *number != 64).for_each(|number| seen.add(Some(number)));
        assert_eq!(seen.faults(), Faults { missing: 1, ..Faults::default() });
        [Some(129), Some(129), Some(130), None].into_iter().for_each(|number| seen.add(number));
        assert_eq!(seen.faults(), Faults { missing: 1, twice: 2, foreign: 2 });
        seen.add(Some(64));
        assert_eq!(seen.faults(), Faults { missing: 0, twice: 2, foreign: 2 });
    }
}
