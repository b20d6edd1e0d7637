//! The subcommand: tries the consumer, plays the cases, and prints each verdict as soon as it is known.

use std::borrow::Cow;
use std::time::Duration;

use super::case::{Case, Cases, Need, NonceRule, ProofRule};
use super::group::Group;
use super::handshake::Offer;
use super::heard::Heard;
use super::parse::cases;
use super::report::{Failure, Judged, Report, Stop, Verdict};
use super::settings::ConformConfig;
use super::stage::Stage;
use super::target::{Facts, Target};
use crate::base::error::{Error, Result};
use crate::base::setting::ConfigError;
use crate::base::text::Escaped;
use crate::ledger::lane_name;
use crate::process::log;
use crate::process::output::{self, StdoutReader};
use crate::programs::common::link_secret;
use crate::wire::{ErrorCode, ReadyFlags, SUBPROTOCOL_1, SUBPROTOCOL_2};

/// How long to wait, between two cases, for answers that belong to the first of them.
const SETTLE_FOR: Duration = Duration::from_secs(5);
/// The name of the connection that does that, and of the one that tries the consumer.
const TRIAL: &str = "trial";

/// The subcommand: runs the cases, prints the report and returns the exit code.
pub fn run(config: &ConformConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "conform")?;
    let cases = chosen(config)?;
    if config.list {
        let lines: String = cases.iter().map(listed).collect();
        return output::print(lines).map(|_| 0);
    }
    let mut reader = StdoutReader::Present;
    let report = conform(config, |case| {
        if !config.json && reader == StdoutReader::Present {
            reader = output::print(case)?;
        }
        Ok(())
    })?;
    match config.json {
        true => output::print(format_args!("{}\n", report.to_json()))?,
        false => output::print(format_args!("{}\n", report.summary()))?,
    };
    Ok(report.exit_code())
}

/// Runs the cases against the consumer. Each is passed to `judged` when it is done.
pub fn conform(config: &ConformConfig, mut judged: impl FnMut(&Judged) -> Result<()>) -> Result<Report> {
    let cases = chosen(config)?;
    let address = config.address.as_deref().expect("an address is required unless the cases are listed");
    let mut target = Target::new(address, config.tls.clone(), &config.keys.group, config.timeout)?;
    (target.has_handler, target.pid) = (config.conformance_handler, config.pid);
    target.secret = link_secret(config.link_secret_file.as_deref())?;
    let mut group = Group::new(config.redis.clone(), config.keys.clone());
    let outcome = run_cases(&cases, &mut target, &mut group, &mut judged);
    // What was written is removed, however the run ended.
    let cleared = group.end();
    let report = outcome?;
    cleared.map(|()| report)
}

/// The cases that are asked for.
fn chosen(config: &ConformConfig) -> Result<Vec<Case>> {
    let Cases { cases, .. } = cases().expect("a test reads this file");
    if let Some(unknown) = config.only.iter().find(|name| cases.iter().all(|case| case.name != **name)) {
        return Err(ConfigError::new("only", format_args!("{unknown:?}"), "the name of a case, see --list").into());
    }
    let only = &config.only;
    Ok(cases.into_iter().filter(|case| only.is_empty() || only.contains(&case.name)).collect())
}

fn listed(case: &Case) -> String {
    let needs: String = case.needs.iter().map(|need| format!("; needs {need}")).collect();
    format!("{:<33} {:<4} {}{needs}\n", case.name, case.section, case.rule)
}

fn run_cases(
    cases: &[Case],
    target: &mut Target,
    group: &mut Group,
    judged: &mut impl FnMut(&Judged) -> Result<()>,
) -> Result<Report> {
    try_consumer(target, group)?;
    let mut report = Report { address: target.address.clone(), consumer: described(target), cases: Vec::new() };
    for case in cases {
        let verdict = match target.lacks(&case.needs) {
            Some(need) => Verdict::Skipped(need.to_string()),
            None => play(case, target, group)?,
        };
        let case = Judged::new(case, verdict);
        judged(&case)?;
        report.cases.push(case);
    }
    Ok(report)
}

fn described(target: &Target) -> String {
    let Facts { consumer, prefetch, records, channels, bundles, protocol, lanes } = &target.facts;
    let flags = u8::from(*records) + 2 * u8::from(*channels) + 4 * u8::from(*bundles);
    let protocol = protocol.as_deref().unwrap_or("no subprotocol");
    let lanes = match lanes {
        Some(true) => ", serves all lanes",
        Some(false) => ", serves lane 0 only",
        None => "",
    };
    format!("{} (prefetch={prefetch} flags={flags} {}{lanes})", Escaped(consumer), Escaped(protocol))
}

/// Plays one case, and waits until the consumer has finished what it left over.
fn play(case: &Case, target: &mut Target, group: &mut Group) -> Result<Verdict> {
    let mut stage = Stage::new(target, group, case.confirm);
    let outcome = case.steps.iter().try_for_each(|step| stage.execute(case, step));
    let verdict = match outcome {
        Ok(()) => Verdict::Ok,
        Err(Stop::Ended(error)) => return Err(error),
        Err(Stop::Failed(mut failure)) => {
            failure.frames = std::mem::take(&mut stage.transcript);
            Verdict::Failed(failure)
        }
    };
    let left = !stage.is_settled();
    drop(stage);
    if left && !case.needs.contains(&Need::Pid) {
        settle(target, group)?;
    }
    Ok(verdict)
}

/// Leads, and waits until everything that the consumer lists is answered. A consumer that does not get so far fails
/// the cases by itself.
fn settle(target: &mut Target, group: &mut Group) -> Result<()> {
    let mut stage = Stage::new(target, group, true);
    match greet(&mut stage, true) {
        Ok(()) => {
            // What goes wrong here goes wrong in a case, too.
            let _ = stage.wait(SETTLE_FOR, |stage| stage.is_settled().then_some(()));
            Ok(())
        }
        Err(Stop::Failed(_)) => Ok(()),
        Err(Stop::Ended(error)) => Err(error),
    }
}

/// What the consumer answers when it is tried.
enum Tried {
    /// READY, and perhaps HELD.
    Ready(Facts),
    /// An ERROR.
    Refused(u16, String),
    /// Neither.
    NotReady(Failure),
}

/// Tries the consumer, to learn what it can do. One that sends no READY is not tested.
fn try_consumer(target: &mut Target, group: &mut Group) -> Result<()> {
    let mut tried = try_once(target, group)?;
    let records = match &tried {
        Tried::Ready(facts) => facts.records,
        // So answers a consumer that has not found the epoch in its Redis.
        Tried::Refused(code, _) => [ErrorCode::Stale, ErrorCode::Unavailable].map(ErrorCode::code).contains(code),
        Tried::NotReady(_) => false,
    };
    if records {
        group.begin()?;
        tried = try_once(target, group)?;
    }
    let problem = match tried {
        Tried::Ready(facts) => {
            let lanes = serves_lanes(target, group)?;
            target.facts = Facts { lanes, ..facts };
            return settle(target, group);
        }
        Tried::Refused(code, text) if code == ErrorCode::NotAuthenticated.code() => format!(
            "the consumer has a link secret: ERROR code={code} text={text:?} (give the same --link-secret-file)"
        ),
        Tried::Refused(code, text) => format!(
            "the consumer refuses every leader: ERROR code={code} text={text:?} (do --group and --redis-url name what \
             the consumer uses, and did no dispatcher with a later epoch lead it?)"
        ),
        Tried::NotReady(Failure { expected, got, .. }) => {
            format!("not a consumer that can be tested: expected {expected}, got {got}")
        }
    };
    Err(Error::Failed(format!("{}: {problem}", target.address)))
}

fn try_once(target: &mut Target, group: &mut Group) -> Result<Tried> {
    let address = target.address.clone();
    let mut stage = Stage::new(target, group, true);
    stage.tolerates_unknown_ids();
    connect(&mut stage).map_err(|problem| Error::Failed(format!("{address}: {problem}")))?;
    let outcome = greet(&mut stage, false);
    let facts = stage.facts(TRIAL);
    Ok(match (outcome, facts, stage.first(TRIAL, error_in)) {
        (Err(Stop::Ended(error)), ..) => return Err(error),
        (_, Some(facts), _) => Tried::Ready(facts),
        (_, None, Some((code, text))) => Tried::Refused(code, text),
        (Err(Stop::Failed(failure)), None, None) => Tried::NotReady(failure),
        (Ok(()), None, None) => unreachable!("a greeting has a READY"),
    })
}

/// Makes the connection of the trial.
fn connect(stage: &mut Stage<'_>) -> std::result::Result<(), String> {
    let nonce = stage.nonce(&NonceRule::Usual);
    let offer = Offer { origin: None, protocols: &[SUBPROTOCOL_1, SUBPROTOCOL_2], nonce };
    stage.connect(TRIAL, &offer).map_err(|error| error.to_string())?;
    stage.check_answer(TRIAL).map_err(|Failure { expected, got, .. }| {
        format!("expected {expected}, got {got} (do --link-secret-file and --group name what the consumer uses?)")
    })
}

/// Whether the consumer serves other lanes of its group. One that does not answers ERROR 7 to a LEAD of another lane;
/// one that records in Redis answers another ERROR, as that lane has no epoch there.
fn serves_lanes(target: &mut Target, group: &mut Group) -> Result<Option<bool>> {
    let Some(lane) = lane_name(&target.group, 1).map(Cow::into_owned) else { return Ok(None) };
    let limit = target.timeout;
    let mut stage = Stage::new(target, group, true);
    if connect(&mut stage).is_err() {
        return Ok(None);
    }
    let epoch = stage.epoch;
    let answer = stage.lead(TRIAL, epoch, Some(&lane), "{}", &ProofRule::Right).and_then(|()| {
        let answered = stage.wait(limit, |stage| match stage.first(TRIAL, error_in) {
            Some((code, _)) => Some(code != ErrorCode::Group.code()),
            None => stage.facts(TRIAL).map(|_| true),
        });
        answered.map_err(Stop::from)
    });
    match answer {
        Ok(serves) => Ok(serves),
        Err(Stop::Failed(_)) => Ok(None),
        Err(Stop::Ended(error)) => Err(error),
    }
}

fn error_in(heard: &Heard) -> Option<(u16, String)> {
    match heard {
        Heard::Error { code, text } => Some((*code, text.clone())),
        _ => None,
    }
}

/// Leads a connection, after making it if `first_connects`.
fn greet(stage: &mut Stage<'_>, first_connects: bool) -> std::result::Result<(), Stop> {
    if first_connects {
        connect(stage).map_err(|problem| Failure::new("a connection", problem))?;
    }
    let epoch = stage.epoch;
    stage.group.elect(Some(epoch))?;
    stage.lead(TRIAL, epoch, None, "{}", &ProofRule::Right)?;
    stage.expect_greeting(TRIAL, &[], &[])
}

impl Stage<'_> {
    /// What READY has said, if it has arrived.
    fn facts(&self, name: &str) -> Option<Facts> {
        let protocol = self.links.get(name).and_then(|link| link.peer.as_ref()?.protocol.clone());
        self.entries.iter().find_map(|entry| match &entry.heard {
            Heard::Ready { prefetch, flags, consumer } => {
                let (consumer, flags) = (consumer.clone(), ReadyFlags(*flags));
                let (records, channels, bundles) = (flags.commits(), flags.takes_channels(), flags.takes_bundles());
                let (prefetch, protocol) = (*prefetch, protocol.clone());
                Some(Facts { consumer, prefetch, records, channels, bundles, protocol, lanes: None })
            }
            _ => None,
        })
    }
}
