//! What holds deliveries back now, for reports and metrics. Plain values.

use std::fmt;

use crate::base::delivery_rate::DeliveryRate;
use crate::ledger::{GroupSettings, Pause};

/// The pause and the limits that a leader keeps to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryState {
    /// The pause, while it lasts.
    pub pause: Option<Pause>,
    /// The most messages that consumers hold together.
    pub max_in_flight: Option<Limit<u64>>,
    /// The most deliveries in a time.
    pub rate: Option<Limit<DeliveryRate>>,
}

/// A limit, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit<T> {
    /// Its value.
    pub value: T,
    /// Whether it is a setting of the group, and not of this dispatcher.
    pub of_group: bool,
}

impl DeliveryState {
    /// What is set for the group, and, where nothing is, what a dispatcher has by its own settings.
    pub(super) fn new(group: &GroupSettings, max_in_flight: Option<u64>, rate: Option<DeliveryRate>) -> DeliveryState {
        DeliveryState {
            pause: group.pause.clone(),
            max_in_flight: effective(group.max_in_flight, max_in_flight),
            rate: effective(group.rate, rate),
        }
    }
}

impl<T: fmt::Display> Limit<T> {
    /// For the log: its value, and whose it is.
    pub(super) fn in_words(self) -> String {
        format!("{}@{}", self.value, if self.of_group { "group" } else { "dispatcher" })
    }
}

fn effective<T>(group: Option<T>, own: Option<T>) -> Option<Limit<T>> {
    let own = own.map(|value| Limit { value, of_group: false });
    group.map(|value| Limit { value, of_group: true }).or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_the_group_comes_first() {
        let group = GroupSettings { max_in_flight: Some(3), ..GroupSettings::default() };
        let own = "5/m".parse().expect("a rate");
        let state = DeliveryState::new(&group, Some(9), Some(own));
        assert_eq!(state.max_in_flight, Some(Limit { value: 3, of_group: true }));
        assert_eq!(state.rate, Some(Limit { value: own, of_group: false }));
        assert_eq!(DeliveryState::new(&GroupSettings::default(), None, None), DeliveryState::default());
    }
}
