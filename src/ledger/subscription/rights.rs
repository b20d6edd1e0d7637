//! The rights that a subscription needs, for the error when Redis refuses it without saying which is missing. Pure.

use super::channels::Subscriber;
use crate::ledger::interests::Interests;
use crate::ledger::keys::Keys;

/// The rights to the channels of a subscription.
pub(super) fn rights(interests: &Interests, keys: &Keys, subscriber: &Subscriber) -> String {
    /// The most that are named; others are only counted.
    const MOST: usize = 10;
    let names: Vec<&[u8]> = interests.channels().chain(interests.patterns()).collect();
    let own = [format!("&{}", keys.control), format!("&{}*", subscriber.prefix(keys))];
    let shown = names.iter().take(MOST).map(|name| format!("&{}", name.escape_ascii()));
    let rights: Vec<String> = shown.chain(own).collect();
    let more = names.len().saturating_sub(MOST);
    let others = if more > 0 { format!(" and of {more} more channels or patterns") } else { String::new() };
    format!("one of {}{others}", rights.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::DispatcherId;

    #[test]
    fn each_needs_its_own_channel_and_not_that_of_others() {
        let interests = Interests::of(vec![b"orders".to_vec()], Vec::new()).expect("a channel");
        let keys = Keys::in_database("g", 0);
        let id = || DispatcherId::generate("d0");
        let named = rights(&interests, &keys, &Subscriber::Dispatcher(id()));
        assert_eq!(named, "one of &orders &g:control &g:alive:*");
        let named = rights(&interests, &keys, &Subscriber::Shadow(id()));
        assert_eq!(named, "one of &orders &g:control &g:shadow:*");
    }
}
