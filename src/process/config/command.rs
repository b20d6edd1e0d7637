//! A command made of settings, and its `--help`.

use clap::Command;

use super::setting::Setting;

/// What is shown below the settings of every command.
const COMMON_HELP: &str = "\
Each setting may be given as a flag or as its environment variable; the flag wins. Logs go to standard error, one line
of key=value pairs per event.";

/// A command with these settings, in order. `about` begins with a paragraph of its own, which a list of commands shows;
/// `after` is shown below the settings.
pub fn command(name: &'static str, about: &'static str, after: &'static str, settings: &[Setting]) -> Command {
    let first = about.split("\n\n").next().unwrap_or(about);
    let command = Command::new(name)
        .about(first)
        .long_about(about)
        .after_help(format!("{COMMON_HELP}\n\n{after}"))
        .next_line_help(true);
    settings.iter().fold(command, |command, setting| command.arg(setting.arg()))
}
