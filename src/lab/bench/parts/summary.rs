//! What a load has come to, as its last line of output. Pure.

/// What came of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::lab::bench) struct Summary {
    /// Messages sent.
    pub(in crate::lab::bench) sent: u64,
    /// Messages that no subscriber received.
    pub(in crate::lab::bench) unreceived: u64,
    /// Results recorded between the first message and the last, and how long that took.
    pub(in crate::lab::bench) recorded_meanwhile: u64,
    pub(in crate::lab::bench) sending_us: u64,
    /// Results recorded in the end, whoever's message they are of, and how long it took until the last.
    pub(in crate::lab::bench) recorded: u64,
    pub(in crate::lab::bench) elapsed_us: u64,
    /// The load's own CPU time.
    pub(in crate::lab::bench) cpu_us: u64,
}

impl Summary {
    /// As the program prints it, and as [`Summary::read`] takes it.
    pub(super) fn line(&self) -> String {
        let Summary { sent, unreceived, recorded_meanwhile, sending_us, recorded, elapsed_us, cpu_us } = self;
        format!("{sent} {unreceived} {recorded_meanwhile} {sending_us} {recorded} {elapsed_us} {cpu_us}")
    }

    /// Reads the last line of the program's output.
    pub(in crate::lab::bench) fn read(line: &str) -> Option<Summary> {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [sent, unreceived, recorded_meanwhile, sending_us, recorded, elapsed_us, cpu_us] = numbers[..] else {
            return None;
        };
        Some(Summary { sent, unreceived, recorded_meanwhile, sending_us, recorded, elapsed_us, cpu_us })
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
            recorded_meanwhile: 3,
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
