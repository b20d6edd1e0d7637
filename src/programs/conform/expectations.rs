//! What a step waits for, except answers: READY and HELD, PROGRESS, ERROR, the end of a connection, and what Redis has
//! recorded.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::case::{Local, TextRule};
use super::heard::{Answer, Heard};
use super::report::{Failure, Stop};
use super::stage::Stage;
use crate::wire::{ErrorCode, ReadyFlags};

/// How long a dispatcher waits for READY and HELD, from the connection on.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a consumer may take to name what it holds: a second if its library hides pings, and half a second more.
const PROGRESS_WITHIN: Duration = Duration::from_millis(1_500);
/// The longest consumer id, in bytes.
const MAX_CONSUMER_ID_BYTES: usize = 256;

impl Stage<'_> {
    /// Waits for READY and HELD, as long as a dispatcher would.
    pub(super) fn expect_greeting(&mut self, name: &str, held: &[Local], may_hold: &[Local]) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let left = GREETING_TIMEOUT.saturating_sub(self.link(name).since.elapsed());
        let listed = self.wait(left, |stage| {
            let held = |heard: &Heard| if let Heard::Held(ids) = heard { Some(ids.clone()) } else { None };
            let listed = stage.first(name, held)?;
            stage.first(name, |heard| matches!(heard, Heard::Ready { .. }).then_some(()))?;
            Some(listed)
        })?;
        let Some(listed) = listed else {
            let expected = format!("READY and HELD within {} s of the connection", GREETING_TIMEOUT.as_secs());
            return Err(Failure::new(expected, self.since(begin, name)).into());
        };
        let listed: BTreeSet<u64> = listed.into_iter().filter(|id| self.ids.values().any(|own| own == id)).collect();
        let must: BTreeSet<u64> = held.iter().map(|local| self.ids[local]).collect();
        let may: BTreeSet<u64> = may_hold.iter().map(|local| self.ids[local]).collect();
        // A consumer with version 1 may keep the results that it has sent for a while.
        let kept = |id: &u64| !self.confirmed.contains(id) && self.sent_result(*id);
        let missing: Vec<u64> = must.difference(&listed).copied().collect();
        let surplus: Vec<u64> =
            listed.iter().filter(|id| !must.contains(id) && !may.contains(id) && !kept(id)).copied().collect();
        if missing.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        let got = match missing.is_empty() {
            true => format!("HELD that also lists {surplus:?}, which the consumer does not hold"),
            false => format!("HELD without {missing:?}, which the consumer holds"),
        };
        Err(Failure::new(format!("HELD ids={:?}, of the case's messages", Vec::from_iter(must)), got).into())
    }

    pub(super) fn check_ready(&self, name: &str) -> Result<(), Stop> {
        let ready = self.entries.iter().find_map(|entry| match &entry.heard {
            Heard::Ready { prefetch, flags, consumer } if entry.link == name => Some((*prefetch, *flags, consumer)),
            _ => None,
        });
        let Some((prefetch, flags, consumer)) = ready else { return Err(Failure::new("READY", "none").into()) };
        let plain = !consumer.chars().any(|c| c.is_whitespace() || c.is_control());
        let expected = if !plain || !(1..=MAX_CONSUMER_ID_BYTES).contains(&consumer.len()) {
            "a consumer id of 1 to 256 bytes without spaces and control characters"
        } else if prefetch == 0 {
            "a prefetch of at least 1 for a consumer under test"
        } else if flags > ReadyFlags::ALL.0 {
            "flag bits 3 to 7 clear"
        } else {
            return Ok(());
        };
        Err(Failure::new(expected, format!("READY prefetch={prefetch} flags={flags} consumer={consumer:?}")).into())
    }

    fn sent_result(&self, wanted: u64) -> bool {
        let is_it = |heard: &Heard| matches!(heard, Heard::Answer { id, answer: Answer::Result(_) } if *id == wanted);
        self.entries.iter().any(|entry| is_it(&entry.heard))
    }

    pub(super) fn expect_pong(&mut self, name: &str) -> Result<(), Stop> {
        let said = format!("ping {}", self.transcript.len()).into_bytes();
        self.send(name, |peer| peer.ping(said.clone()))?;
        let begin = self.transcript.len();
        let pong = self.wait(self.target.timeout, |stage| stage.link(name).pongs.contains(&said).then_some(()))?;
        match pong {
            Some(()) => Ok(()),
            None => {
                Err(Failure::new(format!("a pong on {name} with what the ping said"), self.since(begin, name)).into())
            }
        }
    }

    pub(super) fn expect_progress(&mut self, name: &str, locals: &[Local]) -> Result<(), Stop> {
        // What came before counts no more.
        while self.first(name, |heard| matches!(heard, Heard::Progress(_)).then_some(())).is_some() {}
        let mut missing: BTreeSet<u64> = locals.iter().map(|local| self.ids[local]).collect();
        let begin = self.transcript.len();
        let all = self.wait(PROGRESS_WITHIN, |stage| {
            let ids = |heard: &Heard| if let Heard::Progress(ids) = heard { Some(ids.clone()) } else { None };
            while let Some(ids) = stage.first(name, ids) {
                missing.retain(|id| !ids.contains(id));
            }
            missing.is_empty().then_some(())
        })?;
        match all {
            Some(()) => Ok(()),
            None => {
                let expected = format!("PROGRESS for {missing:?} within {} ms", PROGRESS_WITHIN.as_millis());
                Err(Failure::new(expected, self.since(begin, name)).into())
            }
        }
    }

    pub(super) fn expect_silence(&mut self, name: &str, limit: Duration) -> Result<(), Stop> {
        let own: BTreeSet<u64> = self.ids.values().copied().collect();
        let disturbs = |heard: &Heard| match heard {
            Heard::Progress(_) => None,
            // A result of an earlier case may be sent again.
            Heard::Answer { id, .. } if !own.contains(id) => None,
            other => Some(format!("{other:?}")),
        };
        let disturbed = self.wait(limit, |stage| stage.first(name, disturbs).or(stage.link(name).ended.clone()))?;
        match disturbed {
            None => Ok(()),
            Some(got) => Err(Failure::new(format!("nothing on {name} for {} ms", limit.as_millis()), got).into()),
        }
    }

    pub(super) fn expect_error(&mut self, name: &str, codes: &[u16], bare: bool, text: TextRule) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let came = self.wait(self.target.timeout, |stage| {
            let error = stage.first(name, |heard| match heard {
                Heard::Error { code, text } => Some(Some((*code, text.clone()))),
                _ => None,
            });
            error.or_else(|| stage.link(name).ended.is_some().then_some(None))
        })?;
        let expected = format!("ERROR code={codes:?} on {name}, and the end of the connection");
        // Where PROOF is expected, what else is wrong need not be found.
        let unproven = self.link(name).awaits_proof.then_some(ErrorCode::NotAuthenticated.code());
        match came {
            Some(Some((code, said))) if codes.contains(&code) || unproven == Some(code) => {
                if let Some(expected) = self.breaks(text, &said) {
                    return Err(Failure::new(expected, format!("ERROR code={code} text={said:?}")).into());
                }
                self.expect_end(name)
            }
            Some(None) if bare => Ok(()),
            _ => Err(Failure::new(expected, self.since(begin, name)).into()),
        }
    }

    /// What the text of an ERROR should have been, if it is not.
    fn breaks(&self, rule: TextRule, said: &str) -> Option<String> {
        let seen = |more| format!("seen {}: ", self.epoch + more);
        match rule {
            TextRule::Free => None,
            TextRule::Seen(more) if said.starts_with(&seen(more)) => None,
            TextRule::Seen(more) => Some(format!("an ERROR whose text begins with {:?}", seen(more))),
            TextRule::NotSeen if !said.starts_with("seen ") => None,
            TextRule::NotSeen => Some("an ERROR whose text does not begin with \"seen \"".to_owned()),
        }
    }

    pub(super) fn expect_end(&mut self, name: &str) -> Result<(), Stop> {
        let begin = self.transcript.len();
        match self.wait(self.target.timeout, |stage| stage.link(name).ended.is_some().then_some(()))? {
            Some(()) => Ok(()),
            None => Err(Failure::new(format!("the end of the connection {name}"), self.since(begin, name)).into()),
        }
    }

    pub(super) fn expect_drain(&mut self, name: &str) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let drain = |heard: &Heard| matches!(heard, Heard::Drain).then_some(());
        match self.wait(self.target.timeout, |stage| stage.first(name, drain))? {
            Some(()) => Ok(()),
            None => Err(Failure::new(format!("DRAIN on {name}"), self.since(begin, name)).into()),
        }
    }

    pub(super) fn expect_recorded(&mut self, local: Local) -> Result<(), Stop> {
        let (id, unique) = (self.ids[&local], self.unique(local));
        let deadline = Instant::now() + self.target.timeout;
        loop {
            let (pending, counted) = self.group.is_pending(id)?;
            let results = self.group.results_of(&unique)?;
            if (pending, counted, results) == (false, false, 1) {
                return Ok(());
            }
            if results > 1 || Instant::now() >= deadline {
                let got = format!("{results} results; pending: {pending}; a field in <group>:attempts: {counted}");
                return Err(
                    Failure::new(format!("one result of {id} in <group>:processed, and nothing left"), got).into()
                );
            }
            self.wait(Duration::from_millis(50), |_| None::<()>)?;
        }
    }

    pub(super) fn expect_not_recorded(&mut self, local: Local) -> Result<(), Stop> {
        let id = self.ids[&local];
        match self.group.results_of(&self.unique(local))? {
            0 => Ok(()),
            count => Err(Failure::new(format!("no result of {id}"), format!("{count} in <group>:processed")).into()),
        }
    }
}
