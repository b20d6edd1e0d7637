//! Tries each command and key that a program needs, one at a time, so that what is missing has a name; its channels are
//! tried by [`channels`](super::channels).

use super::channels::try_channels;
use super::finding::{Effect, Finding, Remedy, Tried, no_channel, unknown};
use super::forms::{self, Form};
use super::needs::{KeyNeed, Program, Use, literal};
use super::patient::Patient;
use super::reply::{Said, said, told};
use super::trial::Trial;
use crate::base::error::Result;
use crate::base::refusal::Refusal;
use crate::ledger::command::Command;
use crate::ledger::connection::Connection;
use crate::net::Address;

const TRYING: &str = "trying a command";

/// What is tried, and what a refusal means.
enum Subject {
    Command(&'static str, Effect),
    Key(KeyNeed, Use),
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
    for need in keys(patient, program, trial) {
        for way in need.uses {
            let form = match way {
                Use::Reads => forms::reading(program.reads_with(), &need.key),
                Use::Writes => forms::writing(&need.key),
            };
            let need = KeyNeed { key: need.key.clone(), right: need.right.clone(), ..need };
            all.push((Subject::Key(need, *way), form));
        }
    }
    // RPUSH and SADD have no effect only on a key of another type, which must be there.
    let other = if patient.interests.is_sharded() && program == Program::Publisher { "publish" } else { "" };
    let commands = program
        .commands(patient.setup())
        .filter(|(command, _)| (!["rpush", "sadd"].contains(command) || can_write) && *command != other);
    let publishes = program.listens() || program == Program::Publisher;
    let sharded = (patient.interests.is_sharded() && publishes).then_some(("spublish", Effect::Stops));
    let commands = commands.chain(sharded);
    all.extend(commands.map(|(command, effect)| (Subject::Command(command, effect), forms::of(command, trial))));
    all
}

/// The keys that the program uses, those of sharded channels included.
fn keys(patient: &Patient<'_>, program: Program, trial: &Trial) -> Vec<KeyNeed> {
    let setup = patient.setup();
    let mut needs = program.keys(&patient.keys, &trial.unused, setup);
    if program == Program::Publisher && setup.in_cluster && setup.is_sharded {
        needs.extend(patient.interests.channels().filter_map(Program::key_of_channel));
    }
    needs
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
        (Subject::Key(need, _), Said::Refused(Refusal::Cluster, _)) if need.is_elsewhere => None,
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
    let keys = keys(patient, program, trial).into_iter().map(|need| need.right);
    for right in keys.chain(commands.iter().map(|command| format!("+{command}"))) {
        if !rights.contains(&right) {
            rights.push(right);
        }
    }
    let (user, names) = (patient.user(), names.join(", "));
    let problem = format!("the user {user} may use the group's keys, but not together with {names}");
    Finding::stops(problem, Remedy::Grant(format!("({})", rights.join(" "))))
}

/// A command as people write it.
fn shown(command: &str) -> String {
    command.to_uppercase().replace('|', " ")
}

/// The rights that `program` lacks on a server that may take the place of the present one, and whether it would not
/// work without them. Nothing is written there.
pub(super) fn try_elsewhere(
    patient: &Patient<'_>,
    program: Program,
    trial: &Trial,
    other: &Address,
) -> Option<(Finding, bool)> {
    const AFTER: Effect = Effect::Partly("after a failover to it a part is missing, or all");
    let tried = match try_all(&patient.at(other), program, trial, false) {
        Ok(tried) => tried,
        Err(error) => {
            let problem = format!("{other}, which may take this server's place: {}", told(&error));
            return Some((Finding::new(AFTER, problem, None), true));
        }
    };
    let (mut rights, mut stops): (Vec<String>, bool) = (Vec::new(), false);
    for finding in tried.findings {
        // What else a replica or another node refuses is not for lack of a right.
        let Some(Remedy::Grant(right)) = finding.remedy else { continue };
        stops |= finding.effect == Effect::Stops;
        if !rights.contains(&right) {
            rights.push(right);
        }
    }
    let user = patient.user();
    (!rights.is_empty()).then(|| {
        let problem = format!("the user {user} lacks rights on {other}, which may take this server's place");
        let remedy = Remedy::Do(format!("type there: ACL SETUSER {user} {}", rights.join(" ")));
        (Finding::new(AFTER, problem, remedy), stops)
    })
}
