//! Reads the state of a group.
//!
//! What is found comes from two sources: the group's keys, and the reports that the dispatchers write to Redis once a
//! second. It is not of one moment: the values are read one after the other, and reports are up to a second old.

use std::time::{Duration, Instant};

use super::state::{Member, SHOWN_GAPS, Status};
use crate::base::error::Result;
use crate::base::id::{MessageId, wall_clock_us};
use crate::ledger::overview::{GroupView, Part};
use crate::ledger::server_check::{self, Warning};
use crate::ledger::{Connection, Keys};

/// How often the server's settings are looked at.
const SETTINGS_EVERY: Duration = Duration::from_secs(60);

/// Looks at one group, again and again, through one connection.
pub struct Onlooker {
    view: GroupView,
    /// Whether the oldest pending message is known from reports.
    relies_on_reports: bool,
    max_age: Duration,
    /// What was found in the server's settings, and when; nothing since the last failure.
    settings: Option<(Vec<Warning>, Instant)>,
}

impl Onlooker {
    /// Opens nothing yet.
    pub fn new(connection: Connection, keys: Keys, max_age: Duration) -> Onlooker {
        Onlooker { view: GroupView::new(connection, keys), relies_on_reports: false, max_age, settings: None }
    }

    /// The same for a user that may only read, and call no scripts: the age of the oldest pending message is known from
    /// the dispatchers' reports. If there are none, the message is read.
    pub fn without_scripts(self) -> Onlooker {
        Onlooker { view: self.view.without_scripts(), relies_on_reports: true, ..self }
    }

    /// How the group stands now.
    pub fn look(&mut self) -> Result<Status> {
        let status = self.try_to_look();
        if status.is_err() {
            // Behind the address may be another server next time.
            self.settings = None;
        }
        status
    }

    fn try_to_look(&mut self) -> Result<Status> {
        let mut snapshot = self.view.snapshot()?;
        let members: Vec<Member> = self.view.members(&snapshot)?.into_iter().map(Member::new).collect();
        let any = snapshot.pending > 0 || self.view.refused().contains(&Part::Pending);
        if self.relies_on_reports && any {
            // The latest look is that which has seen the most go.
            let reported = members.iter().filter_map(|member| member.report.as_ref()?.oldest).max().map(MessageId);
            snapshot.oldest = reported.map_or_else(|| self.view.oldest_read_whole(), |oldest| Ok(Some(oldest)))?;
        }
        let gaps = self.view.newest_gaps(SHOWN_GAPS)?;
        let settings = self.settings()?.to_vec();
        Ok(Status {
            group: self.view.keys().group.clone(),
            now_us: wall_clock_us(),
            snapshot,
            refused: self.view.refused().clone(),
            members,
            gaps,
            settings,
            max_age: self.max_age,
        })
    }

    /// What is to be said of the server's settings, looked at now or not long ago.
    fn settings(&mut self) -> Result<&[Warning]> {
        let fresh = self.settings.take().filter(|(_, looked)| looked.elapsed() < SETTINGS_EVERY);
        let settings = match fresh {
            Some(settings) => settings,
            None => (server_check::check(self.view.connection())?, Instant::now()),
        };
        Ok(&self.settings.insert(settings).0)
    }
}
