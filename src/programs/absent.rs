//! Says that there is no such group: its empty list would look like that of a group that is well.

use super::common::CommonConfig;
use super::patience::{PATIENCE, patiently};
use crate::base::error::Result;
use crate::base::text::Quoted;
use crate::ledger::Ledger;

/// Whether the group has left no trace in Redis, which is logged with what to check. `key` is what the tool reads.
pub fn warn_if_absent(common: &CommonConfig, ledger: &mut Ledger, key: &str) -> Result<bool> {
    if patiently(ledger, PATIENCE, |ledger| ledger.has_group(key))? {
        return Ok(false);
    }
    let keys = ledger.keys();
    log::warn!(
        "event=no-such-group group={} database={} missing={},{} note=\"no dispatcher has ever led this group here: \
         check --group, and the server and the database that --redis-url names\"",
        Quoted(&keys.group),
        common.redis.database(),
        Quoted(key),
        Quoted(&keys.recall),
    );
    Ok(true)
}
