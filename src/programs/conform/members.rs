//! The members of a JSON object, taken one after the other; what is left over at the end is an error. Pure.

use serde_json::{Map, Value};

/// The members of an object that have not been read yet.
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub(super) fn of(value: Value) -> Result<Members, String> {
        match value {
            Value::Object(members) => Ok(Members(members)),
            other => Err(format!("{other} is not an object")),
        }
    }

    /// The name of the first member.
    pub(super) fn first(&self) -> Option<String> {
        self.0.keys().next().cloned()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn put(&mut self, name: &str, text: String) {
        self.0.insert(name.to_owned(), text.into());
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, String> {
        self.optional_text(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name}: {other} is not text")),
        }
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, String> {
        self.optional_number(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    pub(super) fn optional_number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(name, &value).map(Some),
        }
    }

    pub(super) fn numbers<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Vec<T>, String> {
        self.optional_list(name)?.iter().map(|value| number(name, value)).collect()
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        match self.0.remove(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(format!("{name}: {other} is neither true nor false")),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Value>, String> {
        match self.0.remove(name) {
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(format!("{name}: {other} is not a list")),
            None => Err(format!("{name} is missing")),
        }
    }

    pub(super) fn optional_list(&mut self, name: &str) -> Result<Vec<Value>, String> {
        if self.0.contains_key(name) { self.list(name) } else { Ok(Vec::new()) }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Map<String, Value>, String> {
        match self.0.remove(name) {
            None => Ok(Map::new()),
            Some(value) => Members::of(value).map(|members| members.0),
        }
    }

    pub(super) fn done(self) -> Result<(), String> {
        let left: Vec<String> = self.0.into_iter().map(|(name, _)| name).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("unknown members: {}", left.join(", "))) }
    }
}

fn number<T: TryFrom<u64>>(name: &str, value: &Value) -> Result<T, String> {
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("{name}: {value} is not a number of the right size"))
}
