//! `oncecast pending`: lists and shows pending messages, and where each of them is.
//!
//! Reads only, page by page, so that a million messages need little memory and Redis little time for each page. Where
//! a message is, only the leader knows; it is asked by a notice on the control channel. Messages come and go
//! meanwhile: a list is no snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::error::Result;
use crate::base::id::{IdMap, MAX_MESSAGE_ID, MessageId, id_in};
use crate::base::text::Quoted;
use crate::ledger::{Ledger, Location, Looked};
use crate::process::log as process_log;
use crate::process::output::{self, StdoutReader};
use crate::programs::absent::warn_if_absent;
use crate::programs::lanes::{LaneConfig, by_lane, heading, lanes_of};
use crate::programs::patience::patiently;

mod asker;
mod row;
pub mod settings;

use self::asker::Asker;
use self::row::Row;
use self::settings::{Action, PendingConfig};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// The most messages on a page, which the leader is asked for at once.
const PAGE: u64 = 1_000;

/// The subcommand. Returns the exit code.
pub fn run(config: &PendingConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "pending")?;
    let lanes = lanes_of(&config.common, config.patience)?;
    match &config.action {
        Action::List { limit, older_than } => list(config, &lanes, *limit, *older_than),
        Action::Show(names) => {
            let mut named = by_lane(&lanes, names)?;
            let named = |lane: &LaneConfig| Some((lane.clone(), named.remove(&lane.number)?));
            let lanes: Vec<_> = lanes.iter().filter_map(named).collect();
            lanes.iter().try_fold(0, |code, (lane, ids)| Ok(Looker::new(config, lane).show(ids)?.max(code)))
        }
    }
}

fn list(config: &PendingConfig, lanes: &[LaneConfig], limit: Option<u64>, older: Option<Duration>) -> Result<u8> {
    let (mut listed, mut existing) = (0, 0);
    for lane in lanes {
        let Some((some, all)) = Looker::new(config, lane).list(limit, older)? else { return Ok(0) };
        listed += some;
        existing += all;
    }
    if lanes.len() > 1 && !config.json {
        output::print(format_args!("all {} lanes: {listed} listed, {existing} pending\n", lanes.len()))?;
    }
    Ok(0)
}

/// Looks at the messages of one lane.
struct Looker<'a> {
    config: &'a PendingConfig,
    lane: &'a LaneConfig,
    ledger: Ledger,
    asker: Asker,
}

impl<'a> Looker<'a> {
    fn new(config: &'a PendingConfig, lane: &'a LaneConfig) -> Looker<'a> {
        let ledger = Ledger::new(lane.common.redis.clone(), lane.common.keys.clone().into(), REPLY_TIME);
        Looker { config, lane, ledger, asker: Asker::new(config.asks, config.patience) }
    }

    /// Returns how many were listed, and how many there are. `None` if the reader has gone.
    fn list(&mut self, limit: Option<u64>, older_than: Option<Duration>) -> Result<Option<(u64, u64)>> {
        let (patience, json) = (self.config.patience, self.config.json);
        if !json && output::print(heading(self.lane))? == StdoutReader::Gone {
            return Ok(None);
        }
        let key = self.ledger.keys().pending.clone();
        if warn_if_absent(&self.lane.common, &mut self.ledger, &key)? {
            return Ok(Some((0, 0)));
        }
        if !json && output::print(Row::header(self.lane) + "\n")? == StdoutReader::Gone {
            return Ok(None);
        }
        let up_to = match older_than {
            Some(age) => MessageId(
                patiently(&mut self.ledger, patience, Ledger::clock_us)?.saturating_sub(age.as_micros() as u64),
            ),
            None => MessageId(MAX_MESSAGE_ID),
        };
        let (mut listed, mut foreign, mut after, mut whole) = (0, 0, MessageId::ZERO, false);
        while limit.is_none_or(|limit| listed < limit) {
            let most = limit.map_or(PAGE, |limit| (limit - listed).min(PAGE)) as usize;
            let page = patiently(&mut self.ledger, patience, |ledger| ledger.look(after, up_to, most))?;
            foreign += page.foreign;
            let Some(read_up_to) = page.read_up_to else {
                whole = true;
                break;
            };
            after = read_up_to;
            listed += page.messages.len() as u64;
            if self.print(&page.messages, |row| row.line(json) + "\n")? == StdoutReader::Gone {
                return Ok(None);
            }
        }
        let mut existing = listed;
        if !json {
            let count = patiently(&mut self.ledger, patience, Ledger::count_pending)?;
            let more = if whole || listed == count { "" } else { "; --limit 0 lists all" };
            let strange = if foreign > 0 { format!("; {foreign} that no dispatcher stored") } else { String::new() };
            output::print(format_args!("{listed} listed, {count} pending in {key}{strange}{more}\n"))?;
            existing = count;
        }
        self.explain_silence();
        Ok(Some((listed, existing)))
    }

    fn show(&mut self, ids: &BTreeSet<String>) -> Result<u8> {
        let json = self.config.json;
        let mut missing = Vec::new();
        for id in ids {
            let number = id_in(id).expect("the command line accepts nothing else");
            match patiently(&mut self.ledger, self.config.patience, |ledger| ledger.look_whole(number))? {
                Some(looked) => {
                    let text = |row: &Row<'_>| if json { row.whole_json() } else { row.whole() } + "\n";
                    if self.print(&[looked], text)? == StdoutReader::Gone {
                        return Ok(0);
                    }
                }
                None => missing.push(self.lane.name_of(id)),
            }
        }
        self.explain_silence();
        if missing.is_empty() {
            return Ok(0);
        }
        log::warn!("event=not-pending ids={} key={}", missing.join(","), self.ledger.keys().pending);
        Ok(3)
    }

    /// Asks where these messages are, and prints them.
    fn print(&mut self, messages: &[Looked], text: impl Fn(&Row<'_>) -> String) -> Result<StdoutReader> {
        let ids: Vec<MessageId> = messages.iter().map(|looked| looked.id).collect();
        let located: IdMap<Location> = self.asker.locate(&mut self.ledger, &ids)?;
        // Read after the messages, so that none is from the future.
        let now_us = patiently(&mut self.ledger, self.config.patience, Ledger::clock_us)?;
        let row = |looked| Row { lane: self.lane, looked, location: located.get(&looked.id), now_us };
        output::print(messages.iter().map(|looked| text(&row(looked))).collect::<String>())
    }

    /// Says why it is not known where messages are.
    fn explain_silence(&self) {
        if let Some(silence) = self.asker.silence().filter(|_| self.config.asks) {
            log::warn!("event=where-unknown reason={}", Quoted(silence));
        }
    }
}
