//! Reads `cases.json`. Total: a mistake in the file is an error that names the case, and a test of this package reads
//! the file, so a user never sees one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::case::{
    Amount, BodySpec, Case, Cases, Channel, Deliver, Local, Need, NonceRule, Packing, Payload, ProofRule, Step,
    TextRule, Wanted,
};
use super::members::Members;

/// The cases of this release.
const FILE: &str = include_str!("cases.json");

/// Reads the cases of this release.
pub fn cases() -> Result<Cases, String> {
    parse(FILE)
}

/// Reads cases.
pub(super) fn parse(text: &str) -> Result<Cases, String> {
    let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut top = Members::of(value)?;
    let mut cases: Vec<Case> = Vec::new();
    for value in top.list("cases")? {
        let name = value.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
        let case = case(value).map_err(|problem| format!("case {name}: {problem}"))?;
        if cases.iter().any(|other| other.name == case.name) {
            return Err(format!("two cases are called {name}"));
        }
        cases.push(case);
    }
    let mut uncovered = BTreeMap::new();
    for (section, reason) in top.object("uncovered")? {
        let reason = reason.as_str().ok_or_else(|| format!("section {section}: a reason is text"))?;
        uncovered.insert(section, reason.to_owned());
    }
    top.done()?;
    Ok(Cases { cases, uncovered })
}

fn case(value: Value) -> Result<Case, String> {
    let mut members = Members::of(value)?;
    let (name, section, rule) = (members.text("name")?, members.text("section")?, members.text("rule")?);
    let confirm = members.flag("confirm", true)?;
    let needs = members.optional_list("needs")?.iter().map(need).collect::<Result<_, _>>()?;
    let mut bodies = BTreeMap::new();
    for (local, value) in members.object("bodies")? {
        let local: Local = local.parse().map_err(|_| format!("bodies: {local} is not a number"))?;
        bodies.insert(local, body(value).map_err(|problem| format!("body {local}: {problem}"))?);
    }
    let mut steps = Vec::new();
    for (number, value) in members.list("steps")?.into_iter().enumerate() {
        steps.extend(step(value).map_err(|problem| format!("step {}: {problem}", number + 1))?);
    }
    members.done()?;
    Ok(Case { name, section, rule, needs, confirm, bodies, steps })
}

fn need(value: &Value) -> Result<Need, String> {
    let text = value.as_str().ok_or("a need is text")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    match (text, text.split_once(':')) {
        ("handler", _) => Ok(Need::Handler),
        ("records", _) => Ok(Need::Records),
        ("sends", _) => Ok(Need::Sends),
        ("channels", _) => Ok(Need::Channels),
        ("protocol-2", _) => Ok(Need::Protocol2),
        ("pid", _) => Ok(Need::Pid),
        ("secret", _) => Ok(Need::Secret),
        ("two-secrets", _) => Ok(Need::TwoSecrets),
        ("no-secret", _) => Ok(Need::NoSecret),
        (_, Some(("prefetch", least))) => number(least).map(Need::Prefetch),
        (_, Some(("small-prefetch", most))) => number(most).map(Need::SmallPrefetch),
        _ => Err(format!("unknown need {text:?}")),
    }
}

fn body(value: Value) -> Result<BodySpec, String> {
    let mut members = Members::of(value)?;
    let body = BodySpec {
        conform: members.optional_text("conform")?,
        ms: members.optional_number("ms")?,
        delay_ms: members.optional_number("delay_ms")?,
        reason_chars: members.optional_number("reason_chars")?,
        bytes: members.optional_number("bytes")?,
    };
    members.done()?;
    Ok(body)
}

/// Reads a step: an object whose first member is its name, with the connection as value if it has one.
fn step(value: Value) -> Result<Vec<Step>, String> {
    let mut members = Members::of(value)?;
    let name = members.first().ok_or("it is empty")?;
    let steps = step_named(&name, &mut members).map_err(|problem| format!("{name}: {problem}"))?;
    members.done().map_err(|problem| format!("{name}: {problem}"))?;
    Ok(steps)
}

fn step_named(name: &str, members: &mut Members) -> Result<Vec<Step>, String> {
    Ok(vec![match name {
        "greet" => return greet(members),
        "connect" => connect(members, name)?,
        "lead" => lead(members, name)?,
        "greeted" => greeted(members, name)?,
        "proofs" => Step::Proofs { link: members.text(name)? },
        "replay" => Step::Replay { link: members.text(name)?, of: members.text("of")? },
        "ready_form" => Step::ReadyForm { link: members.text(name)? },
        "deliver" => Step::Deliver(Deliver {
            link: members.text(name)?,
            amount: amount(members)?,
            delivery: members.optional_number("delivery")?.unwrap_or(1),
            channel: channel(members)?,
            packing: packing(members)?,
            pend: members.flag("pend", true)?,
            may_fail: members.flag("may_fail", false)?,
        }),
        "send" | "send_text" | "send_raw" => sending(name, members)?,
        "ping" => Step::Ping { link: members.text(name)? },
        "answer" => Step::Answer { link: members.text(name)?, amount: amount(members)?, wanted: wanted(members)? },
        "answer_or_error" => {
            Step::AnswerOrError { link: members.text(name)?, amount: amount(members)?, code: members.number("code")? }
        }
        "no_answer" => Step::NoAnswer { ids: members.numbers(name)?, ms: members.number("ms")? },
        "progress" => Step::Progress {
            link: members.text(name)?,
            ids: members.numbers("ids")?,
            times: members.optional_number("times")?.unwrap_or(1),
        },
        "silence" => Step::Silence { link: members.text(name)?, ms: members.number("ms")? },
        "error" => Step::Error {
            link: members.text(name)?,
            codes: members.numbers("codes")?,
            bare: members.flag("bare", false)?,
            text: text_rule(members)?,
        },
        "end" => Step::End { link: members.text(name)? },
        "drain" => Step::Drain { link: members.text(name)? },
        "confirm" => Step::Confirm {
            link: members.text(name)?,
            ids: members.numbers("ids")?,
            is_ignored: members.flag("ignored", false)?,
        },
        "drop" => Step::Drop { link: members.text(name)? },
        "freeze" => Step::Freeze { link: members.text(name)? },
        "wait" => Step::Wait { ms: members.number(name)? },
        "elect" => Step::Elect { epoch: members.optional_number(name)? },
        "recorded" => Step::Recorded { id: members.number(name)? },
        "not_recorded" => Step::NotRecorded { id: members.number(name)? },
        "terminate" => Step::Terminate.with(members.flag(name, true)?)?,
        _ => return Err("unknown step".to_owned()),
    }])
}

impl Step {
    fn with(self, yes: bool) -> Result<Step, String> {
        if yes { Ok(self) } else { Err("takes true".to_owned()) }
    }
}

/// Connects, leads, and reads READY and HELD.
fn greet(members: &mut Members) -> Result<Vec<Step>, String> {
    let link = members.text("greet")?;
    members.put("lead", link.clone());
    members.put("connect", link.clone());
    let connect = connect(members, "connect")?;
    let lead = lead(members, "lead")?;
    members.put("greeted", link);
    let greeted = greeted(members, "greeted")?;
    Ok(vec![connect, lead, greeted])
}

fn connect(members: &mut Members, name: &str) -> Result<Step, String> {
    let offer = members.has("offer").then(|| members.optional_list("offer")).transpose()?;
    let word = |value: Value| value.as_str().map(str::to_owned).ok_or("a subprotocol is text".to_owned());
    let offer = offer.map(|words| words.into_iter().map(word).collect::<Result<_, _>>()).transpose()?;
    let (link, origin) = (members.text(name)?, members.optional_text("origin")?);
    Ok(Step::Connect { link, origin, offer, nonce: nonce(members)?, refused: members.numbers("refused")? })
}

fn nonce(members: &mut Members) -> Result<NonceRule, String> {
    if let Some(other) = members.optional_text("nonce_of")? {
        return Ok(NonceRule::Of(other));
    }
    match members.optional_text("nonce")?.as_deref() {
        None => Ok(NonceRule::Usual),
        Some("given") => Ok(NonceRule::Given),
        Some("none") => Ok(NonceRule::Absent),
        Some("malformed") => Ok(NonceRule::Malformed),
        Some(other) => Err(format!("unknown nonce {other:?}")),
    }
}

fn proof(members: &mut Members) -> Result<ProofRule, String> {
    if let Some(other) = members.optional_text("proof_of")? {
        return Ok(ProofRule::Of(other));
    }
    Ok(match members.optional_text("proof")?.as_deref() {
        None => ProofRule::Right,
        Some("none") => ProofRule::Absent,
        Some("forged") => ProofRule::Forged,
        Some("reflected") => ProofRule::Reflected,
        Some("other-group") => ProofRule::OtherGroup,
        Some("other-epoch") => ProofRule::OtherEpoch,
        Some("twice") => ProofRule::Twice,
        Some("first") => ProofRule::Line(0),
        Some("second") => ProofRule::Line(1),
        Some(other) => return Err(format!("unknown proof {other:?}")),
    })
}

fn lead(members: &mut Members, name: &str) -> Result<Step, String> {
    Ok(Step::Lead {
        link: members.text(name)?,
        epoch: members.optional_number("epoch")?.unwrap_or(0),
        group: members.optional_text("group")?,
        elect: members.flag("elect", true)?,
        hello: members.optional_text("hello")?,
        proof: proof(members)?,
    })
}

fn greeted(members: &mut Members, name: &str) -> Result<Step, String> {
    let link = members.text(name)?;
    Ok(Step::Greeted { link, held: members.numbers("held")?, may_hold: members.numbers("may_hold")? })
}

fn sending(name: &str, members: &mut Members) -> Result<Step, String> {
    let link = members.text(name)?;
    let payload = match name {
        "send_text" => Payload::Text(members.text("text")?),
        "send_raw" => Payload::Raw(bytes(&members.text("hex")?)?),
        _ => match members.optional_number("zeros")? {
            Some(count) => Payload::Zeros(count),
            None => Payload::Binary(bytes(&members.text("hex")?)?),
        },
    };
    Ok(Step::Send { link, payload })
}

/// Bytes in hexadecimal digits, with or without spaces.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of digits".to_owned());
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(byte).collect::<Option<_>>().ok_or_else(|| format!("{text:?} is not hexadecimal"))
}

fn amount(members: &mut Members) -> Result<Amount, String> {
    if let Some(more) = members.optional_number("prefetch_plus")? {
        return Ok(Amount::Prefetch(more));
    }
    let ids = members.numbers("ids")?;
    if ids.is_empty() { Err("no ids".to_owned()) } else { Ok(Amount::These(ids)) }
}

fn channel(members: &mut Members) -> Result<Option<Channel>, String> {
    let text = members.optional_text("channel")?.map(Channel::Text);
    Ok(members.optional_number("channel_bytes")?.map(Channel::Bytes).or(text))
}

fn packing(members: &mut Members) -> Result<Packing, String> {
    if let Some(fragments) = members.optional_number("fragments")? {
        return Ok(Packing::Fragments(fragments));
    }
    let (apart, split) = (members.flag("apart", false)?, members.flag("split", false)?);
    Ok(match (apart, split) {
        (true, _) => Packing::Apart,
        (_, true) => Packing::Split,
        _ => Packing::Together,
    })
}

fn wanted(members: &mut Members) -> Result<Wanted, String> {
    let delays = members.numbers("delays")?;
    match members.optional_text("is")?.as_deref() {
        None => Ok(Wanted::Any),
        Some("result") => Ok(Wanted::Result),
        Some("nothing") => Ok(Wanted::Nothing),
        Some("nack") => Ok(Wanted::Nack { delays }),
        Some(other) => Err(format!("unknown answer {other:?}")),
    }
}

fn text_rule(members: &mut Members) -> Result<TextRule, String> {
    let seen = members.optional_number("seen")?.map(TextRule::Seen);
    let not_seen = members.flag("not_seen", false)?.then_some(TextRule::NotSeen);
    Ok(seen.or(not_seen).unwrap_or_default())
}
