//! The lanes of a group as operators' tools see them: one, or all that there are.
//!
//! A group has several lanes only in a Redis Cluster. Each is a group of its own in Redis; lane 0 lists them. An id is
//! unique in its lane only: in a group with several lanes a message is named `LANE/ID`, by all tools alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::common::{CommonConfig, LANE};
use super::messages::MessageName;
use super::patience::patiently;
use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;
use crate::base::setting::ConfigError;
use crate::base::text::Quoted;
use crate::ledger::{LaneNumber, Ledger, lane_name, slot_of};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// The digits of an id.
const ID_DIGITS: usize = 16;

/// One of the lanes that a tool is for.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Its number.
    pub number: LaneNumber,
    /// Whether the group has other lanes, too.
    pub is_one_of_several: bool,
    /// The tool's settings, with the keys of this lane.
    pub common: CommonConfig,
}

impl LaneConfig {
    /// A message of this lane, as it may be typed: `LANE/ID`, or the id alone in a group with one lane.
    pub fn name_of(&self, id: &str) -> String {
        format!("{}{id}", self.prefix())
    }

    /// The columns that such a name takes.
    pub fn id_columns(&self) -> usize {
        ID_DIGITS + self.prefix().len()
    }

    fn prefix(&self) -> String {
        if self.is_one_of_several { format!("{}/", self.number) } else { String::new() }
    }
}

/// The lanes of a group, and warnings if they may not be all.
#[derive(Clone, Debug, Default)]
pub struct FoundLanes {
    /// The lanes, the lowest first.
    pub lanes: Vec<LaneConfig>,
    /// What to log behind `event=lanes-unknown`.
    pub warnings: Vec<String>,
}

impl FoundLanes {
    /// The lanes; the warnings are logged.
    fn logged(self) -> Vec<LaneConfig> {
        self.warnings.iter().for_each(|warning| log::warn!("event=lanes-unknown {warning}"));
        self.lanes
    }
}

/// The lanes that a tool reads: the one that was asked for, or all, the lowest first. Without the right to read which
/// lanes there are, only lane 0 is read, with a warning.
pub fn lanes_of(common: &CommonConfig, patience: Duration) -> Result<Vec<LaneConfig>> {
    readable(common, recorded(common, REPLY_TIME, patience)).map(FoundLanes::logged)
}

/// The same, asked once within `limit`, with the warnings for the caller to log.
pub fn lanes_now(common: &CommonConfig, limit: Duration) -> Result<FoundLanes> {
    readable(common, recorded(common, limit, Duration::ZERO))
}

fn readable(common: &CommonConfig, numbers: Result<BTreeSet<LaneNumber>>) -> Result<FoundLanes> {
    match numbers {
        Err(error) if lacks_right_to_lanes(&error) => {
            let warning = format!("error={} note=\"only lane 0 is shown\"", Quoted(error));
            let warnings = common.lane.is_none().then_some(warning).into_iter().collect();
            Ok(FoundLanes { lanes: chosen(common, &supposed(common))?, warnings })
        }
        numbers => Ok(FoundLanes { lanes: chosen(common, &numbers?)?, warnings: Vec::new() }),
    }
}

/// The lanes that a tool shows, also if lane 0's node refuses or does not answer within `limit`: then those are found
/// that hold something on other nodes, with a warning. The lanes whose nodes fail are for the caller to name.
pub fn lanes_to_show(common: &CommonConfig, limit: Duration) -> Result<FoundLanes> {
    or_elsewhere(common, limit, lanes_now(common, limit))
}

/// The same for a tool that waits for Redis. The warnings are logged.
pub fn lanes_to_show_patiently(common: &CommonConfig, patience: Duration) -> Result<Vec<LaneConfig>> {
    let found = readable(common, recorded(common, REPLY_TIME, patience));
    or_elsewhere(common, REPLY_TIME, found).map(FoundLanes::logged)
}

fn or_elsewhere(common: &CommonConfig, limit: Duration, found: Result<FoundLanes>) -> Result<FoundLanes> {
    let error = match found {
        Err(error @ (Error::Redis { .. } | Error::Answer { .. })) if common.redis.is_cluster() => error,
        found => return found,
    };
    let mut warnings = vec![format!(
        "error={} note=\"lane 0 lists the lanes; shown are those that hold something on other nodes\"",
        Quoted(&error)
    )];
    let Some(found) = found_elsewhere(common, limit, &mut warnings) else { return Err(error) };
    let lanes = chosen(common, &found.into_iter().chain(supposed(common)).collect())?;
    Ok(FoundLanes { lanes, warnings })
}

/// The lanes that hold something on other nodes than lane 0's; `None` if there are none, or no node says who owns the
/// slots.
fn found_elsewhere(common: &CommonConfig, limit: Duration, warnings: &mut Vec<String>) -> Option<BTreeSet<LaneNumber>> {
    /// Lanes have low numbers: the lowest that fits a node is taken.
    const CANDIDATES: LaneNumber = 256;
    let topology = common.redis.topology(limit)?.ok()?;
    let home = topology.owner(slot_of(common.keys.group.as_bytes()))?;
    let mut by_node: BTreeMap<&str, Vec<LaneNumber>> = BTreeMap::new();
    for lane in 1..CANDIDATES {
        let owner = lane_name(&common.keys.group, lane).and_then(|name| topology.owner(slot_of(name.as_bytes())));
        if let Some(owner) = owner.filter(|owner| owner.id != home.id) {
            by_node.entry(&owner.id).or_default().push(lane);
        }
    }
    let mut found = BTreeSet::new();
    for lanes in by_node.values() {
        let mut ledger = Ledger::new(common.redis.clone(), Arc::new(common.keys.lane(lanes[0])?), limit);
        match ledger.lanes_with_entries(&common.keys, lanes) {
            Ok(here) => found.extend(here),
            Err(error) => warnings.push(format!("error={}", Quoted(error))),
        }
    }
    (!found.is_empty()).then_some(found)
}

/// The lanes that a tool changes. Without that right an error, unless one lane was asked for: a change of lane 0 alone
/// would look like one of the group.
pub fn lanes_to_change(common: &CommonConfig, patience: Duration) -> Result<Vec<LaneConfig>> {
    match recorded(common, REPLY_TIME, patience) {
        Err(error) if lacks_right_to_lanes(&error) && common.lane.is_some() => chosen(common, &supposed(common)),
        numbers => chosen(common, &numbers?),
    }
}

/// Whether the user may log in and find the node, and may not read which lanes there are.
fn lacks_right_to_lanes(error: &Error) -> bool {
    error.refusal() == Some(Refusal::Right) && !error.is_unsent()
}

fn chosen(common: &CommonConfig, numbers: &BTreeSet<LaneNumber>) -> Result<Vec<LaneConfig>> {
    let asked = |number| common.lane.is_none_or(|asked| asked == number);
    if let Some(asked) = common.lane.filter(|asked| !numbers.contains(asked)) {
        return Err(no_such_lane(asked, numbers));
    }
    let lane = |number: LaneNumber| {
        let keys = common.keys.lane(number)?;
        let common = CommonConfig { keys, ..common.clone() };
        Some(LaneConfig { number, is_one_of_several: numbers.len() > 1, common })
    };
    Ok(numbers.iter().filter(|number| asked(**number)).filter_map(|number| lane(*number)).collect())
}

/// The numbers of the group's lanes.
fn recorded(common: &CommonConfig, limit: Duration, patience: Duration) -> Result<BTreeSet<LaneNumber>> {
    if !common.redis.is_cluster() {
        return Ok(supposed(common));
    }
    let mut ledger = Ledger::new(common.redis.clone(), Arc::new(common.keys.clone()), limit);
    patiently(&mut ledger, patience, Ledger::lanes)
}

/// Lane 0 and the one that was asked for, as without a Redis Cluster.
fn supposed(common: &CommonConfig) -> BTreeSet<LaneNumber> {
    common.lane.into_iter().chain([0]).collect()
}

/// Messages that were named, by the lane that each is in.
pub fn by_lane(lanes: &[LaneConfig], names: &BTreeSet<MessageName>) -> Result<BTreeMap<LaneNumber, BTreeSet<String>>> {
    let numbers: BTreeSet<LaneNumber> = lanes.iter().map(|lane| lane.number).collect();
    let mut found: BTreeMap<LaneNumber, BTreeSet<String>> = BTreeMap::new();
    for MessageName { lane, id } in names {
        let number = match (lane, lanes) {
            (Some(lane), _) if numbers.contains(lane) => *lane,
            (Some(lane), [only]) if only.common.lane.is_some() => {
                let got = format_args!("{} beside the id {lane}/{id}", only.number);
                return Err(ConfigError::new(LANE.name, got, format_args!("{lane} with this id, or nothing")).into());
            }
            (Some(lane), _) => return Err(no_such_lane(*lane, &numbers)),
            (None, [only]) => only.number,
            (None, _) => {
                let one = numbers.last().copied().unwrap_or_default();
                let takes = format_args!(
                    "the lane of the id {id}, one of {}; or write the id with its lane, such as {one}/{id}",
                    listed(&numbers)
                );
                return Err(ConfigError::missing(LANE.name, takes).into());
            }
        };
        found.entry(number).or_default().insert(id.clone());
    }
    Ok(found)
}

fn no_such_lane(lane: LaneNumber, numbers: &BTreeSet<LaneNumber>) -> Error {
    ConfigError::new(LANE.name, lane, format_args!("a lane of the group: {}", listed(numbers))).into()
}

fn listed(numbers: &BTreeSet<LaneNumber>) -> String {
    numbers.iter().map(LaneNumber::to_string).collect::<Vec<_>>().join(", ")
}

/// For a tool that is for one lane.
pub fn only_lane(lanes: &[LaneConfig]) -> Result<&LaneConfig> {
    match lanes {
        [only] => Ok(only),
        _ => {
            let numbers = lanes.iter().map(|lane| lane.number).collect();
            let takes = format!("a lane of the group: {}", listed(&numbers));
            Err(ConfigError::missing(LANE.name, takes).into())
        }
    }
}

/// The line above what a lane's tool prints, if the group has several.
pub fn heading(lane: &LaneConfig) -> String {
    if lane.is_one_of_several { format!("lane {}:\n", lane.number) } else { String::new() }
}
