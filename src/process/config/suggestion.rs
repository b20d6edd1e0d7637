//! The known name most similar to an unknown one, and errors of the command line that suggest it. Pure.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::base::mask::is_url_with_login;

/// The name most similar to `name`, if one is similar: at most every third letter differs. All names begin with
/// `begin`, such as `--`, which is not compared.
pub(super) fn nearest<'a>(begin: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let own = |name: &'a str| name.strip_prefix(begin).unwrap_or(name);
    let name = name.strip_prefix(begin).unwrap_or(name);
    let scored = known.into_iter().map(|known| (distance(name, own(known)), known));
    let (distance, known) = scored.min_by_key(|(distance, _)| *distance)?;
    (3 * distance <= own(known).len().min(name.len())).then_some(known)
}

/// The edit distance: how many letters must be inserted, deleted, replaced, or exchanged with their neighbour. Names
/// are short.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The longest name that is compared with others.
const MOST_BYTES: usize = 64;

/// The error of a command line, with a suggestion for the flag or subcommand that was meant, and without text that may
/// be a password.
pub fn completed(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) if text.len() <= MOST_BYTES => Some(text.clone()),
        _ => None,
    };
    let chosen = arguments.iter().skip(1).find_map(|word| command.find_subcommand(word)).unwrap_or(command);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flags: Vec<String> =
                chosen.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
            if let Some(flag) = text(&error, ContextKind::InvalidArg)
                && let Some(meant) = nearest("--", &flag, flags.iter().map(String::as_str))
            {
                error.insert(ContextKind::SuggestedArg, ContextValue::String(meant.to_owned()));
            }
        }
        ErrorKind::InvalidSubcommand => {
            let names = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
            if let Some(name) = text(&error, ContextKind::InvalidSubcommand)
                && let Some(meant) = nearest("", &name, names)
            {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant.to_owned()]));
            }
        }
        _ => {}
    }
    let shown = error.to_string();
    let secrets = arguments.iter().filter_map(|word| word.to_str()).filter(|word| is_url_with_login(word));
    let hidden = secrets.fold(shown.clone(), |shown, secret| shown.replace(secret, "***"));
    if hidden == shown {
        return error;
    }
    clap::Error::raw(error.kind(), hidden.strip_prefix("error: ").unwrap_or(&hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slip_is_recognised() {
        let known = ["--consumers", "--consumer-id", "--prefetch", "--group"];
        for (name, meant) in [
            ("--consumer", Some("--consumers")),
            ("--cosnumers", Some("--consumers")),
            ("--prefech", Some("--prefetch")),
            ("--gruop", Some("--group")),
            ("--consumerid", Some("--consumer-id")),
            ("--verbose", None),
            ("-x", None),
            ("", None),
        ] {
            assert_eq!(nearest("--", name, known), meant, "{name}");
        }
    }
}
