//! Executes the steps of a case. Each has a deadline.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::body::body;
use super::case::{Amount, Case, Channel, Deliver, Local, NonceRule, Packing, Payload, ProofRule, Step};
use super::handshake::{HandshakeError, Offer};
use super::link::Greeting;
use super::peer::{ConnectError, Peer};
use super::report::{Failure, Stop};
use super::stage::Stage;
use crate::base::id::{Epoch, MessageId};
use crate::wire::{Frame, SUBPROTOCOL_1, SUBPROTOCOL_2};

/// What a dispatcher offers.
const OFFER: [&str; 2] = [SUBPROTOCOL_1, SUBPROTOCOL_2];
/// The most messages of a step that delivers as many as the prefetch.
const MOST_MESSAGES: u32 = 5_000;
/// What a dispatcher says of itself.
const HELLO: &str =
    concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#"","link_timeout_ms":3000,"max_deliveries":8,"lane":""}"#);

impl Stage<'_> {
    /// Executes a step of this case.
    pub(super) fn execute(&mut self, case: &Case, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Connect { link, origin, offer, nonce, refused } => {
                self.expect_connection(link, origin.as_deref(), offer.as_deref(), nonce, refused)
            }
            Step::Lead { link, epoch, group, elect, hello, proof } => {
                if *elect {
                    self.group.elect(Some(self.epoch + epoch))?;
                }
                self.lead(link, self.epoch + epoch, group.as_deref(), hello.as_deref().unwrap_or(HELLO), proof)
            }
            Step::Proofs { link } => self.expect_proofs(link),
            Step::Replay { link, of } => self.replay(link, of),
            Step::Greeted { link, held, may_hold } => self.expect_greeting(link, held, may_hold),
            Step::ReadyForm { link } => self.check_ready(link),
            Step::Deliver(deliver) => self.deliver(case, deliver),
            Step::Send { link, payload } => self.send_odd(link, payload),
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
                if *is_ignored { self.confirm_in_vain(link, &ids) } else { Ok(self.confirm(link, &ids)?) }
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

    /// Sends what no dispatcher sends.
    fn send_odd(&mut self, name: &str, payload: &Payload) -> Result<(), Stop> {
        match payload {
            Payload::Binary(bytes) => self.note_sent(name, bytes),
            Payload::Zeros(count) => self.note(format!("{name} D→C a message of {count} zeros")),
            Payload::Text(text) => self.note(format!("{name} D→C the text message {text:?}")),
            Payload::Raw(bytes) => self.note(format!("{name} D→C the bytes {bytes:02x?} below the WebSocket")),
        }
        let sent = self.send(name, |peer| match payload {
            Payload::Binary(bytes) => peer.send(bytes.clone()),
            Payload::Zeros(count) => peer.send(vec![0; *count]),
            Payload::Text(text) => peer.send_text(text),
            Payload::Raw(bytes) => peer.send_raw(bytes),
        });
        // The consumer may close the connection before it has read all of them.
        if matches!(payload, Payload::Zeros(_)) { Ok(()) } else { Ok(sent?) }
    }

    /// Sends RECORDED on a connection that is not active, and may be closed.
    fn confirm_in_vain(&mut self, name: &str, ids: &[u64]) -> Result<(), Stop> {
        let frame = Frame::Recorded(ids.iter().copied().map(MessageId).collect()).to_vec();
        self.note_sent(name, &frame);
        let _ = self.send(name, |peer| peer.send(frame));
        Ok(())
    }

    fn expect_connection(
        &mut self,
        name: &str,
        origin: Option<&str>,
        offer: Option<&[String]>,
        nonce: &NonceRule,
        refused: &[u16],
    ) -> Result<(), Stop> {
        let words: Option<Vec<&str>> = offer.map(|words| words.iter().map(String::as_str).collect());
        let nonce = self.nonce(nonce);
        let offer = Offer { origin, protocols: words.as_deref().unwrap_or(&OFFER), nonce };
        let with = origin.map(|origin| format!(" with the header Origin: {origin}")).unwrap_or_default();
        let expected = match refused {
            [] => "a WebSocket connection".to_owned(),
            statuses => format!("the handshake{with} to be refused with status {statuses:?}"),
        };
        match (self.connect(name, &offer), refused) {
            (Ok(()), []) => Ok(self.check_answer(name)?),
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
        hello: &str,
        proof: &ProofRule,
    ) -> Result<(), Stop> {
        let group = group.map_or_else(|| self.target.group.clone(), str::to_owned);
        let mut message = self.proof(name, Epoch(epoch), &group, proof);
        Frame::Lead { epoch: Epoch(epoch), group: &group }.encode(&mut message);
        let link = self.link(name);
        if link.is_version_2() {
            Frame::Hello(hello).encode(&mut message);
        }
        if link.greeting == Greeting::NotLed {
            link.greeting = Greeting::Led;
        }
        self.note_sent(name, &message);
        self.record(name, &message);
        Ok(self.send(name, |peer| peer.send(message))?)
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
            self.record(name, &bytes);
            frames.push(bytes);
        }
        match self.send(name, |peer| send_packed(peer, frames, how.packing)) {
            Err(_) if how.may_fail => Ok(()),
            sent => Ok(sent?),
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
