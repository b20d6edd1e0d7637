//! `oncecast status`: how a group stands, as one page of text.
//!
//! Reads only, on the caller's thread: one look at the group, then the newest of its gaps. What it shows is what Redis
//! knows; a dispatcher's own figures are served by its `--metrics-addr`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::StatusConfig;
use crate::error::Result;
use crate::id::wall_clock_us;
use crate::ledger::overview::{GroupView, Snapshot};
use crate::ledger::reading::RecordedGap;
use crate::ledger::{Connection, Ledger};
use crate::log::Timestamp;

/// How long a reply is waited for.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// The most gaps that are shown.
pub const SHOWN_GAPS: usize = 10;

/// How a group stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The group's name.
    pub group: String,
    /// When it was looked at, in microseconds since 1970.
    pub now_us: u64,
    /// What Redis holds of it.
    pub snapshot: Snapshot,
    /// Its newest gaps, the newest first.
    pub gaps: Vec<RecordedGap>,
}

/// Looks at a group.
pub fn status(config: &StatusConfig) -> Result<Status> {
    let common = &config.common;
    let connection = Connection::new(common.redis.clone(), REPLY_TIME);
    let snapshot = GroupView::new(connection, common.keys.clone()).snapshot()?;
    let mut ledger = Ledger::new(common.redis.clone(), Arc::new(common.keys.clone()), REPLY_TIME);
    let gaps = ledger.newest_gaps(SHOWN_GAPS)?;
    Ok(Status { group: common.keys.group.clone(), now_us: wall_clock_us(), snapshot, gaps })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Snapshot { lease, lease_left, pending, oldest, processed, dead, dispatchers, consumers, .. } =
            &self.snapshot;
        let mut line = |name: &str, text: String| writeln!(f, "{name:<14}{text}");
        line("group", self.group.clone())?;
        line(
            "leader",
            match lease {
                Some(lease) if *dispatchers == 0 => format!("none; {}, the last, is gone", lease.holder),
                Some(lease) => {
                    let left = lease_left.unwrap_or_default().as_millis();
                    format!("{}, epoch {}, lease for {left} ms more", lease.holder, lease.epoch)
                }
                None => format!("none; the last epoch was {}", self.snapshot.epoch),
            },
        )?;
        line("dispatchers", format!("{dispatchers} subscribed"))?;
        line("consumers", format!("{}{}", consumers.len(), list(consumers)))?;
        let age = oldest.map(|oldest| self.now_us.saturating_sub(oldest.0) as f64 / 1e6);
        let age = age.map_or(String::new(), |seconds| format!(", the oldest for {seconds:.1} s"));
        line("pending", format!("{pending}{age}"))?;
        line("results", processed.to_string())?;
        line("dead letters", dead.to_string())?;
        line("gaps", self.snapshot.gaps.to_string())?;
        for gap in &self.gaps {
            let RecordedGap { at_ms, reason, dispatcher, begin, end, count } = gap;
            let at = Timestamp(at_ms * 1_000);
            writeln!(f, "  {at} {reason}, found by {dispatcher}: after {begin:?} until {end:?}, messages: {count}")?;
        }
        let more = self.snapshot.gaps.saturating_sub(self.gaps.len() as u64);
        if more > 0 {
            writeln!(f, "  and {more} older ones in the stream {}:gaps", self.group)?;
        }
        Ok(())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, MessageId};
    use crate::ledger::overview::Lease;

    #[test]
    fn it_reads_well() {
        let snapshot = Snapshot {
            lease: Some(Lease { holder: "d0-5f3a9c".into(), epoch: Epoch(17) }),
            lease_left: Some(Duration::from_millis(1_400)),
            dispatchers: 2,
            consumers: vec!["c0".into(), "c1".into()],
            pending: 3,
            oldest: Some(MessageId(500_000)),
            processed: 40,
            gaps: 12,
            ..Snapshot::default()
        };
        let gap = RecordedGap {
            at_ms: 1_000,
            reason: "ring-overrun".into(),
            dispatcher: "d0-5f3a9c".into(),
            begin: "17.1 0 5".into(),
            end: "17.1 0 5".into(),
            count: "7".into(),
        };
        let status = Status { group: "messages".into(), now_us: 2_000_000, snapshot, gaps: vec![gap] };
        let expected = "\
group         messages
leader        d0-5f3a9c, epoch 17, lease for 1400 ms more
dispatchers   2 subscribed
consumers     2: c0 c1
pending       3, the oldest for 1.5 s
results       40
dead letters  0
gaps          12
  1970-01-01T00:00:01.000Z ring-overrun, found by d0-5f3a9c: after \"17.1 0 5\" until \"17.1 0 5\", messages: 7
  and 11 older ones in the stream messages:gaps
";
        assert_eq!(status.to_string(), expected);
        let nobody = Status { snapshot: Snapshot::default(), gaps: Vec::new(), ..status };
        assert!(nobody.to_string().contains("leader        none; the last epoch was 0\n"), "{nobody}");
    }
}
