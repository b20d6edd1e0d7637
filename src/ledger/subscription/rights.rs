//! The rights that a subscription needs, for the error when Redis refuses it without saying which is missing. Pure.

use crate::ledger::interests::Interests;
use crate::ledger::keys::Keys;

/// The rights to the channels of a subscription.
pub(super) fn rights(interests: &Interests, keys: &Keys) -> String {
    /// The most that are named; others are only counted.
    const MOST: usize = 10;
    let names: Vec<&[u8]> = interests.channels().chain(interests.patterns()).collect();
    let own = [format!("&{}", keys.control), format!("&{}*", keys.alive_prefix)];
    let shown = names.iter().take(MOST).map(|name| format!("&{}", name.escape_ascii()));
    let rights: Vec<String> = shown.chain(own).collect();
    let more = names.len().saturating_sub(MOST);
    let others = if more > 0 { format!(" and of {more} more channels or patterns") } else { String::new() };
    format!("one of {}{others}", rights.join(" "))
}
