//! Redis's protocol, the two parts where speed counts: writing a command into one buffer, and taking pushes apart
//! in place. Pure; everything else about the protocol is left to the `redis` package.

use std::io::Write;

/// A command being written, in the protocol's form.
#[derive(Clone, Debug)]
pub struct Command {
    bytes: Vec<u8>,
    missing: usize,
}

impl Command {
    /// A command of `words` words, its name included.
    pub fn new(words: usize) -> Command {
        let mut bytes = Vec::with_capacity(16 + 32 * words);
        write!(bytes, "*{words}\r\n").expect("a Vec takes every write");
        Command { bytes, missing: words }
    }

    /// A whole command.
    pub fn of(words: &[&str]) -> Command {
        words.iter().fold(Command::new(words.len()), |command, word| command.arg(word))
    }

    /// Appends a word.
    pub fn arg(mut self, word: impl AsRef<[u8]>) -> Command {
        let word = word.as_ref();
        write!(self.bytes, "${}\r\n", word.len()).expect("a Vec takes every write");
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
        self.missing = self.missing.checked_sub(1).expect("a command has as many words as it announced");
        self
    }

    /// The bytes to send.
    pub fn into_bytes(self) -> Vec<u8> {
        assert_eq!(self.missing, 0, "a command has as many words as it announced");
        self.bytes
    }
}
