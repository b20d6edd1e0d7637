//! Whether a consumer can work: begin on the messages it receives, and record their results.
//!
//! Pure; a part of the desk's state. A consumer is *unable* while every handler thread runs a handler that was given
//! up, while the handler says that it is not ready, or once Redis has failed to store results for a time limit.
//! Guarantee: each change is returned once, so it is logged once. After a recovery, Redis must fail for the whole limit
//! again, so a flapping Redis doesn't make the consumer flap.

use std::time::{Duration, Instant};

use crate::consumer::error::SettingName;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ability {
    redis_limit: Duration,
    /// Since when Redis has not answered the committer; `None` while it answers.
    silent_since: Option<Instant>,
    /// Why the handler is not ready, and when it last said so.
    not_ready: Option<(String, Instant)>,
    unable: Option<(Unable, Instant)>,
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
    /// A consumer that can work. Redis may fail for `redis_limit` before that changes.
    pub(super) fn new(redis_limit: Duration) -> Ability {
        Ability { redis_limit, silent_since: None, not_ready: None, unable: None }
    }

    pub(super) fn is_unable(&self) -> bool {
        self.unable.is_some()
    }

    /// A request to Redis failed; `since` is when it was first made.
    pub(super) fn redis_fails(&mut self, since: Instant) {
        self.silent_since.get_or_insert(since);
    }

    /// Redis answers the committer again.
    pub(super) fn redis_answers(&mut self) {
        self.silent_since = None;
    }

    /// Redis has answered another thread. The committer will soon notice, so the limit starts anew.
    pub(super) fn redis_was_heard(&mut self, now: Instant) {
        if let Some(since) = &mut self.silent_since {
            *since = now;
        }
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

    /// Decides whether the consumer can work now, and returns a change.
    pub(super) fn judge(&mut self, is_stuck: bool, now: Instant) -> Option<Change> {
        let silent = self.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= self.redis_limit);
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
        let (mut ability, start) = (Ability::new(LIMIT), Instant::now());
        assert_eq!(ability.judge(false, start + 2 * LIMIT), None, "it has nothing to ask");
        ability.redis_fails(start);
        // Later attempts change nothing.
        ability.redis_fails(start + LIMIT / 2);
        assert_eq!(ability.judge(false, start + LIMIT - Duration::from_millis(1)), None);
        assert_eq!(ability.judge(false, start + LIMIT), Some(Change::Begun(Unable::Redis)));
        assert_eq!(ability.judge(false, start + 2 * LIMIT), None);
        ability.redis_answers();
        assert_eq!(ability.judge(false, start + 3 * LIMIT), Some(Change::Ended(Unable::Redis, 2 * LIMIT)));
        ability.redis_fails(start + 3 * LIMIT);
        assert_eq!(ability.judge(false, start + 3 * LIMIT + LIMIT / 2), None);
        ability.redis_was_heard(start + 4 * LIMIT);
        assert_eq!(ability.judge(false, start + 4 * LIMIT), None);
        assert_eq!(ability.judge(false, start + 5 * LIMIT), Some(Change::Begun(Unable::Redis)));
    }

    #[test]
    fn an_answer_from_before_a_refusal_is_out_of_date() {
        let (mut ability, start) = (Ability::new(LIMIT), Instant::now());
        let later = start + Duration::from_millis(1);
        let no = || Err("nothing listens".to_owned());
        let why = Unable::NotReady("nothing listens".to_owned());
        ability.handler_says(no(), later);
        ability.handler_says(Ok(()), start);
        assert_eq!(ability.judge(false, later), Some(Change::Begun(why.clone())));
        ability.handler_says(no(), later + LIMIT);
        assert_eq!(ability.judge(false, later + LIMIT), None, "it is known");
        ability.handler_says(Ok(()), later + LIMIT);
        assert_eq!(ability.judge(false, later + LIMIT), Some(Change::Ended(why, LIMIT)));
    }

    #[test]
    fn it_is_able_again_only_after_both_have_recovered() {
        let (mut ability, now) = (Ability::new(LIMIT), Instant::now());
        assert_eq!(ability.judge(true, now), Some(Change::Begun(Unable::Handlers)));
        ability.redis_fails(now);
        assert_eq!(ability.judge(false, now + LIMIT), None);
        assert!(ability.is_unable());
        ability.redis_answers();
        assert_eq!(ability.judge(false, now + LIMIT), Some(Change::Ended(Unable::Handlers, LIMIT)));
        ability.redis_was_heard(now + LIMIT);
        assert_eq!(ability.judge(false, now + 3 * LIMIT), None, "it was not in trouble");
    }
}
