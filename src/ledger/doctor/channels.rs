//! Tries to subscribe to each channel that a program needs, and to end subscriptions, so that what is missing has a
//! name.

use redis::{PushKind, Value};

use super::finding::{Effect, Finding, Remedy, Tried, no_channel, unknown};
use super::needs::{Program, literal};
use super::patient::Patient;
use super::reply::{Said, said};
use super::trial::Trial;
use crate::base::error::{Error, Result};
use crate::base::failure::Failure;
use crate::base::refusal::Refusal;
use crate::ledger::command::{Command, command};
use crate::ledger::server::CONNECT_TIMEOUT;
use crate::ledger::session::{BufferSize, Session};

const BUFFER: BufferSize = BufferSize { least_bytes: 64 << 10, most_bytes: 32 << 20 };
const CLOSED: &str = "a subscription that moves to another server is closed instead of being left in order: what the \
                      old server had sent last may be a gap";

/// A command about one channel or pattern.
struct Wanted {
    command: &'static str,
    name: Vec<u8>,
    /// The right to the name, without `&`.
    right: String,
    /// What follows if it is refused.
    effect: Effect,
}

/// Subscribes to each channel by itself, because Redis does not say which one it refuses. Then ends subscriptions that
/// do not exist, in each way in which the program ends them.
pub(super) fn try_channels(patient: &Patient<'_>, program: Program, trial: &Trial, tried: &mut Tried) -> Result<()> {
    if !program.listens() && program != Program::Publisher {
        return Ok(());
    }
    let mut wanted = subscriptions(patient, program, trial);
    if program.listens() {
        wanted.extend(farewells(patient, trial));
    }
    let replies = match send(patient, &wanted)? {
        Subscribed::Answered(replies) => replies,
        Subscribed::NoResp3(error) if program.listens() => {
            let remedy =
                Remedy::Do("connect to Redis 6.2 or newer, without a proxy that does not know HELLO".to_owned());
            tried.findings.push(Finding::stops(format!("the subscription is refused: {error}"), remedy));
            return Ok(());
        }
        Subscribed::NoResp3(_) => return Ok(()),
    };
    let mut untried: Vec<String> = Vec::new();
    for (wanted, reply) in wanted.into_iter().zip(replies) {
        let finding = match said(reply, None)? {
            Said::Allowed => continue,
            // The right is looked at first: another node has this channel.
            Said::Refused(Refusal::Cluster, _) if wanted.is_sharded() && patient.setup().in_cluster => continue,
            Said::NoChannel | Said::NoKey => no_channel(wanted.effect, &patient.user(), &wanted.right),
            // Redis does not distinguish the two by channel, but by command, and publishers don't subscribe.
            Said::NoCommand | Said::Unknown | Said::Refused(..) if program == Program::Publisher => {
                untried.push(wanted.right);
                continue;
            }
            Said::NoCommand => {
                let grant = Remedy::Grant(format!("+{}", wanted.command));
                let problem = format!("the user {} may not call {}", patient.user(), wanted.command.to_uppercase());
                Finding::new(wanted.effect, problem, grant)
            }
            Said::Unknown => unknown(wanted.effect, &wanted.command.to_uppercase()),
            Said::Refused(_, error) => {
                Finding::new(wanted.effect, format!("the subscription is refused: {error}"), None)
            }
        };
        if !tried.findings.contains(&finding) {
            tried.findings.push(finding);
        }
    }
    tried.notes.extend(not_tried(patient, &untried));
    Ok(())
}

impl Wanted {
    fn is_sharded(&self) -> bool {
        ["ssubscribe", "sunsubscribe"].contains(&self.command)
    }
}

/// The subscriptions of a dispatcher, or the channels of a publisher.
fn subscriptions(patient: &Patient<'_>, program: Program, trial: &Trial) -> Vec<Wanted> {
    let Patient { keys, interests, .. } = patient;
    let shown = |name: &[u8]| name.escape_ascii().to_string();
    let wanted = |command, name: &[u8], right| Wanted { command, name: name.to_vec(), right, effect: Effect::Stops };
    let command = if interests.is_sharded() { "ssubscribe" } else { "subscribe" };
    let mut all: Vec<Wanted> =
        interests.channels().map(|channel| wanted(command, channel, literal(&shown(channel)))).collect();
    if !program.listens() {
        return all;
    }
    all.extend(interests.patterns().map(|pattern| wanted("psubscribe", pattern, shown(pattern))));
    let alive = format!("{}{}", trial.keys.alive_prefix, trial.dispatcher);
    if interests.is_sharded() {
        all.push(wanted(command, keys.control.as_bytes(), literal(&keys.control)));
    }
    all.push(wanted("subscribe", keys.control.as_bytes(), literal(&keys.control)));
    all.push(wanted("subscribe", alive.as_bytes(), format!("{}*", literal(&keys.alive_prefix))));
    if let Some(lane) = keys.lane(1).filter(|_| patient.setup().has_lanes) {
        let of_all = |name: &str| literal(name).replacen("/1}", "/*}", 1);
        let alive = format!("{}{}", lane.alive_prefix, trial.dispatcher);
        all.push(wanted("subscribe", lane.control.as_bytes(), of_all(&lane.control)));
        all.push(wanted("subscribe", alive.as_bytes(), format!("{}*", of_all(&lane.alive_prefix))));
    }
    all
}

/// How a dispatcher ends its subscription when the server is elsewhere. Nothing is subscribed to under this name, so it
/// has no effect.
fn farewells(patient: &Patient<'_>, trial: &Trial) -> Vec<Wanted> {
    let setup = patient.setup();
    let has_patterns = patient.interests.patterns().next().is_some();
    let ways = [("unsubscribe", true), ("punsubscribe", has_patterns), ("sunsubscribe", setup.is_sharded)];
    let can_move = setup.in_cluster || setup.by_sentinels;
    let ways = ways.into_iter().filter(|(_, is_used)| can_move && *is_used);
    let name = &trial.channel;
    let wanted = |command| Wanted {
        command,
        name: name.clone().into_bytes(),
        right: literal(name),
        effect: Effect::Partly(CLOSED),
    };
    ways.map(|(command, _)| wanted(command)).collect()
}

/// The note on channels on which it was not tried to publish; `None` without such.
fn not_tried(patient: &Patient<'_>, channels: &[String]) -> Option<String> {
    let first = channels.first()?;
    let each = if channels.len() > 1 { ", and so for each" } else { "" };
    Some(format!(
        "not tried: whether {user} may publish on {all}, since a trial would publish. An administrator can ask: ACL \
         DRYRUN {user} {publish} {first} x{each} (before Redis 7: ACL GETUSER {user})",
        user = patient.user(),
        all = channels.join(", "),
        publish = patient.interests.publish_command()
    ))
}

/// What became of these commands.
enum Subscribed {
    /// The reply to each.
    Answered(Vec<Result<Value>>),
    /// The server does not speak RESP3.
    NoResp3(Error),
}

fn send(patient: &Patient<'_>, wanted: &[Wanted]) -> Result<Subscribed> {
    const SUBSCRIBING: &str = "trying to subscribe";
    const CONFIRMATIONS: [PushKind; 6] = [
        PushKind::Subscribe,
        PushKind::PSubscribe,
        PushKind::SSubscribe,
        PushKind::Unsubscribe,
        PushKind::PUnsubscribe,
        PushKind::SUnsubscribe,
    ];
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
    for wanted in wanted {
        out.extend(Command::new(2).arg(wanted.command).arg(&wanted.name).into_bytes());
    }
    session.send(&out).map_err(|error| session.error(server, SUBSCRIBING, error))?;
    let mut replies = Vec::with_capacity(wanted.len());
    while replies.len() < wanted.len() {
        match session.incoming.value().map_err(|error| session.error(server, SUBSCRIBING, error))? {
            // A message that somebody has published.
            Value::Push { kind, .. } if !CONFIRMATIONS.contains(&kind) => {}
            value => {
                let refused = |error| server.error(SUBSCRIBING, Failure::new(error));
                replies.push(value.extract_error().map_err(refused));
            }
        }
    }
    Ok(Subscribed::Answered(replies))
}
