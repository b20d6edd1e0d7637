//! Errors about a server: they name it, never its password, and say what to do where that is known. Pure.

use std::io;

use redis::Value;

use super::Server;
use crate::base::error::{Error, Step};
use crate::base::failure::Failure;
use crate::base::hint::Hint;
use crate::base::refusal::{self, Refusal};
use crate::base::text::beginning;
use crate::ledger::receiving::is_no_answer;

impl Server {
    /// A failure as an error, with a hint if there is one.
    pub(in crate::ledger) fn error(&self, step: impl Into<Step>, cause: impl Into<Failure>) -> Error {
        let (step, cause) = (step.into(), cause.into());
        let hint = self.hint(step, &cause).map(Box::new);
        Error::Redis { server: self.shown(), step, hint, cause }
    }

    /// The error for a connection that broke before the server had answered anything.
    pub(in crate::ledger) fn unanswered(&self, step: impl Into<Step>, error: io::Error) -> Error {
        if self.secure.is_some() || !is_no_answer(&error) {
            return self.error(step, error);
        }
        let (server, step, hint) = (self.shown(), step.into(), Hint::NoAnswer(self.setting()));
        Error::Redis { server, step, hint: Some(Box::new(hint)), cause: error.into() }
    }

    fn hint(&self, step: Step, cause: &Failure) -> Option<Hint> {
        let refused = cause.reply_text().and_then(|text| self.hint_about_refusal(&text));
        if let Some(problem) = cause.tls_problem() {
            return self.secure.as_ref()?.hint(problem, self.setting());
        }
        refused.or_else(|| match () {
            () if cause.is_connection_refused() => Some(Hint::IsItRunning(self.chosen)),
            () if cause.is_timeout() => Some(Hint::Slow),
            () if step == Step::Connecting => Some(Hint::Address(self.chosen)),
            () => None,
        })
    }

    /// What to do about an error reply.
    fn hint_about_refusal(&self, text: &str) -> Option<Hint> {
        let setting = self.setting();
        Some(match Refusal::of(text) {
            Refusal::Login if refusal::is_needless_password(text) => Hint::NoPassword(setting),
            Refusal::Login if self.is_anonymous() => Hint::Password(setting),
            Refusal::Login if self.is_cluster() => Hint::NodeLogin(setting),
            Refusal::Login => Hint::Login(setting),
            Refusal::Right if self.is_examined => Hint::Right(setting, None),
            Refusal::Right => Hint::RightOfAnother(setting, None),
            Refusal::Memory => Hint::Memory,
            // Where others say which server is the primary, the setting is right.
            Refusal::Replica if !self.must_be_primary() && !self.is_cluster() => Hint::Replica(setting),
            Refusal::Disk => Hint::Disk,
            Refusal::Database => Hint::Database(setting, self.database()),
            Refusal::Protocol => Hint::Resp3,
            Refusal::UnknownCommand => match refusal::unknown_command(text) {
                Some(name) if name.eq_ignore_ascii_case("HELLO") => Hint::Resp3,
                name => Hint::Command(name.map(str::to_owned)),
            },
            Refusal::NotNow if refusal::code(text) == Some("BUSY") => Hint::Busy,
            Refusal::NotNow => Hint::Loading,
            Refusal::Clients => Hint::Clients,
            Refusal::Protected => Hint::Protected,
            Refusal::StreamExhausted => Hint::StreamExhausted(None),
            Refusal::Cluster if self.is_cluster() && refusal::moved_to(text).is_some() => Hint::Moving,
            Refusal::Replica if self.is_cluster() => Hint::Moving,
            Refusal::Cluster => match (refusal::moved_to(text), refusal::code(text)) {
                (Some(owner), _) => Hint::Moved { setting, owner: owner.to_owned() },
                (None, Some("ASK" | "TRYAGAIN")) => Hint::Moving,
                (None, Some("CLUSTERDOWN")) => Hint::ClusterDown,
                (None, _) => Hint::Slots,
            },
            _ => return None,
        })
    }

    fn is_anonymous(&self) -> bool {
        let settings = &self.settings;
        settings.username().is_none() && settings.password().is_none()
    }

    /// The error for a reply of an unexpected form.
    pub(in crate::ledger) fn unexpected_reply(&self, step: impl Into<Step>, got: &Value) -> Error {
        let mut got = format!("{got:?}");
        got.truncate(beginning(&got, 200).len());
        Error::Answer { server: self.shown(), step: step.into(), got }
    }
}

/// Names in the error the rights of which the user lacks one, if Redis only says that it lacks a key or a channel.
pub(in crate::ledger) fn name_the_rights(error: Error, rights: impl FnOnce() -> String) -> Error {
    let is_about_names = error.refusal() == Some(Refusal::Right) && error.to_string().contains("to access ");
    match error {
        Error::Redis { server, step, cause, hint: Some(hint) } if is_about_names => {
            let hint = if hint.lacks_rights() { hint.with_rights(rights()) } else { *hint };
            Error::Redis { server, step, cause, hint: Some(Box::new(hint)) }
        }
        error => error,
    }
}
