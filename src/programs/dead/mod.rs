//! `oncecast dead`: lists, shows, replays and drops dead letters.
//!
//! Letters are read page by page, so that a million of them need little memory. A change concerns the letters that
//! exist when it begins: a replayed message that dies again while the tool runs is not replayed again. Each page of a
//! change is one step in Redis, so the tool may be killed at any time and started again.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::setting::ConfigError;
use crate::ledger::reading::{Entry, EntryStream, ReadPosition};
use crate::ledger::{Ledger, MOST_RETURNED, parts};
use crate::process::log as process_log;
use crate::process::output::{self, StdoutReader};
use crate::programs::absent::warn_if_absent;
use crate::programs::lanes::{LaneConfig, heading, lanes_of, only_lane};
use crate::programs::patience::patiently;

mod letter;
pub mod settings;
mod tally;

use self::letter::Letter;
use self::settings::{Action, Consent, DeadConfig};
use self::tally::Tally;

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// The subcommand. Returns the exit code.
pub fn run(config: &DeadConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "dead")?;
    let lanes = lanes_of(&config.common, config.patience)?;
    if !config.selection.ids.is_empty() {
        only_lane(&lanes)?;
    }
    let mut code = 0;
    for LaneConfig { number, common } in &lanes {
        if !config.json && output::print(heading(&lanes, *number))? == StdoutReader::Gone {
            break;
        }
        code = code.max(run_on(&DeadConfig { common: common.clone(), ..config.clone() })?);
    }
    Ok(code)
}

/// The same for one lane.
fn run_on(config: &DeadConfig) -> Result<u8> {
    let ledger = Ledger::new(config.common.redis.clone(), config.common.keys.clone().into(), REPLY_TIME);
    let mut clerk = Clerk { config, ledger, missing: config.selection.ids.clone() };
    match config.action {
        Action::List(limit) => clerk.list(limit),
        Action::Show => clerk.show(),
        Action::Replay(consent) => clerk.change(consent, "replay", |ledger, entries, tally| {
            tally.note_replayed(&ledger.replay(entries)?);
            Ok(())
        }),
        Action::Drop(consent) => clerk.change(consent, "drop", |ledger, entries, tally| {
            tally.note_dropped(entries.len() as u64, ledger.drop_letters(entries)?);
            Ok(())
        }),
    }
}

struct Clerk<'a> {
    config: &'a DeadConfig,
    ledger: Ledger,
    /// The ids that were asked for and not found yet.
    missing: BTreeSet<String>,
}

impl Clerk<'_> {
    fn list(&mut self, limit: Option<u64>) -> Result<u8> {
        let json = self.config.json;
        let stream = self.ledger.keys().dead.clone();
        if warn_if_absent(&self.config.common, &mut self.ledger, &stream)? {
            return Ok(0);
        }
        if !json && output::print(format_args!("{}\n", Letter::HEADER))? == StdoutReader::Gone {
            return Ok(0);
        }
        let mut listed = 0;
        let whole = self.each_page(None, |_, letters| {
            let room = limit.map_or(u64::MAX, |limit| limit - listed);
            let letters = &letters[..letters.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            listed += letters.len() as u64;
            let lines: String = letters.iter().map(|letter| format!("{}\n", Letter(letter).line(json))).collect();
            Ok(output::print(lines)? == StdoutReader::Present && limit != Some(listed))
        })?;
        if !json {
            let count = patiently(&mut self.ledger, self.config.patience, Ledger::count_dead)?;
            let more = if whole || listed == count { "" } else { "; --limit 0 lists all" };
            output::print(format_args!("{listed} listed, {count} dead letters in {stream}{more}\n"))?;
        }
        Ok(0)
    }

    fn show(&mut self) -> Result<u8> {
        let json = self.config.json;
        self.each_page(None, |_, letters| {
            let text = letters.iter().map(Letter).map(|letter| if json { letter.whole_json() } else { letter.whole() });
            Ok(output::print(text.map(|text| text + "\n").collect::<String>())? == StdoutReader::Present)
        })?;
        Ok(self.exit_code(&Tally::default()))
    }

    /// Changes the selected letters that exist now, if the operator agrees.
    fn change(
        &mut self,
        consent: Consent,
        verb: &'static str,
        step: impl Fn(&mut Ledger, &[&str], &mut Tally) -> Result<()>,
    ) -> Result<u8> {
        let patience = self.config.patience;
        let mut tally = Tally::new(verb, consent == Consent::Dry);
        let newest = patiently(&mut self.ledger, patience, |ledger| ledger.newest_entry(EntryStream::Dead))?;
        if newest.is_none() {
            let stream = self.ledger.keys().dead.clone();
            warn_if_absent(&self.config.common, &mut self.ledger, &stream)?;
        }
        if let (Some(newest), true) = (&newest, consent != Consent::Given) {
            self.each_page(Some(newest), |_, letters| {
                tally.matching += letters.len() as u64;
                Ok(true)
            })?;
        }
        if consent == Consent::Ask && tally.matching > 0 {
            ask(verb, tally.matching, &self.ledger.keys().dead)?;
        }
        if let (Some(newest), true) = (&newest, consent != Consent::Dry) {
            tally.matching = 0;
            self.each_page(Some(newest), |clerk, letters| {
                tally.matching += letters.len() as u64;
                for part in letters.chunks(MOST_RETURNED).flat_map(|letters| parts(letters, size)) {
                    let entries: Vec<&str> = part.iter().map(|letter| letter.id.as_str()).collect();
                    patiently(&mut clerk.ledger, patience, |ledger| step(ledger, &entries, &mut tally))?;
                }
                Ok(true)
            })?;
        }
        output::print(tally.shown(self.config.json))?;
        Ok(self.exit_code(&tally))
    }

    /// Passes the selected letters to `take`, oldest first, page by page, until that returns `false` or behind the
    /// entry `up_to`. Returns whether the end was reached.
    fn each_page(
        &mut self,
        up_to: Option<&str>,
        mut take: impl FnMut(&mut Self, &[Entry]) -> Result<bool>,
    ) -> Result<bool> {
        let patience = self.config.patience;
        let mut position = match self.config.selection.since {
            Some(since) => {
                let now_us = patiently(&mut self.ledger, patience, Ledger::clock_us)?;
                ReadPosition::since((now_us / 1_000).saturating_sub(since.as_millis() as u64))
            }
            None => ReadPosition::default(),
        };
        let mut read = |ledger: &mut Ledger| ledger.read_stream(EntryStream::Dead, &mut position);
        while let Some(mut page) = patiently(&mut self.ledger, patience, &mut read)? {
            let behind = page.iter().position(|letter| up_to.is_some_and(|up_to| letter.is_after(up_to)));
            page.truncate(behind.unwrap_or(page.len()));
            page.retain(|letter| Letter(letter).is_in(&self.config.selection));
            if !self.missing.is_empty() {
                self.missing.retain(|id| !page.iter().any(|letter| Letter(letter).id() == *id));
            }
            if !page.is_empty() && !take(self, &page)? {
                return Ok(false);
            }
            if behind.is_some() {
                break;
            }
        }
        Ok(true)
    }

    /// Names the ids that were asked for and have no letter. Returns the exit code.
    fn exit_code(&self, tally: &Tally) -> u8 {
        let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        if !missing.is_empty() {
            log::warn!("event=no-such-letter ids={} stream={}", missing.join(","), self.ledger.keys().dead);
        }
        if missing.is_empty() && tally.left() == 0 { 0 } else { 3 }
    }
}

/// The bytes and the words that a letter takes in a step.
fn size(letter: &Entry) -> (usize, usize) {
    (Letter(letter).payload().len(), 1)
}

/// Asks the operator on the terminal.
fn ask(verb: &str, letters: u64, stream: &str) -> Result<()> {
    let mut input = io::stdin().lock();
    if !io::stdin().is_terminal() {
        let problem = format!("no, and standard input is no terminal to ask whether to {verb} {letters} letters");
        return Err(ConfigError::new("yes", problem, "--yes to agree, or --dry-run to change nothing").into());
    }
    output::print(format_args!("{verb} {letters} dead letters of {stream}? [y/N] "))?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(Error::io("reading the answer"))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::Failed("nothing was changed".to_owned())),
    }
}
