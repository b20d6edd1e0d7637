//! The table of steps: every script and every transaction of the ledger, in each of its forms. A row is one step.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::*;
use crate::base::bundle::BundlePosition;

/// The nonce of what is put back.
pub(super) const NONCE: u64 = 7;
const LIMIT: u64 = 1_000;

/// One step: how it begins, how it is called, and what it depends on.
pub(super) struct Step {
    pub(super) name: &'static str,
    script: Option<&'static Script>,
    /// Commands that it sends outside of its script.
    commands: &'static [&'static str],
    pub(super) needs: Needs,
    /// Commands that it does not use here, but without which it must be refused nevertheless.
    pub(super) insists_on: &'static [&'static str],
    /// A stream whose entries it needs, so that another stream in its place is not only exhausted.
    pub(super) takes_from: Option<&'static str>,
    /// Commands that change the state before it begins.
    pub(super) begins_with: &'static [&'static [&'static str]],
    /// Whether the caller's earlier calls have left a transaction open.
    pub(super) is_open: bool,
    /// The caller's earlier calls.
    pub(super) warm_up: fn(&mut Caller) -> Result<()>,
    pub(super) call: fn(&mut Caller) -> Came,
    /// How it is repeated.
    pub(super) again: fn(&mut Caller) -> Came,
    /// The messages that are done one by one. Empty if the step is a single unit.
    pub(super) messages: &'static [u64],
}

/// What a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// It reads.
    Nothing,
    /// It writes, and works when Redis is full.
    Writing,
    /// It writes, and is refused when Redis is full.
    Room,
}

/// The outcome of a step.
pub(super) enum Came {
    /// It was done, with this answer.
    Done(String),
    /// It was a transaction, and a watched key had been written.
    Nothing,
    /// A part of it took effect and was undone, for this reason.
    TakenBack(String),
    /// It was done without removing its messages, and reports that.
    Breach,
    /// Redis refused it.
    Refused(Error),
}

fn came<T: Debug>(outcome: Result<T>) -> Came {
    outcome.map_or_else(Came::Refused, |answer| Came::Done(format!("{answer:?}")))
}

/// The caller of a step.
pub(super) struct Caller {
    pub(super) ledger: Ledger,
    id: DispatcherId,
    /// The key of its report.
    report: String,
    /// Messages that it has removed and must put back.
    owed: Vec<(MessageId, Body)>,
}

const MINE: Epoch = Epoch(5);

pub(super) fn steps() -> Vec<Step> {
    let mut steps = consumer_steps();
    steps.extend(bundle_steps());
    steps.extend(reports_and_reads());
    steps.extend(stream_steps());
    steps
}

/// Those of a group that delivers to consumers.
#[rustfmt::skip]
fn consumer_steps() -> Vec<Step> {
    vec![
        script("acquire", &ACQUIRE, |c| c.acquire(true)).begins_with(&[&["DEL", "messages:leader"]]),
        script("acquire for the first time", &ACQUIRE, |c| c.acquire(true)).begins_with(NOTHING),
        script("acquire, only looking", &ACQUIRE, |c| c.acquire(false))
            .begins_with(&[&["DEL", "messages:leader"]]).reads(),
        script("acquire while another leads", &ACQUIRE, |c| c.acquire(true)).begins_with(LED).reads(),
        script("renew", &RENEW, |c| came(c.ledger.renew(&c.lease(), TTL))),
        script("release", &RELEASE, |c| came(c.ledger.release(&c.lease()))),
        script("intake", &INTAKE, |c| c.intake(Some(6), &[7, 8])).needs_room(),
        script("intake for the first time", &INTAKE, |c| c.intake(None, &[7, 8])).begins_with(NO_CURSOR).needs_room(),
        script("intake of nothing", &INTAKE, |c| c.intake(Some(6), &[])).needs_room(),
        script("intake of a dead letter", &INTAKE, |c| c.intake_dead(7)).needs_room().insists_on(&["ZADD"]),
        script("intake of what was moved over", &INTAKE, Caller::intake_again).begins_with(MOVED_OVER).needs_room(),
        intake("intake in a transaction", |c| c.intake(Some(8), &[9, 10])).after(|c| c.taken(6, &[7, 8])),
        intake("intake of nothing in a transaction", |c| c.intake(Some(8), &[])).after(|c| c.taken(6, &[7, 8])),
        intake("intake in a transaction that is open", |c| c.intake(Some(8), &[9, 10])).open_after(Caller::open_intake),
        intake("intake of nothing in a transaction that is open", |c| c.intake(Some(8), &[]))
            .open_after(Caller::open_intake),
        script("rewind", &REWIND, |c| c.rewind(Some(4))).needs_room(),
        script("rewind to nothing", &REWIND, |c| c.rewind(None)),
        script("withdraw members", &WITHDRAW, Caller::withdraw),
        commit("commit", |c| c.commit(None, 0, Raise::Nothing, &[1, 2, 3])),
        commit("commit with a limit", |c| c.commit(None, LIMIT, Raise::Nothing, &[1, 2, 3])),
        commit("commit of what has no result or is gone",
            |c| c.commit(None, 0, Raise::Nothing, &[1, NO_RESULT, 2, 900])),
        commit("commit without results", |c| c.commit(None, 0, Raise::Nothing, &[NO_RESULT])),
        commit("commit that raises the recall", |c| c.commit(None, 0, Raise::To(MessageId(4)), &[NO_RESULT, 1, 2])),
        commit("commit that raises the recall to what it records",
            |c| c.commit(None, 0, Raise::Recorded, &[NO_RESULT, 1, 900])),
        commit("commit without a recall", |c| c.commit(None, 0, Raise::To(MessageId(4)), &[1, 2]))
            .begins_with(NO_RECALL),
        commit("commit by a leader", |c| c.commit(Some(MINE), LIMIT, Raise::Nothing, &[NO_RESULT, 2, 3])),
        commit("commit by a leader that raises the recall",
            |c| c.commit(Some(MINE), 0, Raise::To(MessageId(3)), &[1, 2, 3])),
        sole("commit in a transaction", |c| c.watch_and_commit_sole(0, &[1, 2, NO_RESULT])),
        sole("commit in a transaction that is open", |c| c.commit_sole(0, &[1, 2, NO_RESULT]))
            .open_after(|c| c.ledger.watch_recall()),
        sole("commit in a transaction that is open, with a limit", |c| c.commit_sole(LIMIT, &[1, 2, NO_RESULT]))
            .open_after(|c| c.ledger.watch_recall()),
        script("put back", &PUT_BACK, Caller::put_back).begins_with(REMOVED),
        script("put back without a recall", &PUT_BACK, Caller::put_back).begins_with(NO_RECALL),
        script("put back when nothing is pending", &PUT_BACK, Caller::put_back)
            .begins_with(&[&["DEL", "messages:pending"]]),
        script("replay", &REPLAY, |c| came(c.ledger.replay(&["2-1", "1-1", "9-9", "2-2"]))).begins_with(LETTERS)
            .needs_room().takes_from("messages:dead"),
        script("replay of what is gone", &REPLAY, |c| came(c.ledger.replay(&["9-9"]))).reads(),
        command("drop dead letters", &["XDEL"], |c| came(c.ledger.drop_letters(&["2-1", "9-9"])))
            .begins_with(LETTERS).takes_from("messages:dead"),
        script("pause", &SETTINGS, |c| c.set(SettingsChange { pause: pause(None), ..SettingsChange::default() })),
        script("pause for a time, with limits", &SETTINGS, |c| c.set(SettingsChange {
            pause: pause(Some(TTL)), max_in_flight: Some(Some(9)), rate: Some(None),
        })),
        script("resume", &SETTINGS,
            |c| c.set(SettingsChange { pause: Some(PauseChange::Resume), ..SettingsChange::default() })),
        script("read the settings", &SETTINGS, |c| c.set(SettingsChange::default())).reads(),
        settle("settle everything", |c| c.settle(ALL_VERDICTS)),
        settle("settle what consumers have released", |c| c.settle(&RELEASED)),
        settle("settle without a recall", |c| c.settle(ALL_VERDICTS)).begins_with(NO_RECALL),
        settle("settle what failed", |c| c.settle(&[(3, Verdict::Failed, 1, HELD)])),
        settle("settle what failed for the last time", |c| c.settle(&[(2, Verdict::Failed, 3, HELD)])),
        settle("settle what was rejected", |c| c.settle(&[(1, Verdict::Rejected, 2, HELD)])),
        settle("settle what was lost", |c| c.settle(&[(1, Verdict::Lost, 2, HELD)])),
        settle("settle what was not used", |c| c.settle(&[(1, Verdict::Unused, 2, HELD)])),
        settle("settle what is gone", |c| c.settle(&[(900, Verdict::Failed, 1, HELD)])),
        settle("settle what was not used and released", |c| c.settle(&[(1, Verdict::Unused, 2, FREE)])),
    ]
}

/// Those about messages in bundles.
#[rustfmt::skip]
fn bundle_steps() -> Vec<Step> {
    vec![
        commit("commit of a part of a bundle", |c| c.commit(None, 0, Raise::Nothing, &[1, 2, 3])).begins_with(BUNDLED),
        commit("commit of a part of a bundle that raises the recall",
            |c| c.commit(None, 0, Raise::Recorded, &[NO_RESULT, 1, 900])).begins_with(BUNDLED),
        commit("commit of a part of a bundle by a leader",
            |c| c.commit(Some(MINE), LIMIT, Raise::To(MessageId(3)), &[1, 2, 3])).begins_with(BUNDLED),
        Step { messages: &OF_BUNDLE, ..commit("commit of a whole bundle",
            |c| c.commit(None, 0, Raise::Nothing, &OF_BUNDLE)) }.begins_with(BUNDLED),
        whole("commit of a bundle in a transaction", |c| match c.ledger.watch_recall() {
            Ok(()) => c.commit_bundle(),
            Err(error) => Came::Refused(error),
        }),
        whole("commit of a bundle in a transaction that is open", Caller::commit_bundle)
            .open_after(|c| c.ledger.watch_recall()),
        settle("settle messages of a bundle", |c| c.settle(ALL_VERDICTS)).begins_with(BUNDLED),
        settle("settle released messages of a bundle", |c| c.settle(&RELEASED)).begins_with(BUNDLED),
        script("withdraw a bundle", &WITHDRAW, Caller::withdraw_bundle).begins_with(BUNDLED),
        script("put back into a bundle", &PUT_BACK, Caller::put_back).begins_with(BUNDLED),
        script("page with a bundle", &PAGE, |c| came(c.ledger.page(MINE, part(MessageId(1), MessageId(5), 3, 1_000))))
            .begins_with(BUNDLED).reads(),
        script("page of bundles", &PAGE, |c| {
            c.ledger.reads_bundles = true;
            came(c.ledger.page(MINE, part(MessageId(1), MessageId(16), 16, 1 << 20)))
        })
        .begins_with(BUNDLED).reads(),
        script("fetch from a bundle", &FETCH, |c| came(c.ledger.fetch(MINE, &[1, 900, 2].map(MessageId), 1_000)))
            .begins_with(BUNDLED),
        script("count deliveries in a bundle", &COUNT, |c| came(c.ledger.count_deliveries(MINE, &COUNTED)))
            .begins_with(BUNDLED),
        Step { commands: &[], ..script("look at a bundle", &LOOK,
            |c| came(c.ledger.look(MessageId(1), MessageId(5), 9))).begins_with(BUNDLED).reads() },
    ]
}

/// Those of leaders that read and report, and of observers.
#[rustfmt::skip]
fn reports_and_reads() -> Vec<Step> {
    vec![
        script("count deliveries", &COUNT, |c| came(c.ledger.count_deliveries(MINE, &COUNTED))),
        script("list the consumers", &CONSUMERS,
            |c| came(c.ledger.set_consumers(MINE, &["c0", "c1"].map(str::to_owned)))),
        script("list no consumers", &CONSUMERS, |c| came(c.ledger.set_consumers(MINE, &[]))),
        script("record a gap", &GAP, Caller::record_gap),
        script("publish a marker", &MARKER, |c| {
            let interests = Interests::in_channel("c");
            came(c.ledger.publish_marker(MINE, &Marker::of_leader(MINE, 1), &interests))
        })
        .reads(),
        script("page", &PAGE, |c| came(c.ledger.page(MINE, part(MessageId(1), MessageId(5), 3, 1_000)))).reads(),
        script("page without payloads", &PAGE,
            |c| came(c.ledger.page_without_payloads(MINE, MessageId(1), MessageId(5)))).reads(),
        script("fetch", &FETCH, |c| came(c.ledger.fetch(MINE, &[1, 900, 2].map(MessageId), 1_000))).reads(),
        // Which command calls it depends on the server.
        Step { commands: &[], ..script("sample", &SAMPLE,
            |c| came(c.ledger.sample().map(|sample| (sample.cursor, sample.counts.pending)))).reads() },
        Step { commands: &[], ..script("look", &LOOK, |c| came(c.ledger.look(MessageId(1), MessageId(5), 9))).reads() },
        Step { commands: &[], ..script("look at one message", &LOOK,
            |c| came(c.ledger.look_whole(MessageId(2)))).reads() },
        Step { commands: &[], ..script("follow a stream", &FOLLOW,
            |c| came(Follower::from_start(reading::EntryStream::Processed).read(&mut c.ledger).map(|of| of.skipped)))
            .reads() },
        script("newest dead letters", &LETTER_HEADS, |c| came(c.ledger.newest_letters(0))).reads(),
        script("answer where messages are", &ANSWER,
            |c| came(c.ledger.write_answer(MINE, RequestId(steps::NONCE), &Answer::default()))).needs_room(),
        command("deliveries", &["HMGET"], |c| came(c.ledger.deliveries(&[1, 2, 900].map(MessageId)))).reads(),
        command("cursor", &["GET"], |c| came(c.ledger.cursor())).reads(),
        command("report", &["SET"], |c| came(c.ledger.report(&c.report, "busy", TTL))).needs_room(),
        command("end reports", &["DEL"], |c| came(c.ledger.end_reports(&c.report))),
    ]
}

/// Those of a group that delivers into a stream.
#[rustfmt::skip]
fn stream_steps() -> Vec<Step> {
    vec![
        into_stream("intake into a stream", |c| c.with_stream(0).intake(Some(6), &[7, 8])),
        into_stream("intake into a stream for the first time", |c| c.with_stream(0).intake(None, &[7, 8]))
            .begins_with(NO_CURSOR),
        into_stream("intake into a stream with a limit", |c| c.with_stream(LIMIT).intake(Some(6), &[7, 8])),
        into_stream("intake of nothing into a stream", |c| c.with_stream(0).intake(Some(6), &[])),
        into_stream("intake of a dead letter beside a stream", |c| c.with_stream(0).intake_dead(7))
            .insists_on(&["XADD"]),
        into_stream("intake into a stream of what was moved over", |c| c.with_stream(0).intake_again())
            .begins_with(MOVED_OVER),
        into_stream("intake into a stream that is ahead", |c| c.with_stream(0).intake(Some(6), &[7, 8]))
            .begins_with(&[&["XADD", STREAM, "0-50", "payload", "x"]]),
    ]
}

const NOTHING: &[&[&str]] = &[&["FLUSHALL"]];
const LED: &[&[&str]] = &[&["SET", "messages:leader", "b-000000 5 ttl", "PX", "60000"]];
const NO_CURSOR: &[&[&str]] = &[&["DEL", "messages:cursor"]];
const LETTERS: &[&[&str]] = &[
    &["XADD", "messages:dead", "2-1", "id", "0000000000000007", "payload", "x7", "reason", "why", "deliveries", "8"],
    &["XADD", "messages:dead", "2-2", "id", "0000000000000008", "payload", "x8", "deliveries", "8", "channel", "c"],
];
const NO_RECALL: &[&[&str]] = &[&["DEL", "messages:recall"]];
const MOVED_OVER: &[&[&str]] = &[&["SET", "messages:cursor", "m 8 8"]];
const REMOVED: &[&[&str]] = &[&["ZREMRANGEBYSCORE", "messages:pending", "5", "6"]];
const COUNTED: [(MessageId, u16); 3] = [(MessageId(1), 3), (MessageId(3), 2), (MessageId(900), 2)];

const BUNDLED: &[&[&str]] = &[
    &["DEL", "messages:pending", "messages:attempts"],
    &[
        "ZADD",
        "messages:pending",
        "-9007199254740976",
        "0000000000000001*2,2,2,2,2,2,2,2,2,3,3,3,3,3,3,3:x1x2x3x4x5x6x7x8x9x10x11x12x13x14x15x16",
    ],
];
const OF_BUNDLE: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// The message whose commit stores nothing.
pub(super) const NO_RESULT: u64 = 4;
const HELD: Hold = Hold::Held;
const FREE: Hold = Hold::Released;
/// Id, verdict, number of the delivery, whether its consumer may still hold it.
type Settling = (u64, Verdict, u16, Hold);
const ALL_VERDICTS: &[Settling] = &[
    (1, Verdict::Failed, 2, HELD),
    (2, Verdict::Failed, 3, HELD),
    (3, Verdict::Rejected, 1, HELD),
    (4, Verdict::Lost, 2, HELD),
    (5, Verdict::Unused, 1, FREE),
    (6, Verdict::Failed, 1, FREE),
    (900, Verdict::Failed, 1, HELD),
];
const RELEASED: [Settling; 3] =
    [(1, Verdict::Failed, 2, FREE), (2, Verdict::Failed, 3, FREE), (3, Verdict::Rejected, 1, FREE)];
const MAX_DELIVERIES: u32 = 3;
/// So long that it never ends in a test.
const WAIT: Duration = Duration::from_secs(3_600);

fn command(name: &'static str, commands: &'static [&'static str], call: fn(&mut Caller) -> Came) -> Step {
    let (script, needs, warm_up) = (None, Needs::Writing, (|_| Ok(())) as fn(&mut Caller) -> Result<()>);
    Step {
        name,
        script,
        commands,
        needs,
        insists_on: &[],
        takes_from: None,
        begins_with: &[],
        is_open: false,
        warm_up,
        call,
        again: call,
        messages: &[],
    }
}

fn script(name: &'static str, script: &'static Script, call: fn(&mut Caller) -> Came) -> Step {
    Step { script: Some(script), ..command(name, &["EVALSHA", "EVAL"], call) }
}

fn into_stream(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    script(name, &STREAM_INTAKE, call).needs_room()
}

fn intake(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    const COMMANDS: &[&str] = &["EVALSHA", "EVAL", "UNWATCH", "WATCH", "GET", "TYPE", "MULTI", "ZADD", "SET", "EXEC"];
    Step { commands: COMMANDS, ..script(name, &INTAKE, call).needs_room() }
}

fn commit(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    Step { messages: &[1, 2, 3, 4, 900], ..script(name, &COMMIT, call) }
}

/// A commit in a transaction; the script repeats it.
fn sole(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    const COMMANDS: &[&str] = &["UNWATCH", "WATCH", "GET", "TYPE", "MULTI", "ZREMRANGEBYSCORE", "XADD", "EXEC"];
    let again = |c: &mut Caller| match c.put_back_what_is_owed() {
        Ok(()) => c.commit(None, 0, Raise::Nothing, &[1, 2, NO_RESULT]),
        Err(error) => Came::Refused(error),
    };
    Step { again, commands: COMMANDS, ..commit(name, call).needs_room() }.begins_with(&[&["DEL", "messages:attempts"]])
}

/// A commit of a bundle in a transaction; the script repeats it.
fn whole(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    let again = |c: &mut Caller| match c.put_back_what_is_owed() {
        Ok(()) => c.commit(None, 0, Raise::Nothing, &OF_BUNDLE),
        Err(error) => Came::Refused(error),
    };
    Step { again, messages: &OF_BUNDLE, ..sole(name, call) }.begins_with(BUNDLED)
}

fn settle(name: &'static str, call: fn(&mut Caller) -> Came) -> Step {
    Step { messages: &[1, 2, 3, 4, 5, 6, 900], ..script(name, &SETTLE, call) }
}

impl Step {
    fn begins_with(self, begins_with: &'static [&'static [&'static str]]) -> Step {
        Step { begins_with, ..self }
    }

    fn insists_on(self, insists_on: &'static [&'static str]) -> Step {
        Step { insists_on, ..self }
    }

    fn takes_from(self, stream: &'static str) -> Step {
        Step { takes_from: Some(stream), ..self }
    }

    fn after(self, warm_up: fn(&mut Caller) -> Result<()>) -> Step {
        Step { warm_up, ..self }
    }

    fn open_after(self, warm_up: fn(&mut Caller) -> Result<()>) -> Step {
        Step { is_open: true, ..self.after(warm_up) }
    }

    fn reads(self) -> Step {
        Step { needs: Needs::Nothing, ..self }
    }

    fn needs_room(self) -> Step {
        Step { needs: Needs::Room, ..self }
    }

    /// Every command that it may send.
    pub(super) fn all_commands(&self) -> BTreeSet<&'static str> {
        let in_script = self.script.map(|script| commands_in(script.text)).unwrap_or_default();
        in_script.into_iter().chain(self.commands.iter().copied()).collect()
    }

    /// Whether it calls the script with this text, if it calls one.
    pub(super) fn calls(&self, text: &str) -> bool {
        self.script.is_some_and(|script| script.text.contains(text))
    }
}

/// The commands that a script calls.
fn commands_in(text: &'static str) -> Vec<&'static str> {
    let calls = text.split("redis.").skip(1).map(|call| {
        let name = call.strip_prefix("call('").or_else(|| call.strip_prefix("pcall('"));
        name.and_then(|name| name.split('\'').next()).expect("a script names its commands where it calls them")
    });
    calls.collect()
}

impl Caller {
    pub(super) fn new(ledger: Ledger, id: DispatcherId) -> Caller {
        let report = ledger.keys().report_of(id.as_str());
        Caller { ledger, id, report, owed: Vec::new() }
    }

    fn lease(&self) -> Lease {
        Lease { holder: self.id.to_string(), epoch: MINE, by_time: false }
    }

    fn acquire(&mut self, may_take: bool) -> Came {
        let attempt = self.ledger.acquire(&self.id, TTL, Epoch(0), may_take);
        came(attempt.map(|attempt| match attempt.answer {
            // Its epoch follows the clock.
            Acquire::Acquired { cursor, newest, settings, .. } => {
                format!("acquired {cursor:?} {newest:?} {:?}", settings.settings)
            }
            other => format!("{other:?}"),
        }))
    }

    fn set(&mut self, change: SettingsChange) -> Came {
        came(self.ledger.change_settings(&change).map(|SettingsReading { settings, foreign, .. }| {
            let pause = settings.pause.map(|pause| (pause.until == PauseEnd::Never, pause.by));
            (pause, settings.max_in_flight, settings.rate, foreign)
        }))
    }

    /// Stores messages after a cursor, which names the last one.
    fn intake(&mut self, cursor_at: Option<u64>, ids: &[u64]) -> Came {
        let batch: Vec<Arrival> = ids.iter().map(|id| arrival(*id, b"x")).collect();
        self.take(cursor_at, ids.last().copied().unwrap_or(99), &batch)
    }

    /// Stores messages after an attempt with an unknown outcome.
    fn intake_again(&mut self) -> Came {
        self.ledger.attempts.doubts = vec![cursor("m", 8, 8)];
        self.intake(Some(6), &[7, 8])
    }

    fn intake_dead(&mut self, id: u64) -> Came {
        let refused = Arrival { refused: Some("too large".to_owned()), ..arrival(id, b"beginning") };
        self.take(Some(6), id, &[refused])
    }

    fn take(&mut self, cursor_at: Option<u64>, next: u64, batch: &[Arrival]) -> Came {
        let expected = cursor_at.map(|at| cursor("m", at, at));
        match self.ledger.intake(MINE, expected.as_ref(), &cursor("m", next, next), batch) {
            Ok(IntakeAnswer::Rewound(reason)) => Came::TakenBack(reason),
            outcome => came(outcome),
        }
    }

    /// From now on messages are stored in the stream.
    fn with_stream(&mut self, maxlen: u64) -> &mut Caller {
        self.ledger.destination = Destination::Stream { key: STREAM.to_owned(), maxlen };
        self
    }

    /// Stores messages, so that a transaction may follow.
    fn taken(&mut self, cursor_at: u64, ids: &[u64]) -> Result<()> {
        match self.intake(Some(cursor_at), ids) {
            Came::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    fn open_intake(&mut self) -> Result<()> {
        self.taken(6, &[7, 8])?;
        self.ledger.fence.arm(&mut self.ledger.connection)
    }

    /// Moves the cursor back.
    fn rewind(&mut self, to: Option<u64>) -> Came {
        let (moved, before) = (&cursor("m", 6, 6), to.map(|at| cursor("m", at, at)));
        let call = RewindCall { my_epoch: MINE, moved, before: before.as_ref() }.on(&self.ledger.keys);
        came(self.ledger.call_for_ok(MINE, "testing", call))
    }

    /// Removes members for which the cursor was not moved.
    fn withdraw(&mut self) -> Came {
        let call = WithdrawCall { my_epoch: MINE, first: MessageId(5), last: MessageId(6) }.on(&self.ledger.keys);
        came(self.ledger.call_for_ok(MINE, "testing", call))
    }

    fn withdraw_bundle(&mut self) -> Came {
        let call = WithdrawCall { my_epoch: MINE, first: MessageId(1), last: MessageId(16) }.on(&self.ledger.keys);
        came(self.ledger.call_for_ok(MINE, "testing", call))
    }

    fn commit(&mut self, epoch: Option<Epoch>, maxlen: u64, raise: Raise, ids: &[u64]) -> Came {
        let committed = self.ledger.commit(epoch, NonZeroU64::new(maxlen), raise, &commits(ids));
        came(committed.map(|Committed { recorded, gone }| told(recorded, &gone)))
    }

    fn watch_and_commit_sole(&mut self, maxlen: u64, ids: &[u64]) -> Came {
        match self.ledger.watch_recall() {
            Ok(()) => self.commit_sole(maxlen, ids),
            Err(error) => Came::Refused(error),
        }
    }

    fn commit_sole(&mut self, maxlen: u64, ids: &[u64]) -> Came {
        let batch = commits(ids);
        self.commit_alone(maxlen, ids, &batch.iter().map(Sole::from).collect::<Vec<_>>())
    }

    fn commit_bundle(&mut self) -> Came {
        let batch = commits(&OF_BUNDLE);
        let positions = BundlePosition::all().map(Some);
        let bundle: Vec<_> = batch.iter().zip(positions).map(|(commit, position)| Sole { commit, position }).collect();
        self.commit_alone(0, &OF_BUNDLE, &bundle)
    }

    /// Commits in a transaction. What could not be stored is put back, as a consumer does.
    fn commit_alone(&mut self, maxlen: u64, ids: &[u64], batch: &[Sole<'_>]) -> Came {
        match self.ledger.commit_sole(NonZeroU64::new(maxlen), batch) {
            Ok(Some(Recorded { unstored: Some((ids, reason)), .. })) => {
                self.owed = ids.into_iter().map(|id| (id, payload(id.0))).collect();
                self.put_back_what_is_owed().map_or_else(Came::Refused, |()| Came::TakenBack(reason))
            }
            Ok(Some(Recorded { removed, .. })) if removed == ids.len() => came(Ok(told(removed, &[]))),
            Ok(Some(_)) => Came::Breach,
            Ok(None) => Came::Nothing,
            Err(error) => Came::Refused(error),
        }
    }

    /// Whether something took effect that it must still undo.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty() || self.ledger.attempts.partly_done.is_some()
    }

    fn put_back_what_is_owed(&mut self) -> Result<()> {
        if !self.owed.is_empty() {
            self.ledger.put_back(NONCE, &self.owed)?;
            self.owed.clear();
        }
        Ok(())
    }

    fn put_back(&mut self) -> Came {
        came(self.ledger.put_back(NONCE, &[5, 6].map(|id| (MessageId(id), payload(id)))))
    }

    fn settle(&mut self, batch: &[Settling]) -> Came {
        let batch: Vec<(Returned, u16)> = batch
            .iter()
            .map(|(id, verdict, delivery, hold)| (Returned { hold: *hold, ..returned(*id, *verdict) }, *delivery))
            .collect();
        let batch: Vec<_> = batch
            .iter()
            .map(|(returned, delivery)| crate::ledger::Settling { returned, delivery: *delivery, wait: WAIT })
            .collect();
        match self.ledger.settle(MINE, MAX_DELIVERIES, &batch) {
            // The other messages of the batch are settled.
            Ok(Settlement { refused: Some(error), .. }) => Came::Refused(error),
            settled => came(settled),
        }
    }

    fn record_gap(&mut self) -> Came {
        let (begin, end) = ("m 0 1".to_owned(), "m 7".to_owned());
        let gap = Gap { reason: "test", dispatcher: self.id.clone(), begin, end, count: Some(7), servers: None };
        came(self.ledger.record_gap(MINE, &gap))
    }
}

fn pause(time: Option<Duration>) -> Option<PauseChange> {
    Some(PauseChange::Pause(time, "me".to_owned()))
}

fn told(recorded: usize, gone: &[MessageId]) -> String {
    format!("recorded {recorded}, gone {gone:?}")
}

/// The payload that this message has in the state that a step begins in.
fn payload(id: u64) -> Body {
    Body::of(format!("x{id}").into())
}

fn commits(ids: &[u64]) -> Vec<Commit> {
    let of = |id: &u64| match *id {
        NO_RESULT => Commit { id: MessageId(NO_RESULT), fields: Words::default() },
        id => super::super::commit(id),
    };
    ids.iter().map(of).collect()
}
