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
use crate::programs::lanes::{LaneConfig, by_lane, heading, lanes_of, lanes_to_change};
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
    let lanes = match config.action {
        Action::List(_) | Action::Show => lanes_of(&config.common, config.patience)?,
        Action::Replay(_) | Action::Drop(_) => lanes_to_change(&config.common, config.patience)?,
    };
    let mut named = by_lane(&lanes, &config.selection.names)?;
    let are_named = !named.is_empty();
    let clerk = |lane: &'_ LaneConfig| {
        let ids = named.remove(&lane.number).unwrap_or_default();
        (!are_named || !ids.is_empty()).then(|| Clerk::new(config, lane.clone(), ids))
    };
    let mut clerks: Vec<Clerk<'_>> = lanes.iter().filter_map(clerk).collect();
    match config.action {
        Action::List(limit) => list(&mut clerks, limit),
        Action::Show => clerks.iter_mut().try_fold(0, |code, clerk| Ok(clerk.show()?.max(code))),
        Action::Replay(consent) => change(&mut clerks, consent, "replay", |ledger, entries, tally| {
            tally.note_replayed(&ledger.replay(entries)?);
            Ok(())
        }),
        Action::Drop(consent) => change(&mut clerks, consent, "drop", |ledger, entries, tally| {
            tally.note_dropped(entries.len() as u64, ledger.drop_letters(entries)?);
            Ok(())
        }),
    }
}

fn list(clerks: &mut [Clerk<'_>], limit: Option<u64>) -> Result<u8> {
    let (mut listed, mut existing) = (0, 0);
    for clerk in &mut *clerks {
        let Some((some, all)) = clerk.list(limit)? else { return Ok(0) };
        listed += some;
        existing += all;
    }
    if let [first, _, ..] = &*clerks
        && !first.config.json
    {
        let lanes = clerks.len();
        output::print(format_args!("all {lanes} lanes: {listed} listed, {existing} dead letters\n"))?;
    }
    Ok(0)
}

/// Changes the selected letters that exist now, of all lanes, if the operator agrees. Nothing is changed before.
fn change(
    clerks: &mut [Clerk<'_>],
    consent: Consent,
    verb: &'static str,
    step: impl Fn(&mut Ledger, &[&str], &mut Tally) -> Result<()>,
) -> Result<u8> {
    let mut newest = Vec::with_capacity(clerks.len());
    let mut sum = Tally::new(verb, consent == Consent::Dry);
    for clerk in &mut *clerks {
        clerk.tally = Tally::new(verb, consent == Consent::Dry);
        newest.push(clerk.newest()?);
        if let (Some(Some(newest)), true) = (newest.last(), consent != Consent::Given) {
            clerk.count(newest)?;
        }
    }
    let matching = clerks.iter().map(|clerk| clerk.tally.matching).sum();
    if consent == Consent::Ask && matching > 0 {
        let place = match &*clerks {
            [only] => only.ledger.keys().dead.clone(),
            several => format!("{} lanes", several.len()),
        };
        ask(verb, matching, &place)?;
    }
    let mut code = 0;
    for (clerk, newest) in clerks.iter_mut().zip(newest) {
        if let Some(newest) = newest.filter(|_| consent != Consent::Dry) {
            clerk.change(&newest, &step)?;
        }
        let Clerk { config, lane, tally, .. } = &*clerk;
        let heading = if config.json { String::new() } else { heading(lane) };
        output::print(heading + &tally.shown(lane.number, config.json))?;
        sum.add(tally);
        code = code.max(clerk.exit_code());
    }
    if let [first, _, ..] = &*clerks
        && !first.config.json
    {
        output::print(format_args!("all {} lanes:\n{}", clerks.len(), sum.shown(0, false)))?;
    }
    Ok(code)
}

/// Works on the letters of one lane.
struct Clerk<'a> {
    config: &'a DeadConfig,
    lane: LaneConfig,
    ledger: Ledger,
    /// The ids that were asked for.
    ids: BTreeSet<String>,
    /// Those of them that were not found yet.
    missing: BTreeSet<String>,
    tally: Tally,
}

impl<'a> Clerk<'a> {
    fn new(config: &'a DeadConfig, lane: LaneConfig, ids: BTreeSet<String>) -> Clerk<'a> {
        let ledger = Ledger::new(lane.common.redis.clone(), lane.common.keys.clone().into(), REPLY_TIME);
        Clerk { config, lane, ledger, missing: ids.clone(), ids, tally: Tally::default() }
    }

    /// Returns how many were listed, and how many there are. `None` if the reader has gone.
    fn list(&mut self, limit: Option<u64>) -> Result<Option<(u64, u64)>> {
        let (json, lane) = (self.config.json, self.lane.clone());
        if !json && output::print(heading(&lane))? == StdoutReader::Gone {
            return Ok(None);
        }
        let stream = self.ledger.keys().dead.clone();
        if warn_if_absent(&lane.common, &mut self.ledger, &stream)? {
            return Ok(Some((0, 0)));
        }
        if !json && output::print(Letter::header(&lane) + "\n")? == StdoutReader::Gone {
            return Ok(None);
        }
        let mut listed = 0;
        let whole = self.each_page(None, |_, letters| {
            let room = limit.map_or(u64::MAX, |limit| limit - listed);
            let letters = &letters[..letters.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            listed += letters.len() as u64;
            let lines: String = letters.iter().map(|letter| Letter(letter).line(&lane, json) + "\n").collect();
            Ok(output::print(lines)? == StdoutReader::Present && limit != Some(listed))
        })?;
        if json {
            return Ok((output::reader() == StdoutReader::Present).then_some((listed, listed)));
        }
        let count = patiently(&mut self.ledger, self.config.patience, Ledger::count_dead)?;
        let more = if whole || listed == count { "" } else { "; --limit 0 lists all" };
        let end = output::print(format_args!("{listed} listed, {count} dead letters in {stream}{more}\n"))?;
        Ok((end == StdoutReader::Present).then_some((listed, count)))
    }

    fn show(&mut self) -> Result<u8> {
        let (json, lane) = (self.config.json, self.lane.clone());
        self.each_page(None, |_, letters| {
            let text =
                |letter| if json { Letter::whole_json(letter, &lane) } else { Letter::whole(letter, &lane) } + "\n";
            Ok(output::print(letters.iter().map(Letter).map(text).collect::<String>())? == StdoutReader::Present)
        })?;
        Ok(self.exit_code())
    }

    /// The newest entry, if there is any letter.
    fn newest(&mut self) -> Result<Option<String>> {
        let patience = self.config.patience;
        let newest = patiently(&mut self.ledger, patience, |ledger| ledger.newest_entry(EntryStream::Dead))?;
        if newest.is_none() {
            let stream = self.ledger.keys().dead.clone();
            warn_if_absent(&self.lane.common, &mut self.ledger, &stream)?;
        }
        Ok(newest)
    }

    /// Counts the selected letters.
    fn count(&mut self, newest: &str) -> Result<()> {
        self.tally.matching = 0;
        self.each_page(Some(newest), |clerk, letters| {
            clerk.tally.matching += letters.len() as u64;
            Ok(true)
        })?;
        Ok(())
    }

    /// Changes the selected letters.
    fn change(&mut self, newest: &str, step: &impl Fn(&mut Ledger, &[&str], &mut Tally) -> Result<()>) -> Result<()> {
        self.tally.matching = 0;
        self.each_page(Some(newest), |clerk, letters| {
            clerk.tally.matching += letters.len() as u64;
            for part in letters.chunks(MOST_RETURNED).flat_map(|letters| parts(letters, size)) {
                let entries: Vec<&str> = part.iter().map(|letter| letter.id.as_str()).collect();
                let Clerk { config, ledger, tally, .. } = &mut *clerk;
                patiently(ledger, config.patience, |ledger| step(ledger, &entries, tally))?;
            }
            Ok(true)
        })?;
        Ok(())
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
            page.retain(|letter| Letter(letter).is_in(&self.config.selection, &self.ids));
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
    fn exit_code(&self) -> u8 {
        let missing: Vec<String> = self.missing.iter().map(|id| self.lane.name_of(id)).collect();
        if !missing.is_empty() {
            log::warn!("event=no-such-letter ids={} stream={}", missing.join(","), self.ledger.keys().dead);
        }
        if missing.is_empty() && self.tally.left() == 0 { 0 } else { 3 }
    }
}

/// The bytes and the words that a letter takes in a step.
fn size(letter: &Entry) -> (usize, usize) {
    (Letter(letter).payload().len(), 1)
}

/// Asks the operator on the terminal.
fn ask(verb: &str, letters: u64, place: &str) -> Result<()> {
    let mut input = io::stdin().lock();
    if !io::stdin().is_terminal() {
        let letters = if letters == 1 { "1 letter".to_owned() } else { format!("{letters} letters") };
        let problem = format!("no, and standard input is no terminal to ask whether to {verb} {letters}");
        return Err(ConfigError::new("yes", problem, "--yes to agree, or --dry-run to change nothing").into());
    }
    output::print(format_args!("{verb} {letters} dead letters of {place}? [y/N] "))?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(Error::io("reading the answer"))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::Failed("nothing was changed".to_owned())),
    }
}
