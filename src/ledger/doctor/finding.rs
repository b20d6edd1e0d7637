//! What was found, and what to do about it. Pure.

/// What follows from a finding for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does not work.
    Stops,
    /// It works, but costs more or reacts later, for this reason.
    Slower(&'static str),
    /// It works without a part, which this names.
    Partly(&'static str),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Grant the user this right: a word of `ACL SETUSER`.
    Grant(String),
    /// Type this command, as an administrator of the server.
    Type(String),
    /// Do this.
    Do(String),
}

/// Something that a program lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What follows from it.
    pub effect: Effect,
    /// What is wrong.
    pub problem: String,
    /// What to do about it, if that is known.
    pub remedy: Option<Remedy>,
}

impl Finding {
    pub(super) fn new(effect: Effect, problem: impl Into<String>, remedy: impl Into<Option<Remedy>>) -> Finding {
        Finding { effect, problem: problem.into(), remedy: remedy.into() }
    }

    pub(super) fn stops(problem: impl Into<String>, remedy: impl Into<Option<Remedy>>) -> Finding {
        Finding::new(Effect::Stops, problem, remedy)
    }
}

/// What was found for a program, and what could not be tried.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// The server does not know a command.
pub(super) fn unknown(effect: Effect, name: &str) -> Finding {
    let remedy = Remedy::Do(format!(
        "if it was renamed, remove `rename-command {name}` from redis.conf and restart the server; else use Redis 6.2 \
         or newer, or a service that has it"
    ));
    Finding::new(effect, format!("the server does not have {name}"), remedy)
}

/// The user may not use a channel.
pub(super) fn no_channel(effect: Effect, user: &str, name: &str) -> Finding {
    let grant = Remedy::Grant(format!("&{name}"));
    Finding::new(effect, format!("the user {user} may not use the channel {name}"), grant)
}
