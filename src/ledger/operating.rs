//! Reads and changes the settings that operators give a group while it runs.

use redis::Value;

use super::core::Ledger;
use super::group_settings::{PauseChange, SettingsChange, SettingsReading};
use super::notice::Notice;
use super::scripts::SettingsCall;
use crate::base::error::Result;

impl Ledger {
    /// Reads the settings.
    pub fn settings(&mut self) -> Result<SettingsReading> {
        self.call_settings("reading the group's settings", &SettingsChange::default())
    }

    /// Changes settings, tells the leader, and returns what is set then. The call may be repeated: a pause that ends by
    /// itself then counts from the repetition.
    pub fn change_settings(&mut self, change: &SettingsChange) -> Result<SettingsReading> {
        self.call_settings("changing the group's settings", change)
    }

    fn call_settings(&mut self, doing: &'static str, change: &SettingsChange) -> Result<SettingsReading> {
        let (pause, by) = match &change.pause {
            None => (String::new(), ""),
            Some(PauseChange::Resume) => ("resume".to_owned(), ""),
            Some(PauseChange::Pause(None, by)) => ("forever".to_owned(), by.as_str()),
            Some(PauseChange::Pause(Some(time), by)) => (time.as_millis().max(1).to_string(), by.as_str()),
        };
        let max_in_flight = worded(change.max_in_flight);
        let rate = worded(change.rate);
        let call = SettingsCall {
            control_channel: &self.keys.control,
            notice: Notice::Settings,
            pause: &pause,
            by,
            max_in_flight: &max_in_flight,
            rate: &rate,
        };
        let reply = self.call(doing, call.on(&self.keys))?;
        let reading = match &reply {
            Value::Array(parts) => match parts.as_slice() {
                [Value::Int(now), fields @ ..] => SettingsReading::of((*now).try_into().unwrap_or(0), fields),
                _ => None,
            },
            _ => None,
        };
        reading.map_or_else(|| self.unexpected_reply(doing, &reply), Ok)
    }
}

/// A change as the script takes it.
fn worded<T: ToString>(change: Option<Option<T>>) -> String {
    match change {
        None => String::new(),
        Some(None) => "default".to_owned(),
        Some(Some(value)) => value.to_string(),
    }
}
