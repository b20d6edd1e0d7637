//! The nodes' files of the cluster (`nodes.conf`), written before the nodes start.
//!
//! A line for each node: its id, `<host>:<port>@<port of its bus>`, flags, its primary, two times, its configuration
//! epoch, the state of the link, and its slots. The file of each node says which of them is itself. From 7.2 on also
//! the id of the shard, which is a primary and its replicas: without it the server ends at the first `SPUBLISH`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::base::error::{Error, Result};
use crate::lab::ports::BUS_OFFSET;
use crate::lab::redis::{RedisServer, id_of_a_node};
use crate::ledger::SLOTS;

/// Writes the files of nodes that do not run yet. The first ones are the primaries, which share the slots evenly; the
/// others are their replicas, in the same order.
pub(super) fn write_files(nodes: &[RedisServer], primaries: usize) -> Result<()> {
    let ids: Vec<String> = nodes.iter().map(|_| id_of_a_node()).collect();
    let share = usize::from(SLOTS).div_ceil(primaries);
    let shards: Option<Vec<String>> = match nodes.first() {
        Some(node) if has_shards(node.program())? => Some((0..primaries).map(|_| id_of_a_node()).collect()),
        _ => None,
    };
    let line = |number: usize, own: usize| {
        let (id, port) = (&ids[number], nodes[number].main_port());
        let myself = if number == own { "myself," } else { "" };
        let shard = shards.as_ref().map(|shards| format!(",,shard-id={}", shards[number % primaries]));
        let begin = format!("{id} 127.0.0.1:{port}@{}{}", port + BUS_OFFSET, shard.unwrap_or_default());
        match number.checked_sub(primaries) {
            None => {
                let (first, last) = (number * share, ((number + 1) * share).min(usize::from(SLOTS)) - 1);
                // No two primaries may have the same epoch.
                format!("{begin} {myself}master - 0 0 {} connected {first}-{last}\n", number + 1)
            }
            Some(primary) => {
                format!("{begin} {myself}slave {} 0 0 {} connected\n", ids[primary], primary + 1)
            }
        }
    };
    for (own, node) in nodes.iter().enumerate() {
        let lines: String = (0..nodes.len()).map(|number| line(number, own)).collect();
        let path = node.folder().join("nodes.conf");
        let text = format!("{lines}vars currentEpoch {primaries} lastVoteEpoch 0\n");
        fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

/// Whether nodes of this server have ids of shards: from version 7.2 on.
fn has_shards(program: &Path) -> Result<bool> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(Error::io(format!("asking {} for its version", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = || {
        let mut parts = text.split_once("v=")?.1.split('.').map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let version = version().ok_or_else(|| Error::Failed(format!("{} says no version: {text}", program.display())))?;
    Ok(version >= (7, 2))
}
