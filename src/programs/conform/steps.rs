//! Executes the steps of a case. Each has a deadline.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::body::body;
use super::case::{Amount, Case, Channel, Deliver, Local, Packing, Step, TextRule};
use super::handshake::{HandshakeError, Offer};
use super::heard::{Answer, Heard};
use super::peer::{ConnectError, Peer};
use super::report::{Failure, Stop};
use super::stage::{Greeting, Stage};
use crate::base::id::{Epoch, MessageId};
use crate::wire::{Frame, ReadyFlags, SUBPROTOCOL_1, SUBPROTOCOL_2};

/// What a dispatcher offers.
const OFFER: [&str; 2] = [SUBPROTOCOL_1, SUBPROTOCOL_2];
/// How long a dispatcher waits for READY and HELD, from the connection on.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a consumer may take to name what it holds: a second if its library hides pings, and half a second more.
const PROGRESS_WITHIN: Duration = Duration::from_millis(1_500);
/// The longest consumer id, in bytes.
const MAX_CONSUMER_ID_BYTES: usize = 256;
/// The most messages of a step that delivers as many as the prefetch.
const MOST_MESSAGES: u32 = 5_000;
/// What a dispatcher says of itself.
const HELLO: &str =
    concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#"","link_timeout_ms":3000,"max_deliveries":8,"lane":""}"#);

impl Stage<'_> {
    /// Executes a step of this case.
    pub(super) fn execute(&mut self, case: &Case, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Connect { link, origin, offer, refused } => {
                self.expect_connection(link, origin.as_deref(), offer.as_deref(), refused)
            }
            Step::Lead { link, epoch, group, elect, hello } => {
                let hello = hello.as_deref().unwrap_or(HELLO);
                self.lead(link, self.epoch + epoch, group.as_deref(), *elect, hello)
            }
            Step::Greeted { link, held, may_hold } => self.expect_greeting(link, held, may_hold),
            Step::ReadyForm { link } => self.check_ready(link),
            Step::Deliver(deliver) => self.deliver(case, deliver),
            Step::Send { link, bytes } => {
                self.note_sent(link, bytes);
                Ok(self.send(link, |peer| peer.send(bytes.clone()))?)
            }
            Step::SendZeros { link, count } => {
                self.note(format!("{link} D→C a message of {count} zeros"));
                // The consumer may close the connection before it has read all of them.
                let _ = self.send(link, |peer| peer.send(vec![0; *count]));
                Ok(())
            }
            Step::SendText { link, text } => {
                self.note(format!("{link} D→C the text message {text:?}"));
                Ok(self.send(link, |peer| peer.send_text(text))?)
            }
            Step::SendRaw { link, bytes } => {
                self.note(format!("{link} D→C the bytes {bytes:02x?} below the WebSocket"));
                Ok(self.send(link, |peer| peer.send_raw(bytes))?)
            }
            Step::Ping { link } => self.expect_pong(link),
            Step::Answer { link, amount, wanted } => {
                let locals = self.locals(amount);
                self.expect_answers(case, link, &locals, wanted)
            }
            Step::AnswerOrError { link, amount, code } => {
                let locals = self.locals(amount);
                self.expect_answers_or_error(case, link, &locals, *code)
            }
            Step::NoAnswer { ids, ms } => self.expect_no_answer(ids, Duration::from_millis(*ms)),
            Step::Progress { link, ids, times } => (0..*times).try_for_each(|_| self.expect_progress(link, ids)),
            Step::Silence { link, ms } => self.expect_silence(link, Duration::from_millis(*ms)),
            Step::Error { link, codes, bare, text } => self.expect_error(link, codes, *bare, *text),
            Step::End { link } => self.expect_end(link),
            Step::Drain { link } => self.expect_drain(link),
            Step::Confirm { link, ids, is_ignored } => {
                let ids: Vec<u64> = ids.iter().map(|local| self.ids[local]).collect();
                match is_ignored {
                    true => {
                        let frame = Frame::Recorded(ids.into_iter().map(MessageId).collect()).to_vec();
                        self.note_sent(link, &frame);
                        // The consumer may have closed the connection already.
                        let _ = self.send(link, |peer| peer.send(frame));
                        Ok(())
                    }
                    false => Ok(self.confirm(link, &ids)?),
                }
            }
            Step::Drop { link } => {
                self.note(format!("{link} closed by the dispatcher"));
                self.link(link).peer = None;
                Ok(())
            }
            Step::Freeze { link } => {
                self.link(link).frozen = true;
                Ok(())
            }
            Step::Wait { ms } => Ok(self.wait(Duration::from_millis(*ms), |_| None::<()>).map(drop)?),
            Step::Elect { epoch } => Ok(self.group.elect(epoch.map(|epoch| self.epoch + epoch))?),
            Step::Recorded { id } => self.expect_recorded(*id),
            Step::NotRecorded { id } => self.expect_not_recorded(*id),
            Step::Terminate => self.terminate(),
        }
    }

    fn expect_connection(
        &mut self,
        name: &str,
        origin: Option<&str>,
        offer: Option<&[String]>,
        refused: &[u16],
    ) -> Result<(), Stop> {
        let words: Option<Vec<&str>> = offer.map(|words| words.iter().map(String::as_str).collect());
        let offer = Offer { origin, protocols: words.as_deref().unwrap_or(&OFFER) };
        let with = origin.map(|origin| format!(" with the header Origin: {origin}")).unwrap_or_default();
        let expected = match refused {
            [] => "a WebSocket connection".to_owned(),
            statuses => format!("the handshake{with} to be refused with status {statuses:?}"),
        };
        match (self.connect(name, &offer), refused) {
            (Ok(()), []) => Ok(()),
            (Ok(()), _) => Err(Failure::new(expected, "a connection").into()),
            (Err(ConnectError::Handshake(HandshakeError::Status(status))), statuses) if statuses.contains(&status) => {
                Ok(())
            }
            (Err(error), _) => Err(Failure::new(expected, error.to_string()).into()),
        }
    }

    pub(super) fn lead(
        &mut self,
        name: &str,
        epoch: u64,
        group: Option<&str>,
        elect: bool,
        hello: &str,
    ) -> Result<(), Stop> {
        if elect {
            self.group.elect(Some(epoch))?;
        }
        let group = group.map_or_else(|| self.target.group.clone(), str::to_owned);
        let mut message = Frame::Lead { epoch: Epoch(epoch), group: &group }.to_vec();
        let link = self.link(name);
        if link.is_version_2() {
            Frame::Hello(hello).encode(&mut message);
        }
        if link.greeting == Greeting::NotLed {
            link.greeting = Greeting::Led;
        }
        self.note_sent(name, &message);
        Ok(self.send(name, |peer| peer.send(message))?)
    }

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

    fn check_ready(&self, name: &str) -> Result<(), Stop> {
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
        } else if flags > ReadyFlags::COMMITS.and(ReadyFlags::CHANNELS).0 {
            "flag bits 2 to 7 clear"
        } else {
            return Ok(());
        };
        Err(Failure::new(expected, format!("READY prefetch={prefetch} flags={flags} consumer={consumer:?}")).into())
    }

    fn sent_result(&self, wanted: u64) -> bool {
        let is_it = |heard: &Heard| matches!(heard, Heard::Answer { id, answer: Answer::Result(_) } if *id == wanted);
        self.entries.iter().any(|entry| is_it(&entry.heard))
    }

    /// The messages that a step means.
    fn locals(&self, amount: &Amount) -> Vec<Local> {
        match amount {
            Amount::These(locals) => locals.clone(),
            Amount::Prefetch(more) => (1..=self.target.facts.prefetch.clamp(1, MOST_MESSAGES) + more).collect(),
        }
    }

    fn deliver(&mut self, case: &Case, how: &Deliver) -> Result<(), Stop> {
        let channel = how.channel.as_ref().map(|channel| match channel {
            Channel::Text(text) => text.clone().into_bytes(),
            Channel::Bytes(count) => vec![0xff; *count],
        });
        let (name, delivery) = (&how.link, how.delivery);
        let mut frames = Vec::new();
        for local in self.locals(&how.amount) {
            if !self.ids.contains_key(&local) {
                let id = self.target.next_id();
                self.ids.insert(local, id);
            }
            let id = self.ids[&local];
            let payload = body(&case.bodies.get(&local).cloned().unwrap_or_default(), &self.unique(local));
            if how.pend {
                self.group.pend(id, &payload, delivery)?;
            }
            let id = MessageId(id);
            let bytes = match &channel {
                None => Frame::Process { id, delivery, body: &payload }.to_vec(),
                Some(channel) => {
                    let (channel_bytes, joined) = (channel.len() as u16, [&channel[..], &payload].concat());
                    Frame::Deliver { id, delivery, channel_bytes, joined: &joined }.to_vec()
                }
            };
            self.note_sent(name, &bytes);
            frames.push(bytes);
        }
        match self.send(name, |peer| send_packed(peer, frames, how.packing)) {
            Err(_) if how.may_fail => Ok(()),
            sent => Ok(sent?),
        }
    }

    fn expect_pong(&mut self, name: &str) -> Result<(), Stop> {
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

    fn expect_progress(&mut self, name: &str, locals: &[Local]) -> Result<(), Stop> {
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

    fn expect_silence(&mut self, name: &str, limit: Duration) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let disturbed = self.wait(limit, |stage| {
            let ended = stage.link(name).ended.is_some();
            let frame = stage.first(name, |heard| (!matches!(heard, Heard::Progress(_))).then_some(()));
            frame.or(ended.then_some(()))
        })?;
        match disturbed {
            None => Ok(()),
            Some(()) => {
                let expected = format!("nothing on {name} for {} ms", limit.as_millis());
                Err(Failure::new(expected, self.since(begin, name)).into())
            }
        }
    }

    fn expect_error(&mut self, name: &str, codes: &[u16], bare: bool, text: TextRule) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let came = self.wait(self.target.timeout, |stage| {
            let error = stage.first(name, |heard| match heard {
                Heard::Error { code, text } => Some(Some((*code, text.clone()))),
                _ => None,
            });
            error.or_else(|| stage.link(name).ended.is_some().then_some(None))
        })?;
        let expected = format!("ERROR code={codes:?} on {name}, and the end of the connection");
        match came {
            Some(Some((code, said))) if codes.contains(&code) => {
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

    fn expect_drain(&mut self, name: &str) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let drain = |heard: &Heard| matches!(heard, Heard::Drain).then_some(());
        match self.wait(self.target.timeout, |stage| stage.first(name, drain))? {
            Some(()) => Ok(()),
            None => Err(Failure::new(format!("DRAIN on {name}"), self.since(begin, name)).into()),
        }
    }

    fn expect_recorded(&mut self, local: Local) -> Result<(), Stop> {
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

    fn expect_not_recorded(&mut self, local: Local) -> Result<(), Stop> {
        let id = self.ids[&local];
        match self.group.results_of(&self.unique(local))? {
            0 => Ok(()),
            count => Err(Failure::new(format!("no result of {id}"), format!("{count} in <group>:processed")).into()),
        }
    }

    fn terminate(&mut self) -> Result<(), Stop> {
        let Some(pid) = self.target.pid else { return Ok(()) };
        self.note(format!("SIGTERM to the process {pid}"));
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .map_err(|error| Failure::new(format!("the process {pid} to be there"), error.to_string()).into())
    }
}

fn send_packed(peer: &mut Peer, frames: Vec<Vec<u8>>, packing: Packing) -> Result<(), String> {
    match packing {
        Packing::Together => peer.send(frames.concat()),
        Packing::Apart => frames.into_iter().try_for_each(|frame| peer.send(frame)),
        Packing::Fragments(count) => peer.send_fragments(&frames.concat(), count),
        Packing::Split => {
            let whole = frames.concat();
            let (first, second) = whole.split_at(whole.len() / 2);
            peer.send(first.to_vec())?;
            // The consumer may have closed the connection already.
            let _ = peer.send(second.to_vec());
            Ok(())
        }
    }
}
