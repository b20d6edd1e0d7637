//! What a reply says about a command that was tried. Pure.

use redis::Value;

use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;

/// What a reply says.
#[derive(Debug)]
pub(super) enum Said {
    /// The command may be used.
    Allowed,
    /// The user may not use the command.
    NoCommand,
    /// The user may use it, but not with this key.
    NoKey,
    /// The user may use it, but not with this channel.
    NoChannel,
    /// The server does not have the command.
    Unknown,
    /// The server refuses it for a reason that has nothing to do with the user.
    Refused(Refusal, Error),
}

/// An error without the advice to ask the doctor.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::Redis { server, hint: Some(hint), cause, .. } => {
            let (advice, doctor) = (hint.advice(), hint.is_for_the_doctor());
            if doctor { format!("redis {server}: {cause} ({advice})") } else { error.to_string() }
        }
        error => error.to_string(),
    }
}

/// Reads a reply. `refused_with` is part of the refusal that an allowed command without effect gets. An error is one of
/// the connection.
pub(super) fn said(reply: Result<Value>, refused_with: Option<&str>) -> Result<Said> {
    let error = match reply {
        Ok(_) => return Ok(Said::Allowed),
        Err(error) => error,
    };
    let text = error.to_string();
    let Some(refusal) = error.refusal() else { return Err(error) };
    Ok(match refusal {
        Refusal::Right if text.contains("channel") && text.contains("to access ") => Said::NoChannel,
        Refusal::Right if text.contains("to access ") => Said::NoKey,
        Refusal::Right => Said::NoCommand,
        Refusal::UnknownCommand => Said::Unknown,
        // Nothing can be concluded while the server loads its data.
        Refusal::NotNow => return Err(error),
        _ if refused_with.is_some_and(|part| text.contains(part)) => Said::Allowed,
        // A value of another type is a matter for the program's own steps.
        Refusal::WrongType => Said::Allowed,
        refusal => Said::Refused(refusal, error),
    })
}
