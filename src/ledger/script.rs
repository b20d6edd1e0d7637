//! Lua scripts and calls of them. Each runs whole or not at all, and nothing else runs meanwhile.

use std::sync::OnceLock;

use super::command::{Words, begin, number, word};

/// A Lua script, called by its digest.
pub(super) struct Script {
    pub(super) text: &'static str,
    // Given by the server when the script is first loaded; the same on every server.
    pub(super) digest: OnceLock<String>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Script {
        Script { text, digest: OnceLock::new() }
    }
}

/// The command of a script that an error is about: servers before 7.2 don't name it, but they say the line.
pub(super) fn command_at(script: &str, error: &str) -> Option<String> {
    const PLACE: &str = "@user_script:";
    let after = &error[error.find(PLACE)? + PLACE.len()..];
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let line = script.lines().nth(after[..digits].parse::<usize>().ok()?.checked_sub(1)?)?;
    let call = ["redis.call('", "redis.pcall('"].into_iter().find_map(|call| line.split(call).nth(1))?;
    call.split('\'').next().map(str::to_owned)
}

/// The keys and arguments of a script call.
pub(super) struct ScriptCall {
    keys: usize,
    words: Words,
}

impl ScriptCall {
    pub(super) fn new(keys: &[&str]) -> ScriptCall {
        ScriptCall { keys: keys.len(), words: keys.iter().collect() }
    }

    pub(super) fn bytes(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.words.push(argument);
        self
    }

    pub(super) fn push_bytes(&mut self, argument: impl AsRef<[u8]>) {
        self.words.push(argument);
    }

    pub(super) fn show(mut self, argument: impl ToString) -> Self {
        self.push_shown(argument);
        self
    }

    pub(super) fn push_shown(&mut self, argument: impl ToString) {
        self.words.push(argument.to_string());
    }

    pub(super) fn push_number(&mut self, argument: u64) {
        self.words.push_number(argument);
    }

    /// Arguments that are written already.
    pub(super) fn push_words(&mut self, arguments: &Words) {
        self.words.append(arguments);
    }

    /// Appends `EVALSHA` with the script's digest, or `EVAL` with its text.
    pub(super) fn write(&self, name: &str, script: &str, out: &mut Vec<u8>) {
        begin(out, 3 + self.words.len());
        word(out, name);
        word(out, script);
        number(out, self.keys as u64);
        out.extend_from_slice(self.words.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_was_refused_is_found_by_its_line() {
        let script = "local a = 1\nredis.call('XADD', KEYS[1])\nreturn a";
        for error in [
            "ERR Error running script (call to f_43): @user_script:2: @user_script: 2: The user executing the script can't",
            "The user executing the script can't run this command or subcommand script: 43, on @user_script:2.",
        ] {
            assert_eq!(command_at(script, error).as_deref(), Some("XADD"), "{error}");
        }
        for error in ["on @user_script:1.", "on @user_script:99.", "on @user_script:0.", "@user_script:", "OOM"] {
            assert_eq!(command_at(script, error), None, "{error}");
        }
    }
}
