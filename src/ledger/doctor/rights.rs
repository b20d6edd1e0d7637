//! Tries each command, key and channel that a program needs, one at a time, so that what is missing has a name.

use redis::{PushKind, Value};

use super::finding::{Effect, Finding, Remedy};
use super::forms::{self, Form};
use super::needs::{KeyNeed, Program, Use, literal};
use super::patient::Patient;
use super::reply::{Said, said, told};
use super::trial::Trial;
use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;
use crate::ledger::command::{Command, command};
use crate::ledger::connection::Connection;
use crate::ledger::server::CONNECT_TIMEOUT;
use crate::ledger::session::{BufferSize, Session};

const TRYING: &str = "trying a command";
const BUFFER: BufferSize = BufferSize { least_bytes: 64 << 10, most_bytes: 32 << 20 };

/// What is tried, and what a refusal means.
enum Subject {
    Command(&'static str, Effect),
    Key(KeyNeed, Use),
}

/// What was found for a program, and what could not be tried.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// Tries all that `program` needs. `can_write` is whether a key of the trial could be written.
pub(super) fn try_all(patient: &Patient<'_>, program: Program, trial: &Trial, can_write: bool) -> Result<Tried> {
    let mut tried = Tried::default();
    let mut elsewhere = Vec::new();
    // MULTI is the last command on its connection.
    let mut connection = Connection::new(patient.server.clone(), patient.reply_time());
    let (subjects, forms): (Vec<Subject>, Vec<Form>) = subjects(patient, program, trial, can_write).into_iter().unzip();
    let words = |form: &Form| Command::of(&form.words.iter().map(String::as_str).collect::<Vec<_>>());
    let replies = connection.pipeline_each(TRYING, forms.iter().map(words).collect())?;
    for ((subject, form), reply) in subjects.into_iter().zip(&forms).zip(replies) {
        let said = said(reply, form.refused_with)?;
        if let (Subject::Command(command, _), Said::NoKey) = (&subject, &said) {
            elsewhere.push(*command);
        }
        if let Some(finding) = judge(&subject, said, patient, program, can_write)
            && !tried.findings.contains(&finding)
        {
            tried.findings.push(finding);
        }
    }
    // If each key may be used, so may the trial's, but not with these commands.
    let all_keys = !tried.findings.iter().any(is_about_a_key);
    if program.writes() && all_keys && !elsewhere.is_empty() {
        tried.findings.push(not_together(patient, program, trial, &elsewhere));
    }
    try_channels(patient, program, trial, &mut tried)?;
    Ok(tried)
}

fn subjects(patient: &Patient<'_>, program: Program, trial: &Trial, can_write: bool) -> Vec<(Subject, Form)> {
    let mut all = Vec::new();
    for need in program.keys(&patient.keys, &trial.unused) {
        for way in need.uses {
            let form = match way {
                Use::Reads => forms::reading(program.reads_with(), &need.key),
                Use::Writes => forms::writing(&need.key),
            };
            let KeyNeed { key, right, uses, effect } = &need;
            let need = KeyNeed { key: key.clone(), right: right.clone(), uses, effect: *effect };
            all.push((Subject::Key(need, *way), form));
        }
    }
    // RPUSH has no effect only on a key of another type, which must be there.
    let other = if patient.interests.is_sharded() && program == Program::Publisher { "publish" } else { "" };
    let commands = program
        .commands(patient.server.is_cluster())
        .filter(|(command, _)| (*command != "rpush" || can_write) && *command != other);
    let publishes = program.listens() || program == Program::Publisher;
    let sharded = (patient.interests.is_sharded() && publishes).then_some(("spublish", Effect::Stops));
    let lanes = [("sadd", Effect::Stops), ("smembers", Effect::Stops)].into_iter();
    let has_lanes = patient.server.is_cluster()
        && program.listens()
        && (patient.interests.is_sharded() || patient.interests.of_key_events().is_some());
    let lanes = lanes.filter(|(command, _)| has_lanes && (*command != "sadd" || can_write));
    let commands = commands.chain(sharded).chain(lanes);
    all.extend(commands.map(|(command, effect)| (Subject::Command(command, effect), forms::of(command, trial))));
    all
}

fn judge(subject: &Subject, said: Said, patient: &Patient<'_>, program: Program, can_write: bool) -> Option<Finding> {
    let user = patient.user();
    match (subject, said) {
        (_, Said::Allowed) => None,
        (Subject::Command(command, effect), Said::NoCommand) => {
            let name = shown(command);
            let grant = Remedy::Grant(format!("+{command}"));
            Some(Finding::new(*effect, format!("the user {user} may not call {name}"), grant))
        }
        (Subject::Command(command, effect), Said::Unknown) => Some(unknown(*effect, &shown(command))),
        (Subject::Key(need, way), Said::NoKey) => {
            let verb = if *way == Use::Reads { "read" } else { "write" };
            let what = if need.right.ends_with('*') { &need.right[1..] } else { need.key.as_str() };
            let problem = format!("the user {user} may not {verb} {what}");
            Some(Finding::new(need.effect, problem, Remedy::Grant(need.right.clone())))
        }
        // A publisher needs no right to the channel of the trial.
        (Subject::Command("publish" | "spublish", effect), Said::NoChannel) if program.listens() => {
            Some(no_channel(*effect, &user, &format!("{}*", literal(&patient.keys.alive_prefix))))
        }
        // These concern every command that writes, or every key, and are reported once.
        (_, Said::Refused(Refusal::Memory | Refusal::Replica | Refusal::Disk | Refusal::Replicas, _)) => None,
        (_, Said::Refused(Refusal::Cluster, _)) if program.writes() && !can_write => None,
        (_, Said::Refused(Refusal::Cluster, error)) => Some(Finding::stops(told(&error), None)),
        (Subject::Command(command, effect), Said::Refused(_, error)) => {
            Some(Finding::new(*effect, format!("the server refuses {}: {error}", shown(command)), None))
        }
        // The command itself is missing, which its own trial reports; or a key of the trial is not the program's.
        (Subject::Key(..), _) | (Subject::Command(..), Said::NoKey | Said::NoChannel) => None,
    }
}

fn is_about_a_key(finding: &Finding) -> bool {
    matches!(&finding.remedy, Some(Remedy::Grant(right)) if right.starts_with('~'))
}

/// Commands that the user may call and keys that it may use, but not together: rights in several selectors.
fn not_together(patient: &Patient<'_>, program: Program, trial: &Trial, commands: &[&str]) -> Finding {
    let names: Vec<String> = commands.iter().map(|command| shown(command)).collect();
    let mut rights: Vec<String> = Vec::new();
    let keys = program.keys(&patient.keys, &trial.unused).into_iter().map(|need| need.right);
    for right in keys.chain(commands.iter().map(|command| format!("+{command}"))) {
        if !rights.contains(&right) {
            rights.push(right);
        }
    }
    let (user, names) = (patient.user(), names.join(", "));
    let problem = format!("the user {user} may use the group's keys, but not together with {names}");
    Finding::stops(problem, Remedy::Grant(format!("({})", rights.join(" "))))
}

fn unknown(effect: Effect, name: &str) -> Finding {
    let remedy = Remedy::Do(format!(
        "if it was renamed, remove `rename-command {name}` from redis.conf and restart the server; else use Redis 6.2 \
         or newer, or a service that has it"
    ));
    Finding::new(effect, format!("the server does not have {name}"), remedy)
}

fn no_channel(effect: Effect, user: &str, name: &str) -> Finding {
    let grant = Remedy::Grant(format!("&{name}"));
    Finding::new(effect, format!("the user {user} may not use the channel {name}"), grant)
}

/// A command as people write it.
fn shown(command: &str) -> String {
    command.to_uppercase().replace('|', " ")
}

/// Subscribes to each channel by itself, because Redis does not say which one it refuses.
fn try_channels(patient: &Patient<'_>, program: Program, trial: &Trial, tried: &mut Tried) -> Result<()> {
    let Patient { keys, interests, .. } = patient;
    let name = |name: &[u8]| name.escape_ascii().to_string();
    let mut wanted: Vec<(&str, Vec<u8>, String)> = Vec::new();
    let command = if interests.is_sharded() { "ssubscribe" } else { "subscribe" };
    for channel in interests.channels() {
        wanted.push((command, channel.to_vec(), literal(&name(channel))));
    }
    if program.listens() {
        for pattern in interests.patterns() {
            wanted.push(("psubscribe", pattern.to_vec(), name(pattern)));
        }
        let alive = format!("{}{}", trial.keys.alive_prefix, trial.dispatcher);
        if interests.is_sharded() {
            wanted.push((command, keys.control.clone().into_bytes(), literal(&keys.control)));
        }
        wanted.push(("subscribe", keys.control.clone().into_bytes(), literal(&keys.control)));
        wanted.push(("subscribe", alive.into_bytes(), format!("{}*", literal(&keys.alive_prefix))));
    } else if program != Program::Publisher {
        return Ok(());
    }
    let replies = match subscribe(patient, &wanted)? {
        Subscribed::Answered(replies) => replies,
        Subscribed::NoResp3(error) if program.listens() => {
            let remedy =
                Remedy::Do("connect to Redis 6.2 or newer, without a proxy that does not know HELLO".to_owned());
            tried.findings.push(Finding::stops(format!("the subscription is refused: {error}"), remedy));
            return Ok(());
        }
        Subscribed::NoResp3(_) => return Ok(()),
    };
    for ((command, _, right), reply) in wanted.into_iter().zip(replies) {
        let finding = match said(reply, None)? {
            Said::Allowed => continue,
            Said::NoChannel | Said::NoKey => no_channel(Effect::Stops, &patient.user(), &right),
            // Redis does not distinguish the two by channel, but by command, and publishers don't subscribe.
            Said::NoCommand | Said::Unknown | Said::Refused(..) if program == Program::Publisher => {
                tried.notes.push(format!(
                    "not tried: whether {user} may publish on {right}, since a trial would publish. An administrator \
                     can ask: ACL DRYRUN {user} PUBLISH {right} x (before Redis 7: ACL GETUSER {user})",
                    user = patient.user()
                ));
                continue;
            }
            Said::NoCommand => {
                let grant = Remedy::Grant(format!("+{command}"));
                let problem = format!("the user {} may not call {}", patient.user(), command.to_uppercase());
                Finding::stops(problem, grant)
            }
            Said::Unknown => unknown(Effect::Stops, &command.to_uppercase()),
            Said::Refused(_, error) => Finding::stops(format!("the subscription is refused: {error}"), None),
        };
        if !tried.findings.contains(&finding) {
            tried.findings.push(finding);
        }
    }
    Ok(())
}

/// What became of subscriptions.
enum Subscribed {
    /// The reply to each.
    Answered(Vec<Result<Value>>),
    /// The server does not speak RESP3.
    NoResp3(Error),
}

fn subscribe(patient: &Patient<'_>, wanted: &[(&str, Vec<u8>, String)]) -> Result<Subscribed> {
    const SUBSCRIBING: &str = "trying to subscribe";
    const CONFIRMATIONS: [PushKind; 3] = [PushKind::Subscribe, PushKind::PSubscribe, PushKind::SSubscribe];
    let server = &patient.server;
    let opened = Session::open(server, CONNECT_TIMEOUT, BUFFER, |out| {
        command(out, &["HELLO", "3"]);
        1
    });
    let mut session = match opened {
        Ok(session) => session,
        Err(error) if matches!(error.refusal(), Some(refusal) if refusal != Refusal::NotNow) => {
            return Ok(Subscribed::NoResp3(error));
        }
        Err(error) => return Err(error),
    };
    let mut out = Vec::new();
    for (command, name, _) in wanted {
        out.extend(Command::new(2).arg(command).arg(name).into_bytes());
    }
    session.send(&out).map_err(|error| session.error(server, SUBSCRIBING, error))?;
    let mut replies = Vec::with_capacity(wanted.len());
    while replies.len() < wanted.len() {
        match session.incoming.value().map_err(|error| session.error(server, SUBSCRIBING, error))? {
            // A message that somebody has published.
            Value::Push { kind, .. } if !CONFIRMATIONS.contains(&kind) => {}
            value => {
                let refused = |error| server.error(SUBSCRIBING, crate::base::failure::Failure::new(error));
                replies.push(value.extract_error().map_err(refused));
            }
        }
    }
    Ok(Subscribed::Answered(replies))
}
