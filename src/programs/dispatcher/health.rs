//! The health of the process, made from that of its lanes: for `/readyz`, systemd and the group's status.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hosted::{Host, HostedLane};
use crate::lane;
use crate::lane::health::{NotReady, late_loop};
use crate::ledger::Destination;
use crate::process::supervision::Condition;

/// Ready if all lanes are, and all nodes of a Redis Cluster are heard. The error says what is missing.
pub(super) fn ready(host: &Host) -> Result<(), String> {
    let lanes = host.lanes();
    if lanes.is_empty() {
        return Err(
            "the nodes of the Redis Cluster are not known yet: none answers (--redis-url), or see its log".to_owned()
        );
    }
    host.unheard().map_or(Ok(()), Err)?;
    lanes.iter().try_for_each(|lane| lane_ready(host, &lane.lane))
}

/// What this process reports of a lane as its trouble. What concerns no lane that runs, lane 0 tells.
pub(super) fn trouble(host: &Host, hosted: &HostedLane) -> Option<String> {
    let unheard = host.unheard().filter(|_| hosted.number == 0);
    unheard.or_else(|| lane_ready(host, &hosted.lane).err())
}

/// The same for one lane.
pub(super) fn lane_ready(host: &Host, lane: &lane::Shared) -> Result<(), String> {
    let problem = match (hung(host, lane), lane::health::ready(lane)) {
        (Some(name), _) => format!("its loop {name} hangs"),
        (None, Ok(())) => return Ok(()),
        (None, Err(reason)) => explain(reason, lane),
    };
    Err(of_lane(lane, problem))
}

/// What is reported to systemd.
pub(super) fn condition(host: &Host) -> Condition {
    let lanes = host.lanes();
    let doing = |hosted: &Arc<HostedLane>| of_lane(&hosted.lane, doing(&hosted.lane));
    Condition {
        ready: ready(host),
        hung: lanes.iter().find_map(|hosted| hung(host, &hosted.lane)),
        // All lanes receive messages, even if they wait for other dispatchers to get in sync.
        waits: !lanes.is_empty() && lanes.iter().all(|hosted| hosted.lane.ring.stats().live),
        doing: lanes.iter().map(doing).collect::<Vec<_>>().join("; "),
    }
}

/// A loop that is late with its iteration.
fn hung(host: &Host, lane: &lane::Shared) -> Option<&'static str> {
    // After a pause of the whole process the other threads have not run yet.
    if host.main.is_late() { None } else { late_loop(lane) }
}

fn explain(reason: NotReady, lane: &lane::Shared) -> String {
    match reason {
        NotReady::NoIntake if lane.stats.lacks_replicas.load(Ordering::Relaxed) == 1 => {
            let wanted = lane.settings.wait_replicas;
            format!("it leads, but fewer than {wanted} replicas of Redis have what it stores (--wait-replicas)")
        }
        NotReady::NoIntake => match &*lane.stats.unstored.lock() {
            Some(error) => format!("it leads, but can't store messages: {error}"),
            None => "it leads, but can't store messages, or has not done so yet; see its log".to_owned(),
        },
        NotReady::NotSubscribed => {
            let redis = lane.settings.redis.shown();
            format!("not subscribed: Redis at {redis} does not answer, or refuses the subscription (--redis-url)")
        }
        NotReady::NoLeader => match &*lane.stats.unelected.lock() {
            Some(error) => format!("no dispatcher leads, and this one can't take the lease: {error}"),
            None => "no dispatcher leads, and this one may not lead yet".to_owned(),
        },
        NotReady::NotInSync => "not in sync with the leader yet".to_owned(),
    }
}

fn doing(lane: &lane::Shared) -> String {
    let stats = &lane.stats;
    if stats.leading.load(Ordering::Relaxed) == 1 {
        let epoch = stats.epoch.load(Ordering::Relaxed);
        match &lane.settings.destination {
            Destination::Pending => {
                let paused = if stats.paused.load(Ordering::Relaxed) == 1 { ", PAUSED" } else { "" };
                format!("leads with epoch {epoch}, {} consumers{paused}", stats.linked.lock().len())
            }
            Destination::Stream { key, .. } => format!("leads with epoch {epoch}, adds to the stream {key}"),
        }
    } else {
        "standby, in sync".to_owned()
    }
}

/// With the lane's name, if the group has several.
fn of_lane(lane: &lane::Shared, text: String) -> String {
    match &lane.settings.name {
        Some(name) => format!("lane {name}: {text}"),
        None => text,
    }
}
