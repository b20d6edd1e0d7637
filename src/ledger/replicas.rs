//! How many replicas must have what a leader has stored before that counts: `WAIT`, behind the step in the same write.
//! Pure.
//!
//! `WAIT` refers to what the same connection has written before it. So an attempt that fewer replicas confirmed is one
//! with an unknown outcome: it is made again, which writes the cursor anew, and `WAIT` then refers to that write and
//! all before it. Behind the first renewal of a lease it refers to all that earlier leaders have stored.

use std::time::Duration;

use redis::Value;

use super::command::command;
use crate::base::failure::Failure;

/// How long Redis waits for the replicas.
const LIMIT: Duration = Duration::from_millis(500);

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replicas(pub(super) u32);

/// The reply to `WAIT`.
#[derive(Debug)]
pub(super) enum Confirmed {
    /// So many replicas have it.
    By(u32),
    /// The command was refused.
    Refused(Failure),
}

impl Replicas {
    /// Appends the command; it has one reply. The limit is less than `patience`, for which the reply is waited for.
    pub(super) fn write(self, patience: Duration, out: &mut Vec<u8>) {
        // 0 would mean no limit.
        let limit_ms = LIMIT.min(patience / 2).as_millis().max(1);
        command(out, &["WAIT", &self.0.to_string(), &limit_ms.to_string()]);
    }

    /// Whether so many have confirmed.
    pub(super) fn are_enough(self, confirmed: Option<&Confirmed>) -> bool {
        matches!(confirmed, Some(Confirmed::By(replicas)) if *replicas >= self.0)
    }
}

impl Confirmed {
    /// Reads the reply.
    pub(super) fn of(reply: Value) -> Confirmed {
        match reply {
            Value::Int(replicas) => Confirmed::By(u32::try_from(replicas).unwrap_or(0)),
            other => match other.extract_error() {
                Err(error) => Confirmed::Refused(Failure::new(error)),
                Ok(_) => Confirmed::Refused(Failure::of_reply(b"ERR WAIT was not answered with a number")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::refusal::Refusal;

    #[test]
    fn the_limit_is_below_the_patience() {
        let written = |patience| {
            let mut out = Vec::new();
            Replicas(2).write(Duration::from_millis(patience), &mut out);
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!(written(10_000), "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n500\r\n");
        assert!(written(300).contains("\r\n150\r\n"));
        assert!(written(1).contains("\r\n1\r\n"), "never without a limit");
    }

    #[test]
    fn the_reply_is_a_number() {
        let refused = redis::parse_redis_value(b"-NOPERM no\r\n").expect("an error");
        assert!(matches!(Confirmed::of(Value::Int(2)), Confirmed::By(2)));
        let right = |failure: &Failure| failure.refusal() == Some(Refusal::Right);
        assert!(matches!(Confirmed::of(refused), Confirmed::Refused(failure) if right(&failure)));
        assert!(matches!(Confirmed::of(Value::Nil), Confirmed::Refused(_)));
    }
}
