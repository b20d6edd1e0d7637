//! The lanes of a group as operators' tools see them: one, or all that there are.
//!
//! A group has several lanes only in a Redis Cluster. Each is a group of its own in Redis; lane 0 lists them.

use std::sync::Arc;
use std::time::Duration;

use super::common::CommonConfig;
use super::patience::patiently;
use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;
use crate::ledger::{LaneNumber, Ledger};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// One of the lanes that a tool is for.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Its number.
    pub number: LaneNumber,
    /// The tool's settings, with the keys of this lane.
    pub common: CommonConfig,
}

/// The lanes that a tool is for: the one that was asked for, or all, the lowest first.
pub fn lanes_of(common: &CommonConfig, patience: Duration) -> Result<Vec<LaneConfig>> {
    let one = |number| vec![LaneConfig { number, common: common.clone() }];
    if let Some(number) = common.lane {
        return Ok(one(number));
    }
    if !common.redis.is_cluster() {
        return Ok(one(0));
    }
    let mut ledger = Ledger::new(common.redis.clone(), Arc::new(common.keys.clone()), REPLY_TIME);
    let numbers = match patiently(&mut ledger, patience, Ledger::lanes) {
        Err(error) if error.refusal() == Some(Refusal::Right) => {
            log::warn!("event=lanes-unknown error={} note=\"only lane 0 is shown\"", Quoted(error));
            return Ok(one(0));
        }
        numbers => numbers?,
    };
    let lane = |number| {
        let keys = common.keys.lane(number)?;
        Some(LaneConfig { number, common: CommonConfig { keys, ..common.clone() } })
    };
    Ok(numbers.into_iter().filter_map(lane).collect())
}

/// For a tool that names messages: an id is unique in its lane only.
pub fn only_lane(lanes: &[LaneConfig]) -> Result<()> {
    match lanes {
        [_] => Ok(()),
        _ => Err(Error::Failed(format!(
            "the group has {} lanes, and an id is unique in its lane only: name the lane with --lane",
            lanes.len()
        ))),
    }
}

/// The line above what a lane's tool prints, if the group has several.
pub fn heading(lanes: &[LaneConfig], number: LaneNumber) -> String {
    if lanes.len() > 1 { format!("lane {number}:\n") } else { String::new() }
}
