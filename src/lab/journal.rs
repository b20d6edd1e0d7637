//! A journal of handler runs: for each run the message, its lane, and the number of its delivery. It survives the death
//! of its process.
//!
//! Each run is one write of 10 bytes to the end of a file, before the handler does anything, so a run is recorded even
//! if SIGKILL ends the process immediately afterwards. Many threads may write to one journal.
//!
//! Limitations: a crash of the machine may lose entries.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::id::{MAX_MESSAGE_ID, MessageId};
use crate::ledger::LaneNumber;

/// The number of the delivery is stored above the 53 bits of the id. Numbers that do not fit are stored as the highest.
const NUMBER_SHIFT: u32 = 53;
const MAX_NUMBER: u64 = u64::MAX >> NUMBER_SHIFT;
/// The size of an entry: two bytes for the lane, and eight for the rest.
const ENTRY_BYTES: usize = 10;

/// See the module's text.
#[derive(Debug)]
pub struct Journal(File);

/// Counts of what journals hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs of the handler.
    pub runs: u64,
    /// Distinct messages.
    pub messages: u64,
    /// Runs for a delivery that was not a message's first.
    pub redelivered: u64,
}

impl Runs {
    /// Runs in excess of one per message.
    pub fn repeated(self) -> u64 {
        self.runs - self.messages
    }
}

impl Journal {
    /// Opens the file at `path` to append to it, and creates it if need be.
    pub fn open(path: &Path) -> Result<Journal> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Journal).map_err(Error::io(format!("opening {}", path.display())))
    }

    /// Records a run of the handler.
    pub fn record(&self, lane: LaneNumber, id: MessageId, number: u16) -> io::Result<()> {
        let mut entry = [0; ENTRY_BYTES];
        let run = id.0 | u64::from(number).min(MAX_NUMBER) << NUMBER_SHIFT;
        entry[..2].copy_from_slice(&lane.to_be_bytes());
        entry[2..].copy_from_slice(&run.to_be_bytes());
        (&self.0).write_all(&entry)
    }
}

/// Counts the entries of all journals in a folder.
pub fn count(folder: &Path) -> Result<Runs> {
    let failed = |error| Error::io(format!("reading the journals in {}", folder.display()))(error);
    let mut runs = Runs::default();
    let mut messages = HashSet::new();
    for file in fs::read_dir(folder).map_err(failed)? {
        let entries = fs::read(file.map_err(failed)?.path()).map_err(failed)?;
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let (lane, run) = entry.split_at(2);
            let run = u64::from_be_bytes(run.try_into().expect("a chunk has this length"));
            runs.runs += 1;
            runs.redelivered += u64::from(run >> NUMBER_SHIFT > 1);
            messages.insert(([lane[0], lane[1]], run & MAX_MESSAGE_ID));
        }
    }
    runs.messages = messages.len() as u64;
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::folder::PrivateFolder;

    #[test]
    fn runs_are_counted_over_all_journals() {
        let folder = PrivateFolder::create("journals").expect("a folder");
        let journal = |name: &str| Journal::open(&folder.path().join(name)).expect("a journal");
        let (first, second) = (journal("c0"), journal("c1"));
        first.record(0, MessageId(5), 1).expect("written");
        first.record(7, MessageId(5), 1).expect("written");
        first.record(0, MessageId(MAX_MESSAGE_ID), 1).expect("written");
        second.record(0, MessageId(5), 2).expect("written");
        drop(first);
        // A consumer that is started again appends to its journal.
        journal("c0").record(u16::MAX, MessageId(6), u16::MAX).expect("written");
        let runs = count(folder.path()).expect("they can be read");
        assert_eq!(runs, Runs { runs: 5, messages: 4, redelivered: 2 });
        assert_eq!(runs.repeated(), 1);
    }
}
