//! The program that children run: its command line and its environment.
//!
//! Children inherit the consumer's environment, except its own settings, which may hold passwords, and what systemd
//! told the consumer about itself. They get `ONCECAST_GROUP`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::base::setting::PREFIX;

/// Variables for the consumer alone: a child that used them would speak in the consumer's name.
const NOT_INHERITED: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"];

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Program {
    words: Vec<OsString>,
    group: String,
    removed: Vec<OsString>,
}

impl Program {
    /// The program and its arguments: at least one word.
    pub(super) fn new(words: Vec<OsString>, group: &str) -> Program {
        let is_own = |name: &OsString| {
            name.as_bytes().starts_with(PREFIX.as_bytes()) || NOT_INHERITED.iter().any(|own| name == own)
        };
        let removed = env::vars_os().map(|(name, _)| name).filter(is_own).collect();
        Program { words, group: group.to_owned(), removed }
    }

    /// The program's name, as it was given.
    pub(super) fn name(&self) -> impl std::fmt::Display {
        self.words[0].display()
    }

    /// Why it can't be started; `None` if it is there and may be executed.
    pub(super) fn obstacle(&self) -> Option<String> {
        obstacle(&self.words[0])
    }

    /// A command that starts it as the leader of a new process group.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).process_group(0);
        self.removed.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.env("ONCECAST_GROUP", &self.group);
        command
    }
}

/// Why this program can't be started; `None` if it is there and may be executed.
pub fn obstacle(program: &OsStr) -> Option<String> {
    let path = Path::new(program);
    if program.as_bytes().contains(&b'/') {
        return match fs::metadata(path) {
            Err(error) => Some(error.to_string()),
            Ok(file) if !file.is_file() => Some("it is no file".to_owned()),
            Ok(file) if file.permissions().mode() & 0o111 == 0 => Some("it is not executable".to_owned()),
            Ok(_) => None,
        };
    }
    let folders = env::var_os("PATH")?;
    let found = env::split_paths(&folders).any(|folder| obstacle(folder.join(path).as_os_str()).is_none());
    (!found).then(|| "there is no such program on PATH".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_or_not_executable_is_found_out() {
        let obstacle = |program: &str| obstacle(OsStr::new(program));
        assert_eq!((obstacle("sh"), obstacle("/bin/sh")), (None, None));
        for (program, problem) in [
            ("/nowhere/x", "No such file"),
            ("/etc/passwd", "not executable"),
            ("/etc", "no file"),
            ("./", "no file"),
            ("surely-no-such-program", "on PATH"),
        ] {
            let found = obstacle(program).expect(program);
            assert!(found.contains(problem), "{program}: {found}");
        }
    }

    #[test]
    fn the_consumers_own_settings_are_not_inherited() {
        let mut program = Program::new(vec!["env".into()], "orders");
        program.removed.extend(["HOME".into()]);
        let output = program.command().env("ONCECAST_LATER", "x").output().expect("there is env");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(lines.contains("ONCECAST_GROUP=orders\n") && lines.contains("PATH="), "{lines}");
        assert!(!lines.contains("\nHOME="), "{lines}");
    }
}
