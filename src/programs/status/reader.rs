//! Reads the state of a group.
//!
//! There are two sources: the group's keys, and the reports that dispatchers and shadows write once a second. The
//! result is not a snapshot of one moment: the values are read one after the other, and reports are up to a second old.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shadow::ShadowMember;
use super::state::{Member, SHOWN_GAPS, SHOWN_LETTERS, Status};
use crate::base::error::Result;
use crate::base::id::{MessageId, wall_clock_us};
use crate::ledger::letters::LetterHead;
use crate::ledger::overview::{GroupView, Part};
use crate::ledger::server_check::{self, Warning};
use crate::ledger::{Connection, Interests, Keys};

/// How often the server's settings are checked.
const SETTINGS_EVERY: Duration = Duration::from_secs(60);
/// The same while no dispatcher leads, or while the last check has found what stops the group.
const SETTINGS_IN_TROUBLE_EVERY: Duration = Duration::from_secs(5);

/// How often the newest dead letters are read, although there are as many as before.
const LETTERS_EVERY: Duration = Duration::from_secs(10);

/// Reads one group's status repeatedly, through one connection.
pub struct StatusReader {
    view: GroupView,
    /// Whether the oldest pending message is known from reports.
    relies_on_reports: bool,
    max_age: Duration,
    /// The warnings about the server's settings, and when they were checked; forgotten after a failure.
    settings: Option<(Vec<Warning>, Instant)>,
    /// The newest dead letters, how many there were, and when they were read.
    letters: Option<(Option<Vec<LetterHead>>, u64, Instant)>,
    /// What the group listens to, if it is known here.
    interests: Option<Arc<Interests>>,
    /// The stream that the group delivers to, if it is known here.
    stream: Option<String>,
}

impl StatusReader {
    /// A reader that has not connected yet.
    pub fn new(connection: Connection, keys: Keys, max_age: Duration) -> StatusReader {
        StatusReader {
            view: GroupView::new(connection, keys),
            relies_on_reports: false,
            max_age,
            settings: None,
            letters: None,
            interests: None,
            stream: None,
        }
    }

    /// The same reader of a dispatcher, which knows what the group listens to.
    pub fn with_interests(self, interests: Arc<Interests>) -> StatusReader {
        StatusReader { interests: Some(interests), ..self }
    }

    /// The same reader for a user of Redis without the right to call scripts: it takes the oldest pending message from
    /// the dispatchers' reports. If there are none, it reads the message itself.
    pub fn without_scripts(self) -> StatusReader {
        StatusReader { view: self.view.without_scripts(), relies_on_reports: true, ..self }
    }

    /// The group delivers to this stream while no leader reports another.
    pub fn assume_stream(&mut self, stream: Option<String>) {
        self.stream = stream;
    }

    /// The group's status now.
    pub fn read(&mut self) -> Result<Status> {
        let status = self.try_to_read();
        if status.is_err() {
            // By the next check there may be another server at this address.
            self.settings = None;
            self.letters = None;
        }
        status
    }

    fn try_to_read(&mut self) -> Result<Status> {
        let mut snapshot = self.view.snapshot()?;
        let members: Vec<Member> = self.view.members(&snapshot)?.into_iter().map(Member::new).collect();
        let shadows: Vec<ShadowMember> = self.view.shadows()?.into_iter().map(ShadowMember::new).collect();
        let any = snapshot.pending > 0 || self.view.refused().contains(&Part::Pending);
        if self.relies_on_reports && any {
            // Ids only rise, so the highest is from the latest report.
            let reported = members.iter().filter_map(|member| member.report.as_ref()?.oldest).max().map(MessageId);
            snapshot.oldest = reported.map_or_else(|| self.view.oldest_read_whole(), |oldest| Ok(Some(oldest)))?;
        }
        let leads = |member: &&Member| member.report.as_ref().is_some_and(|report| report.leads);
        let stream = members.iter().find(leads).and_then(|member| member.report.as_ref()).map(|report| &report.stream);
        let stream_entries = match stream.filter(|stream| !stream.is_empty()).or(self.stream.as_ref()) {
            Some(stream) => self.view.count_entries(stream)?,
            None => None,
        };
        let gaps = self.view.newest_gaps(SHOWN_GAPS)?;
        let letters = self.letters(snapshot.dead)?;
        let settings = self.settings(snapshot.lease.is_none())?.to_vec();
        Ok(Status {
            group: self.view.keys().group.clone(),
            now_us: wall_clock_us(),
            snapshot,
            refused: self.view.refused().clone(),
            members,
            shadows,
            stream_entries,
            gaps,
            letters,
            settings,
            max_age: self.max_age,
        })
    }

    /// The newest dead letters, read again if there are more or fewer than before, or after a while: as many may have
    /// come as gone.
    fn letters(&mut self, count: u64) -> Result<Option<Vec<LetterHead>>> {
        let current = |(_, counted, read): &(_, u64, Instant)| {
            *counted == count && (count == 0 || read.elapsed() < LETTERS_EVERY)
        };
        let letters = match self.letters.take().filter(current) {
            Some(letters) => letters,
            None => (self.view.newest_letters(SHOWN_LETTERS)?, count, Instant::now()),
        };
        Ok(self.letters.insert(letters).0.clone())
    }

    /// The warnings about the server's settings, checked now or recently.
    fn settings(&mut self, is_leaderless: bool) -> Result<&[Warning]> {
        let every = |found: &[Warning]| match is_leaderless || found.iter().any(Warning::is_problem) {
            true => SETTINGS_IN_TROUBLE_EVERY,
            false => SETTINGS_EVERY,
        };
        let fresh = self.settings.take().filter(|(found, checked)| checked.elapsed() < every(found));
        let settings = match fresh {
            Some(settings) => settings,
            None => (server_check::check(self.view.connection(), self.interests.as_deref())?, Instant::now()),
        };
        Ok(&self.settings.insert(settings).0)
    }
}
