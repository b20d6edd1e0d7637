//! Lua scripts and calls of them. While a script runs, Redis runs nothing else. A script that is refused midway is not
//! rolled back; `lua/steps.lua` says how the scripts cope with that.

use std::sync::OnceLock;

use super::command::{Words, begin, number, word};

/// A Lua script, called by its digest.
pub(super) struct Script {
    pub(super) text: &'static str,
    // The server returns it when the script is first loaded. It is the same on every server.
    pub(super) digest: OnceLock<String>,
    sent: OnceLock<String>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Script {
        Script { text, digest: OnceLock::new(), sent: OnceLock::new() }
    }

    /// The text as it is sent: lines that are comments are empty, so the others keep their numbers. A server takes at
    /// most 16 KiB from a client that has not logged in, and would end the connection without saying that a login is
    /// needed.
    pub(super) fn sent(&self) -> &str {
        self.sent.get_or_init(|| {
            let lean = |line: &'static str| if line.trim_start().starts_with("--") { "" } else { line };
            self.text.lines().map(lean).collect::<Vec<_>>().join("\n")
        })
    }

    /// The command that an error is about. Servers before 7.2 don't name it, but name the line.
    pub(super) fn command_at(&self, error: &str) -> Option<&'static str> {
        const PLACE: &str = "@user_script:";
        let after = &error[error.find(PLACE)? + PLACE.len()..];
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let line = self.text.lines().nth(after[..digits].parse::<usize>().ok()?.checked_sub(1)?)?;
        let call = ["redis.call('", "redis.pcall('"].into_iter().find_map(|call| line.split(call).nth(1))?;
        call.split('\'').next()
    }
}

/// A script with its keys and arguments.
pub(super) struct ScriptCall {
    pub(super) script: &'static Script,
    keys: Words,
    arguments: Words,
    /// Whether the server is asked to refuse any write by it, for which the user needs no right to write the keys.
    reads_only: bool,
}

impl ScriptCall {
    pub(super) fn new(script: &'static Script, keys: &[&str]) -> ScriptCall {
        ScriptCall { script, keys: keys.iter().collect(), arguments: Words::default(), reads_only: false }
    }

    /// Appends a key that the script does not always need.
    pub(super) fn key(mut self, key: &str) -> Self {
        self.keys.push(key);
        self
    }

    /// The same call, which the server ends if the script writes. For Redis 7 and newer.
    pub(super) fn reading_only(self) -> Self {
        ScriptCall { reads_only: true, ..self }
    }

    /// The same call with one more argument.
    pub(super) fn with(mut self, argument: impl Argument) -> Self {
        self.push(argument);
        self
    }

    /// The commands that call it by its digest and by its text.
    pub(super) fn commands(&self) -> (&'static str, &'static str) {
        if self.reads_only { ("EVALSHA_RO", "EVAL_RO") } else { ("EVALSHA", "EVAL") }
    }

    /// Appends an argument, or several as a tuple.
    pub(super) fn push(&mut self, argument: impl Argument) {
        argument.append(&mut self.arguments);
    }

    /// The rights to its keys.
    pub(super) fn rights(&self) -> String {
        let rights: Vec<String> = self.keys.iter().map(|key| format!("~{}", key.escape_ascii())).collect();
        format!("one of {}", rights.join(" "))
    }

    /// Appends the command `name` with the script's digest or text.
    pub(super) fn write(&self, name: &str, script: &str, out: &mut Vec<u8>) {
        begin(out, 3 + self.keys.len() + self.arguments.len());
        word(out, name);
        word(out, script);
        number(out, self.keys.len() as u64);
        out.extend_from_slice(self.keys.bytes());
        out.extend_from_slice(self.arguments.bytes());
    }
}

/// A value that can be an argument of a script, and knows its form there.
pub(super) trait Argument {
    fn append(&self, words: &mut Words);
}

impl<A: Argument + ?Sized> Argument for &A {
    fn append(&self, words: &mut Words) {
        (**self).append(words);
    }
}

/// `None` is an empty word.
impl<A: Argument> Argument for Option<A> {
    fn append(&self, words: &mut Words) {
        match self {
            Some(argument) => argument.append(words),
            None => words.push(""),
        }
    }
}

impl Argument for str {
    fn append(&self, words: &mut Words) {
        words.push(self);
    }
}

impl Argument for [u8] {
    fn append(&self, words: &mut Words) {
        words.push(self);
    }
}

impl Argument for u64 {
    fn append(&self, words: &mut Words) {
        words.push_number(*self);
    }
}

/// Words that are already in the protocol's form.
impl Argument for Words {
    fn append(&self, words: &mut Words) {
        words.append(self);
    }
}

impl<A: Argument, B: Argument> Argument for (A, B) {
    fn append(&self, words: &mut Words) {
        self.0.append(words);
        self.1.append(words);
    }
}

impl<A: Argument, B: Argument, C: Argument> Argument for (A, B, C) {
    fn append(&self, words: &mut Words) {
        self.0.append(words);
        self.1.append(words);
        self.2.append(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_was_refused_is_found_by_its_line() {
        let script = Script::new("local a = 1\nredis.call('XADD', KEYS[1])\nreturn a");
        for error in [
            "ERR Error running script (call to f_43): @user_script:2: @user_script: 2: The user executing the script \
             can't",
            "The user executing the script can't run this command or subcommand script: 43, on @user_script:2.",
        ] {
            assert_eq!(script.command_at(error), Some("XADD"), "{error}");
        }
        for error in ["on @user_script:1.", "on @user_script:99.", "on @user_script:0.", "@user_script:", "OOM"] {
            assert_eq!(script.command_at(error), None, "{error}");
        }
    }

    #[test]
    fn a_script_is_sent_without_comments_and_with_its_lines() {
        let script = Script::new("-- A\nlocal a = 1 -- b\n  -- C\nreturn a\n");
        assert_eq!(script.sent(), "\nlocal a = 1 -- b\n\nreturn a");
    }

    #[test]
    fn a_call_is_written_with_its_keys_before_its_arguments() {
        static SCRIPT: Script = Script::new("");
        let mut call = ScriptCall::new(&SCRIPT, &["a"]);
        call.push((7, None::<u64>));
        let mut out = Vec::new();
        call.key("b").write("EVALSHA", "digest", &mut out);
        let words = ["EVALSHA", "digest", "2", "a", "b", "7", ""];
        assert_eq!(out, super::super::command::Command::of(&words).into_bytes());
    }
}
