//! Whether a consumer can work: begin on the messages it receives, and record their results.
//!
//! Pure; a part of the desks' state. A consumer is *unable* while every handler thread runs a handler that was given
//! up, while the handler says that it is not ready, or once Redis has failed for a time limit to store results, and
//! that for all lanes. A lane whose own Redis fails that long takes no messages, while the others go on. Guarantee:
//! each change is returned once, so it is logged once. After a recovery, Redis must fail for the whole limit again, so
//! a flapping Redis doesn't make the consumer flap.

use std::time::{Duration, Instant};

use crate::consumer::error::SettingName;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ability {
    /// Why the handler is not ready, and when it last said so.
    not_ready: Option<(String, Instant)>,
    unable: Option<(Unable, Instant)>,
}

/// Whether the Redis of one lane stores results.
#[derive(Debug)]
pub(super) struct RedisSilence {
    limit: Duration,
    /// Since when Redis has not answered the committer; `None` while it answers.
    since: Option<Instant>,
    /// Since when the lane takes no messages for that.
    unable: Option<Instant>,
}

/// What has changed for one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceChange {
    /// It takes no messages from now on.
    Begun,
    /// It does again, after this long.
    Ended(Duration),
}

impl RedisSilence {
    /// Redis may fail for `limit` before anything changes.
    pub(super) fn new(limit: Duration) -> RedisSilence {
        RedisSilence { limit, since: None, unable: None }
    }

    pub(super) fn is_unable(&self) -> bool {
        self.unable.is_some()
    }

    /// A request to Redis failed; `since` is when it was first made.
    pub(super) fn redis_fails(&mut self, since: Instant) {
        self.since.get_or_insert(since);
    }

    /// Redis answers the committer again.
    pub(super) fn redis_answers(&mut self) {
        self.since = None;
    }

    /// Redis has answered another thread. The committer will soon notice, so the limit starts anew.
    pub(super) fn redis_was_heard(&mut self, now: Instant) {
        if let Some(since) = &mut self.since {
            *since = now;
        }
    }

    /// Decides whether the lane takes messages now, and returns a change.
    pub(super) fn judge(&mut self, now: Instant) -> Option<SilenceChange> {
        let silent = self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.limit);
        match (self.unable, silent) {
            (None, true) => {
                self.unable = Some(now);
                Some(SilenceChange::Begun)
            }
            (Some(since), false) => {
                self.unable = None;
                Some(SilenceChange::Ended(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }
}

/// Why a consumer can't work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unable {
    /// No handler thread is left.
    Handlers,
    /// The handler is not ready, for this reason.
    NotReady(String),
    /// Redis does not store results.
    Redis,
}

impl Unable {
    /// What is wrong, and which settings it is about.
    pub(super) fn reason(&self, called: SettingName) -> String {
        match self {
            Unable::Handlers => format!(
                "all handler threads are running handlers that were given up after {}: find out why they hang, or \
                 raise {}",
                called("handler_timeout"),
                called("concurrency")
            ),
            Unable::NotReady(reason) => format!("the handler is not ready: {reason}"),
            Unable::Redis => format!("Redis ({}) does not store results; see the log", called("redis_url")),
        }
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The consumer has become unable to work.
    Begun(Unable),
    /// The consumer can work again, after this long.
    Ended(Unable, Duration),
}

impl Ability {
    pub(super) fn is_unable(&self) -> bool {
        self.unable.is_some()
    }

    /// The handler's answer to the question whether it is ready, which was asked at `asked`. If a run has found since
    /// then that it is not, the answer is out of date.
    pub(super) fn handler_says(&mut self, ready: Result<(), String>, asked: Instant) {
        match ready {
            Err(reason) => self.not_ready = Some((reason, asked)),
            Ok(()) => {
                self.not_ready.take_if(|(_, since)| *since <= asked);
            }
        }
    }

    /// Decides whether the consumer can work now, and returns a change. `silent`: no lane's Redis stores results.
    pub(super) fn judge(&mut self, is_stuck: bool, silent: bool, now: Instant) -> Option<Change> {
        let reason = match &self.not_ready {
            _ if is_stuck => Some(Unable::Handlers),
            Some((reason, _)) => Some(Unable::NotReady(reason.clone())),
            None => silent.then_some(Unable::Redis),
        };
        match (self.unable.take(), reason) {
            (None, Some(reason)) => {
                self.unable = Some((reason.clone(), now));
                Some(Change::Begun(reason))
            }
            (Some((reason, since)), None) => Some(Change::Ended(reason, now.saturating_duration_since(since))),
            (unable, _) => {
                self.unable = unable;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn the_limit_for_redis_starts_anew_with_each_failure() {
        let (mut silence, start) = (RedisSilence::new(LIMIT), Instant::now());
        assert_eq!(silence.judge(start + 2 * LIMIT), None, "it has nothing to ask");
        silence.redis_fails(start);
        // Later attempts change nothing.
        silence.redis_fails(start + LIMIT / 2);
        assert_eq!(silence.judge(start + LIMIT - Duration::from_millis(1)), None);
        assert_eq!(silence.judge(start + LIMIT), Some(SilenceChange::Begun));
        assert_eq!(silence.judge(start + 2 * LIMIT), None);
        silence.redis_answers();
        assert_eq!(silence.judge(start + 3 * LIMIT), Some(SilenceChange::Ended(2 * LIMIT)));
        silence.redis_fails(start + 3 * LIMIT);
        assert_eq!(silence.judge(start + 3 * LIMIT + LIMIT / 2), None);
        silence.redis_was_heard(start + 4 * LIMIT);
        assert_eq!(silence.judge(start + 4 * LIMIT), None);
        assert_eq!(silence.judge(start + 5 * LIMIT), Some(SilenceChange::Begun));
        silence.redis_answers();
        silence.redis_was_heard(start + 5 * LIMIT);
        assert_eq!(silence.judge(start + 6 * LIMIT), Some(SilenceChange::Ended(LIMIT)), "it was not in trouble");
    }

    #[test]
    fn an_answer_from_before_a_refusal_is_out_of_date() {
        let (mut ability, start) = (Ability::default(), Instant::now());
        let later = start + Duration::from_millis(1);
        let no = || Err("nothing listens".to_owned());
        let why = Unable::NotReady("nothing listens".to_owned());
        ability.handler_says(no(), later);
        ability.handler_says(Ok(()), start);
        assert_eq!(ability.judge(false, false, later), Some(Change::Begun(why.clone())));
        ability.handler_says(no(), later + LIMIT);
        assert_eq!(ability.judge(false, false, later + LIMIT), None, "it is known");
        ability.handler_says(Ok(()), later + LIMIT);
        assert_eq!(ability.judge(false, false, later + LIMIT), Some(Change::Ended(why, LIMIT)));
    }

    #[test]
    fn it_is_able_again_only_after_both_have_recovered() {
        let (mut ability, now) = (Ability::default(), Instant::now());
        assert_eq!(ability.judge(true, false, now), Some(Change::Begun(Unable::Handlers)));
        assert_eq!(ability.judge(false, true, now + LIMIT), None);
        assert!(ability.is_unable());
        let ended = Change::Ended(Unable::Handlers, LIMIT);
        assert_eq!(ability.judge(false, false, now + LIMIT), Some(ended));
    }
}
