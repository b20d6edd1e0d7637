//! The messages and their ids: a prefix and a number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::ledger::Command;

/// The most messages in one pipeline.
pub(super) const MAX_PIPELINE_MESSAGES: usize = 1_000;
/// The most bytes in one pipeline that has more than one message.
pub(super) const MAX_PIPELINE_BYTES: usize = 1 << 20;
/// What the protocol and a number add to a message, at most.
const OVERHEAD_BYTES: usize = 100;

/// Makes messages from numbers.
pub(super) struct Messages {
    /// Where they go, in turn: message k to channel k modulo their number.
    channels: Vec<Vec<u8>>,
    command: &'static str,
    prefix: String,
    /// A message up to its number, with the prefix escaped.
    begin: String,
}

impl Messages {
    pub(super) fn new(channels: Vec<Vec<u8>>, sharded: bool, prefix: &str) -> Messages {
        let quoted = serde_json::Value::from(prefix).to_string();
        let open = quoted.strip_suffix('"').expect("a JSON string ends with a quote");
        let command = if sharded { "SPUBLISH" } else { "PUBLISH" };
        Messages { channels, command, prefix: prefix.to_owned(), begin: format!("{{\"message_id\":{open}") }
    }

    /// How many fit into one pipeline.
    pub(super) fn most_in_a_pipeline(&self) -> usize {
        let longest = self.channels.iter().map(Vec::len).max().unwrap_or_default();
        let each = longest + self.begin.len() + OVERHEAD_BYTES;
        (MAX_PIPELINE_BYTES / each).clamp(1, MAX_PIPELINE_MESSAGES)
    }

    /// The commands that publish these messages.
    pub(super) fn commands(&self, numbers: &[u64]) -> Vec<Command> {
        let mut payload = self.begin.clone().into_bytes();
        let publish = |number: &u64| {
            payload.truncate(self.begin.len());
            write!(payload, "{number}\"}}").expect("a Vec takes every write");
            let channel = &self.channels[(number % self.channels.len() as u64) as usize];
            Command::new(3).arg(self.command).arg(channel).arg(&payload)
        };
        numbers.iter().map(publish).collect()
    }
}

/// The file of the ids that a subscriber received, one per line.
pub(super) struct IdsFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl IdsFile {
    /// Creates or empties the file.
    pub(super) fn create(path: &Path) -> Result<IdsFile> {
        let file = File::create(path).map_err(failed(path))?;
        Ok(IdsFile { path: path.to_owned(), file: BufWriter::new(file) })
    }

    pub(super) fn write(&mut self, messages: &Messages, number: u64) -> Result<()> {
        writeln!(self.file, "{}{number}", messages.prefix).map_err(failed(&self.path))
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(failed(&self.path))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("--ids-file {}: writing", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_whatever_the_prefix() {
        let messages = Messages::new(vec![b"a channel".to_vec()], false, "a\"\\é ");
        let commands: Vec<Vec<u8>> = messages.commands(&[7, 12]).into_iter().map(Command::into_bytes).collect();
        let first = "*3\r\n$7\r\nPUBLISH\r\n$9\r\na channel\r\n$26\r\n{\"message_id\":\"a\\\"\\\\é 7\"}\r\n";
        assert_eq!(String::from_utf8_lossy(&commands[0]), first);
        assert!(commands[1].ends_with("é 12\"}\r\n".as_bytes()));
    }

    #[test]
    fn pipelines_are_bounded_in_bytes_too() {
        assert_eq!(Messages::new(vec![b"c".to_vec()], false, "p").most_in_a_pipeline(), MAX_PIPELINE_MESSAGES);
        let messages = Messages::new(vec![vec![b'c'; 3_000]], false, "p");
        let most = messages.most_in_a_pipeline();
        let bytes: usize =
            messages.commands(&vec![u64::MAX; most]).into_iter().map(|command| command.into_bytes().len()).sum();
        assert!(most > 300 && bytes <= MAX_PIPELINE_BYTES, "{most} messages are {bytes} bytes");
        assert_eq!(Messages::new(vec![vec![b'c'; 3 << 20]], false, "p").most_in_a_pipeline(), 1);
    }
}
