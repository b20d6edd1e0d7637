//! The summary of a load, as its last line of output. Pure.

/// The counts and times of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that had no subscriber.
    pub(crate) unreceived: u64,
    /// Results recorded while messages were sent, and how long sending took.
    pub(crate) recorded_while_sending: u64,
    pub(crate) sending_us: u64,
    /// All results in the stream at the end, and the time from the first message until the last result.
    pub(crate) recorded: u64,
    pub(crate) elapsed_us: u64,
    /// The CPU time of the load process.
    pub(crate) cpu_us: u64,
}

impl Summary {
    /// The summary as a line of text.
    pub(super) fn line(&self) -> String {
        let Summary { sent, unreceived, recorded_while_sending, sending_us, recorded, elapsed_us, cpu_us } = self;
        format!("{sent} {unreceived} {recorded_while_sending} {sending_us} {recorded} {elapsed_us} {cpu_us}")
    }

    /// Parses what [`Summary::line`] returned.
    pub(crate) fn read(line: &str) -> Option<Summary> {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [sent, unreceived, recorded_while_sending, sending_us, recorded, elapsed_us, cpu_us] = numbers[..] else {
            return None;
        };
        Some(Summary { sent, unreceived, recorded_while_sending, sending_us, recorded, elapsed_us, cpu_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_read_back() {
        let summary = Summary {
            sent: 1,
            unreceived: 2,
            recorded_while_sending: 3,
            sending_us: 4,
            recorded: 5,
            elapsed_us: 6,
            cpu_us: 7,
        };
        assert_eq!(Summary::read(&summary.line()), Some(summary));
        for line in ["", "1 2 3", "1 2 3 4 5 6 x", "1 2 3 4 5 6 7 8"] {
            assert_eq!(Summary::read(line), None, "{line}");
        }
    }
}
