//! What nodes of a Redis Cluster answer to the question for its slots, and what it means that they don't. Pure, but for
//! the question.

use std::io;
use std::time::Duration;

use redis::RedisError;

use crate::base::failure::Failure;
use crate::base::refusal::{self, Refusal};
use crate::ledger::command::command;
use crate::ledger::place::asker::Asker;
use crate::ledger::topology::Topology;
use crate::net::Address;

/// Asks a node for the topology, within a time limit.
pub(in crate::ledger::place) type Ask = dyn Fn(&Address, Duration) -> Result<Topology, Problem> + Send + Sync;

/// Why a node gave no topology.
#[derive(Debug)]
pub(in crate::ledger::place) enum Problem {
    /// It refuses the login. A connection to it will be refused in the same way, with a better error.
    Login,
    /// It refuses the question, so asking again is of no use. With the error reply.
    Refused {
        /// What is missing, in words.
        problem: String,
        /// The error reply.
        reply: String,
    },
    /// Something else, in words.
    Other(String),
}

/// What came of asking all nodes, if none said anything.
pub(super) enum Silence {
    /// None answers: later one may.
    NoAnswer(String),
    /// This node refuses the login.
    Login(Address),
    /// A node refuses the question: this is its error reply, with what is missing.
    Refused(String),
}

impl Silence {
    /// The error of a lookup.
    pub(super) fn error(&self) -> io::Error {
        match self {
            Silence::NoAnswer(problem) => io::Error::other(problem.clone()),
            Silence::Login(node) => io::Error::other(format!("{node} refuses the login")),
            Silence::Refused(reply) => io::Error::other(Failure::of_reply(reply.as_bytes())),
        }
    }
}

/// The owner that `MOVED` names. Without a host it is on the host of the node that was asked.
pub(super) fn owner_in(text: &str, asked: Option<&Address>) -> Option<Address> {
    let (host, port) = refusal::moved_to(text)?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = match (host, asked) {
        ("", Some(Address::Tcp { host, .. })) => host.clone(),
        // No host name is known of the owner.
        ("" | "?", _) => return None,
        (host, _) => host.to_owned(),
    };
    Some(Address::Tcp { host, port })
}

/// Asks a node for the topology.
pub(in crate::ledger::place) fn ask(asker: &mut Asker, limit: Duration) -> Result<Topology, Problem> {
    let mut asking = Vec::new();
    command(&mut asking, &["CLUSTER", "SLOTS"]);
    let replies = asker.ask(&asking, 1, limit).map_err(|error| match error.downcast::<RedisError>() {
        Ok(refused) => problem_of(Failure::new(refused)),
        Err(error) => Problem::Other(error.to_string()),
    })?;
    let reply = &replies[0];
    let Err(error) = reply.clone().extract_error() else {
        let unreadable = || Problem::Other("its answer to CLUSTER SLOTS can't be read".to_owned());
        return Topology::of_slots(reply, asker.address()).ok_or_else(unreadable);
    };
    Err(problem_of(Failure::new(error)))
}

/// What an error reply means.
fn problem_of(refused: Failure) -> Problem {
    const NEEDS: &str = "its user lacks the right +cluster|slots, which every program needs on every node";
    let reply = refused.reply_text().unwrap_or_else(|| refused.to_string());
    let refused = |problem: &str| Problem::Refused { problem: problem.to_owned(), reply: reply.clone() };
    match Refusal::of(&reply) {
        Refusal::Login => Problem::Login,
        Refusal::Right => refused(NEEDS),
        Refusal::UnknownCommand => refused("it does not have CLUSTER SLOTS"),
        _ if reply.contains("cluster support disabled") => {
            refused("it is no node of a Redis Cluster: its URL begins with redis://")
        }
        _ => Problem::Other(reply),
    }
}

/// An error reply with what it means behind its code, so that it is still read as the same refusal.
pub(super) fn with_reason(reply: &str, meaning: &str) -> String {
    let (code, rest) = reply.split_once(' ').unwrap_or((reply, ""));
    format!("{code} {meaning} ({rest})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_and_says_what_is_missing() {
        for (reply, refusal, says) in [
            ("NOPERM User u has no permissions to run the 'cluster|slots' command", Refusal::Right, "+cluster|slots"),
            (
                "ERR unknown command 'CLUSTER', with args beginning with: 'SLOTS' ",
                Refusal::UnknownCommand,
                "have CLUSTER",
            ),
            ("ERR This instance has cluster support disabled", Refusal::NoCluster, "it is no node of a Redis Cluster"),
        ] {
            let Problem::Refused { problem, reply } = problem_of(Failure::of_reply(reply.as_bytes())) else {
                panic!("{reply} is final")
            };
            let silence = Silence::Refused(with_reason(&reply, &format!("node n:1: {problem}")));
            let failure = Failure::from(silence.error());
            assert_eq!(failure.refusal(), Some(refusal), "{failure}");
            assert!(failure.to_string().contains(says) && failure.to_string().contains("node n:1"), "{failure}");
        }
        for reply in ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required."] {
            assert!(matches!(problem_of(Failure::of_reply(reply.as_bytes())), Problem::Login), "{reply}");
        }
        assert!(matches!(problem_of(Failure::of_reply(b"LOADING it reads its data")), Problem::Other(_)));
    }
}
