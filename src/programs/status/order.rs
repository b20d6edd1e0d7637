//! The part of a leader's report about order by key.

use serde_json::{Value, json};

use crate::base::text::Quoted;

/// What a dispatcher with `--order-key` reports of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderReport {
    /// The setting.
    pub key: String,
    /// Keys with messages in progress.
    pub keys: u64,
    /// Messages in memory that wait for others of their key.
    pub parked: u64,
    /// Keys of which only the next messages are in memory.
    pub cut: u64,
    /// Messages without a key since its start.
    pub unkeyed: u64,
}

impl OrderReport {
    /// The JSON that is written.
    pub fn to_json(&self) -> Value {
        json!({
            "key": self.key,
            "keys": self.keys,
            "parked": self.parked,
            "cut": self.cut,
            "unkeyed": self.unkeyed,
        })
    }

    /// The same, read; `None` if it is absent.
    pub fn read(json: &Value) -> Option<OrderReport> {
        let count = |name: &str| json[name].as_u64().unwrap_or_default();
        json.is_object().then(|| OrderReport {
            key: json["key"].as_str().unwrap_or_default().to_owned(),
            keys: count("keys"),
            parked: count("parked"),
            cut: count("cut"),
            unkeyed: count("unkeyed"),
        })
    }

    /// One line for people.
    pub fn in_words(&self) -> String {
        let OrderReport { key, keys, parked, cut, unkeyed } = self;
        let cut = if *cut > 0 { format!(", more in Redis for {cut} keys") } else { String::new() };
        format!(
            "by {}: {keys} keys in progress, {parked} messages wait for others of their key{cut}, without a key so far \
             {unkeyed}",
            Quoted(key)
        )
    }
}
