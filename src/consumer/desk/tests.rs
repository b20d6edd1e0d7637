mod lanes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::held::Job;
use super::work::MAX_HELD_BYTES;
use super::{Desk, Desks, Terms};
use crate::base::id::{Epoch, MessageId};
use crate::base::log_context::LogContext;
use crate::consumer::handler::HandlerError;
use crate::consumer::outbox::Outbox;
use crate::consumer::outlet::{Outlet, Unrecorded};
use crate::consumer::peer::{CloseReason, LinkId};
use crate::ledger::{Body, LaneNumber, Payload};
use crate::wire::{self, ErrorCode, Frame, ReadyFlags};

const A: MessageId = MessageId(1);
const B: MessageId = MessageId(2);
const C: MessageId = MessageId(3);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(in crate::consumer) fn desk(prefetch: u32) -> Desk {
    desk_of(1, prefetch)
}

fn desk_of(concurrency: usize, prefetch: u32) -> Desk {
    let terms = Terms { prefetch, handler_timeout: Some(TIMEOUT), ..Terms::of_tests(concurrency) };
    opened(terms)
}

/// The desk of lane 0 of a consumer with these terms.
pub(in crate::consumer) fn opened(terms: Terms) -> Desk {
    open(&Arc::new(Desks::new(terms, Arc::default())), 0)
}

/// The desk of a lane whose results nobody records.
fn open(desks: &Arc<Desks>, lane: LaneNumber) -> Desk {
    let (outlet, _) = Outlet::new(&Unrecorded::default(), LogContext::of_process());
    desks.open(lane, outlet)
}

/// The frames in an outbox as text, lists sorted.
pub(super) fn said(outbox: &Outbox) -> Vec<String> {
    let list = |mut ids: Vec<MessageId>| {
        ids.sort();
        ids.iter().map(|id| format!(" {}", id.0)).collect::<String>()
    };
    wire::frames(&outbox.take())
        .map(|frame| match frame.expect("we write good frames") {
            Frame::Held(ids) => format!("HELD{}", list(ids)),
            Frame::Ack(ids) => format!("ACK{}", list(ids)),
            Frame::Progress(ids) => format!("PROGRESS{}", list(ids)),
            Frame::Nack { id, delay, reason } => format!("NACK {} {} {reason}", id.0, delay.to_wire()),
            Frame::Ready { prefetch, flags, consumer } => format!("READY {prefetch} {} {consumer}", flags.commits()),
            frame => frame.name().to_owned(),
        })
        .collect()
}

/// A new connection that leads in this epoch.
pub(super) fn lead(desk: &Desk, link: LinkId, epoch: u64) -> Arc<Outbox> {
    let outbox = Arc::new(Outbox::default());
    desk.lead(link, &outbox, Epoch(epoch), ReadyFlags::COMMITS, Instant::now()).expect("epochs rise");
    outbox
}

fn accept(desk: &Desk, link: LinkId, ids: &[MessageId]) {
    let messages = ids.iter().map(|id| (*id, 1, Body::of(Payload::from_static(b"body")))).collect();
    desk.accept(link, messages, Instant::now()).expect("this link rules");
}

/// The next message for the first handler thread.
fn begin(desk: &Desk) -> Job {
    turn(desk, 0)
}

fn turn(desk: &Desk, thread: usize) -> Job {
    desk.desks.next(thread).expect("it is not closed").job
}

pub(super) fn refusal<T: std::fmt::Debug>(outcome: Result<T, CloseReason>) -> ErrorCode {
    outcome.expect_err("it must be refused").code
}

#[test]
fn a_leader_receives_ready_and_the_held_messages() {
    let desk = desk(4);
    let first = lead(&desk, 1, 5);
    assert_eq!(said(&first), ["READY 4 true c0", "HELD"]);
    accept(&desk, 1, &[A, B]);
    assert_eq!([begin(&desk).id, begin(&desk).id], [A, B]);
    let second = lead(&desk, 2, 6);
    assert_eq!(said(&second), ["READY 4 true c0", "HELD 1 2"]);
    desk.ack([A].into_iter());
    assert_eq!(said(&second), ["ACK 1"]);
    assert_eq!(said(&first), ["ERROR"], "the old leader hears nothing else any more");
}

#[test]
fn only_the_newest_leader_of_the_highest_epoch_rules() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    let outbox = Arc::default();
    assert_eq!(refusal(desk.lead(2, &outbox, Epoch(4), ReadyFlags::COMMITS, Instant::now())), ErrorCode::Stale);
    assert!(said(&outbox).is_empty());
    accept(&desk, 1, &[A]);
    // The same dispatcher, connected again.
    lead(&desk, 3, 5);
    assert_eq!(refusal(desk.accept(1, vec![(B, 1, Body::of(Payload::new()))], Instant::now())), ErrorCode::Replaced);
    // Its older connection sends LEAD late.
    assert_eq!(refusal(desk.lead(2, &outbox, Epoch(5), ReadyFlags::COMMITS, Instant::now())), ErrorCode::Replaced);
    accept(&desk, 3, &[B]);
    assert!(!desk.leave(1));
    assert!(desk.leave(3));
    // The last epoch stays the highest while no dispatcher is connected.
    assert_eq!(refusal(desk.lead(4, &outbox, Epoch(4), ReadyFlags::COMMITS, Instant::now())), ErrorCode::Stale);
}

#[test]
fn held_messages_are_not_run_twice() {
    let desk = desk(2);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A, A]);
    lead(&desk, 2, 6);
    accept(&desk, 2, &[A]);
    assert_eq!(desk.stats().received.get(), 1);
    begin(&desk);
    accept(&desk, 2, &[A, B]);
    assert_eq!(begin(&desk).id, B);
}

#[test]
fn more_than_the_prefetch_is_refused_whole() {
    let desk = desk(2);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let two = vec![(B, 1, Body::of(Payload::new())), (C, 1, Body::of(Payload::new()))];
    assert_eq!(refusal(desk.accept(1, two, Instant::now())), ErrorCode::OverPrefetch);
    desk.leave(1);
    assert_eq!(said(&lead(&desk, 2, 5))[1], "HELD 1");
    accept(&desk, 2, &[B]);
    assert_eq!([begin(&desk).id, begin(&desk).id], [A, B], "nothing is left of what was refused");
}

#[test]
fn acks_without_a_ruler_are_dropped_and_nacks_kept() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B, C]);
    let jobs = [begin(&desk), begin(&desk), begin(&desk)];
    desk.leave(1);
    desk.ack([A].into_iter());
    desk.fail(B, jobs[1].run, HandlerError::reject("bad"));
    let next = lead(&desk, 2, 5);
    assert_eq!(said(&next), ["READY 4 true c0".into(), "HELD 2 3".into(), format!("NACK 2 {} bad", u32::MAX)]);
    desk.fail(C, jobs[2].run, HandlerError::retry("again"));
    assert_eq!(said(&next), ["NACK 3 0 again"]);
    assert_eq!(desk.stats().held(), 0);
}

#[test]
fn only_the_ruler_hears_of_progress() {
    let desk = desk(4);
    let first = lead(&desk, 1, 5);
    let second = lead(&desk, 2, 6);
    said(&second);
    assert!(desk.report(2, Instant::now()).is_ok());
    assert!(said(&second).is_empty(), "nothing is held");
    accept(&desk, 2, &[A]);
    assert!(desk.report(1, Instant::now()).is_err());
    assert!(desk.report(2, Instant::now()).is_ok());
    assert_eq!(said(&second), ["PROGRESS 1"]);
    said(&first);
}

#[test]
fn a_handler_past_its_time_is_given_up_and_may_run_again() {
    let desk = desk_of(2, 1);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let slow = turn(&desk, 0);
    let start = Instant::now();
    desk.report(1, start + TIMEOUT / 2).expect("it rules");
    assert_eq!(said(&outbox)[2], "PROGRESS 1");
    desk.report(1, start + TIMEOUT).expect("it rules");
    assert!(said(&outbox).is_empty());
    assert_eq!(desk.stats().timed_out.get(), 1);
    // Its place in the prefetch is free, although its thread is not.
    accept(&desk, 1, &[B]);
    desk.ack([B].into_iter());
    accept(&desk, 1, &[A]);
    let again = turn(&desk, 1);
    assert_ne!(again.run, slow.run);
    desk.fail(A, slow.run, HandlerError::retry("late"));
    assert_eq!(said(&outbox), ["ACK 2"], "only the success of a given-up run counts");
    desk.ack([A].into_iter());
    assert_eq!(said(&outbox), ["ACK 1"]);
    desk.ack([A].into_iter());
    desk.fail(A, again.run, HandlerError::retry("too late"));
    assert!(said(&outbox).is_empty());
}

#[test]
fn a_late_failure_of_a_given_up_handler_is_still_sent() {
    let desk = desk_of(2, 1);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let run = begin(&desk).run;
    let start = Instant::now();
    desk.report(1, start + TIMEOUT).expect("it rules");
    desk.leave(1);
    desk.fail(A, run, HandlerError::retry("late"));
    said(&outbox);
    assert_eq!(said(&lead(&desk, 2, 5))[1..], ["HELD 1", "NACK 1 0 late"]);
    accept(&desk, 2, &[B]);
    assert_eq!(turn(&desk, 1).id, B);
}

#[test]
fn draining_accepts_nothing_and_ends_when_nothing_is_held() {
    let desk = desk(4);
    let first = lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    let jobs = [begin(&desk), begin(&desk)];
    let drained = desk.desks.drain();
    assert_eq!(said(&first)[2], "DRAIN");
    accept(&desk, 1, &[C]);
    assert_eq!(desk.stats().received.get(), 2);
    desk.ack([A].into_iter());
    assert!(drained.try_recv().is_err());
    // A leader that connects now gets DRAIN as well.
    let second = lead(&desk, 2, 6);
    assert_eq!(said(&second), ["READY 4 true c0", "HELD 2", "DRAIN"]);
    // A failure that can't be sent does not delay the end.
    desk.leave(2);
    desk.fail(B, jobs[1].run, HandlerError::retry("x"));
    assert!(drained.try_recv().is_ok());
}

#[test]
fn an_idle_desk_is_drained_at_once() {
    assert!(desk(1).desks.drain().try_recv().is_ok());
}

#[test]
fn a_reader_waits_while_too_many_bytes_are_held() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    let large = Body::of(Payload::from(vec![0; MAX_HELD_BYTES + 1]));
    desk.accept(1, vec![(A, 1, large.clone())], Instant::now()).expect("it rules");
    begin(&desk);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| desk.wait_for_room(1));
        desk.ack([A].into_iter());
        waiter.join().expect("it came back");
        desk.accept(1, vec![(B, 1, large)], Instant::now()).expect("it rules");
        let waiter = scope.spawn(|| desk.wait_for_room(1));
        lead(&desk, 2, 5);
        waiter.join().expect("it came back");
    });
}

/// Lets all running handlers exceed their timeout, and returns that moment.
fn give_up(desk: &Desk, link: LinkId) -> Instant {
    let late = Instant::now() + TIMEOUT;
    desk.report(link, late).expect("it rules");
    late
}

#[test]
fn messages_queued_behind_given_up_handlers_are_returned_uncounted() {
    let desk = desk_of(2, 4);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B, C]);
    let first = turn(&desk, 0);
    said(&outbox);
    give_up(&desk, 1);
    assert_eq!(said(&outbox), ["PROGRESS 2 3"], "one thread is left");
    assert_eq!(turn(&desk, 1).id, B);
    let late = give_up(&desk, 1);
    assert_eq!(said(&outbox), ["DRAIN", "NACK 3 0 "]);
    desk.lane_stats().set_redis_up(true);
    let reason = desk.stats().ready().expect_err("no thread is left");
    assert!(reason.contains("after handler_timeout: ") && reason.ends_with("raise concurrency"), "{reason}");
    assert!(desk.stats().is_unable());
    // Sent before DRAIN was read.
    accept(&desk, 1, &[C, MessageId(4)]);
    assert_eq!(said(&outbox), ["NACK 3 0 ", "NACK 4 0 "]);
    assert_eq!(desk.stats().returned.get(), 3);

    // The first handler returns after all: the connection closes, and the next one gets the full prefetch.
    desk.desks.returned(0, late);
    assert_eq!(outbox.next(late), crate::consumer::outbox::WriterTask::Close(Vec::new()));
    assert!(!desk.stats().is_unable());
    accept(&desk, 1, &[C]);
    assert!(desk.report(1, late).is_ok(), "it is closed, not refused");
    let next = lead(&desk, 2, 5);
    assert_eq!(said(&next), ["READY 4 true c0", "HELD"]);
    desk.ack([first.id].into_iter());
    assert_eq!(said(&next), ["ACK 1"], "its late result counts");
    accept(&desk, 2, &[C]);
    assert_eq!(turn(&desk, 0).id, C);
}

#[test]
fn a_leader_that_connects_to_a_consumer_that_cannot_work_gets_drain() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    begin(&desk);
    desk.leave(1);
    desk.desks.check(Ok(()), Instant::now(), Instant::now() + TIMEOUT);
    assert!(desk.stats().is_unable());
    // No dispatcher was connected to which the queued message could be returned.
    assert_eq!(said(&lead(&desk, 2, 6)), ["READY 4 true c0", "HELD 2", "DRAIN", "NACK 2 0 "]);
}

#[test]
fn without_redis_started_messages_stay_held_and_are_answered_later() {
    let desk = desk(4);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    begin(&desk);
    desk.desks.returned(0, Instant::now());
    said(&outbox);
    let since = Instant::now();
    desk.redis_fails(since, since + Duration::from_secs(4));
    assert_eq!(said(&outbox), [""; 0]);
    desk.report(1, since + Duration::from_secs(5)).expect("it rules");
    assert_eq!(said(&outbox), ["DRAIN", "NACK 2 0 ", "PROGRESS 1"]);
    // However long that takes: its handler has returned.
    desk.report(1, since + 10 * TIMEOUT).expect("it rules");
    assert_eq!(said(&outbox), ["PROGRESS 1"]);
    let back = since + 11 * TIMEOUT;
    desk.redis_answers(back);
    assert_eq!(said(&outbox), [""; 0], "held messages would go to others at once");
    desk.ack([A].into_iter());
    let ack = Frame::Ack(vec![A]).to_vec();
    assert_eq!(outbox.next(back), crate::consumer::outbox::WriterTask::Close(ack));
    assert_eq!(said(&lead(&desk, 2, 5)), ["READY 4 true c0", "HELD"]);
}

/// After an outage the leader may be back before the committer has asked again.
#[test]
fn a_confirmed_epoch_restarts_the_time_limit_of_the_committer() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    desk.leave(1);
    let now = Instant::now();
    desk.redis_fails(now.checked_sub(Duration::from_secs(6)).expect("not just booted"), now);
    assert!(desk.stats().is_unable());
    // Redis is not asked about an epoch that is already known.
    assert_eq!(said(&lead(&desk, 2, 5)), ["READY 4 true c0", "HELD", "DRAIN"]);
    let next = lead(&desk, 3, 6);
    assert_eq!(said(&next), ["READY 4 true c0", "HELD"]);
    desk.report(3, now + Duration::from_secs(6)).expect("it rules");
    assert_eq!(said(&next), ["DRAIN"]);
}

#[test]
fn long_work_does_not_keep_a_recovered_consumer_drained() {
    let desk = opened(Terms { prefetch: 4, ..Terms::of_tests(2) });
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let job = begin(&desk);
    let since = Instant::now();
    desk.redis_fails(since, since + Duration::from_secs(5));
    desk.redis_answers(since + Duration::from_secs(6));
    desk.report(1, since + Duration::from_secs(15)).expect("it rules");
    assert_eq!(desk.stats().ruling_epoch(), 5);
    desk.desks.check(Ok(()), since, since + Duration::from_secs(16));
    assert_eq!(desk.stats().ruling_epoch(), 0);
    assert!(matches!(outbox.next(since), crate::consumer::outbox::WriterTask::Close(_)));
    desk.fail(A, job.run, HandlerError::retry(""));
    assert_eq!(said(&lead(&desk, 2, 5)), ["READY 4 true c0", "HELD 1", "NACK 1 0 the handler gave no reason"]);
}

#[test]
fn a_stopping_consumer_that_cannot_work_returns_what_is_queued_and_keeps_its_connection() {
    let desk = desk(4);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    begin(&desk);
    let drained = desk.desks.drain();
    said(&outbox);
    let late = give_up(&desk, 1);
    assert_eq!(said(&outbox), ["NACK 2 0 "], "DRAIN was said");
    assert!(drained.try_recv().is_ok());
    desk.desks.returned(0, late);
    assert_eq!(desk.stats().ruling_epoch(), 5);
}

/// The handler has not begun this message, because it is not ready.
fn put_back(desk: &Desk, job: Job, now: Instant) {
    desk.put_back(0, job, "nothing listens".to_owned(), now);
}

#[test]
fn what_a_handler_that_is_not_ready_has_not_begun_is_returned_uncounted() {
    let desk = desk(4);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    let job = begin(&desk);
    said(&outbox);
    let now = Instant::now();
    put_back(&desk, job, now);
    assert_eq!(said(&outbox), ["DRAIN", "NACK 1 0 ", "NACK 2 0 "]);
    desk.lane_stats().set_redis_up(true);
    assert_eq!(desk.stats().ready(), Err("the handler is not ready: nothing listens".to_owned()));
    assert_eq!((desk.stats().retried.get(), desk.stats().returned.get()), (0, 2));
    // The question was asked before the handler found out.
    let before = now.checked_sub(Duration::from_millis(1)).expect("not just booted");
    desk.desks.check(Ok(()), before, now);
    assert!(desk.stats().is_unable());
    desk.desks.check(Ok(()), now, now);
    assert_eq!(desk.stats().ready(), Ok(()));
    assert!(matches!(outbox.next(now), crate::consumer::outbox::WriterTask::Close(_)));
}

#[test]
fn a_handler_that_starts_as_not_ready_gets_nothing() {
    let desk = desk(4);
    desk.desks.check(Err("nothing listens".to_owned()), Instant::now(), Instant::now());
    assert_eq!(said(&lead(&desk, 1, 5)), ["READY 4 true c0", "HELD", "DRAIN"]);
}

#[test]
fn what_was_not_begun_while_no_dispatcher_was_connected_waits_for_the_next() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    let job = begin(&desk);
    desk.leave(1);
    let now = Instant::now();
    put_back(&desk, job, now);
    assert_eq!(desk.stats().held(), 2);
    // Nothing is begun meanwhile.
    std::thread::scope(|scope| {
        let next = scope.spawn(|| begin(&desk).id);
        desk.desks.check(Ok(()), now, now);
        assert_eq!(next.join().expect("it came back"), A, "it is still the first");
    });
    assert_eq!(said(&lead(&desk, 2, 5)), ["READY 4 true c0", "HELD 1 2"]);
    assert_eq!(begin(&desk).id, B);
}

#[test]
fn a_message_put_back_by_a_run_that_was_given_up_is_returned_once() {
    let desk = desk_of(2, 4);
    let outbox = lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let slow = begin(&desk);
    give_up(&desk, 1);
    accept(&desk, 1, &[A]);
    let again = turn(&desk, 1);
    said(&outbox);
    put_back(&desk, slow, Instant::now());
    assert_eq!(said(&outbox), ["DRAIN"], "the later run holds it");
    desk.put_back(1, again, "nothing listens".to_owned(), Instant::now());
    assert_eq!(said(&outbox), ["NACK 1 0 "]);
    assert_eq!(desk.stats().held(), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_handler_that_is_not_ready() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A, B]);
    let job = begin(&desk);
    desk.leave(1);
    let drained = desk.desks.drain();
    assert!(drained.try_recv().is_err());
    put_back(&desk, job, Instant::now());
    assert!(drained.try_recv().is_ok());
}

#[test]
fn handlers_and_returns_never_share_a_message() {
    const MESSAGES: u64 = 20_000;
    let desk = opened(Terms { prefetch: 60_000, ..Terms::of_tests(2) });
    let outbox = lead(&desk, 1, 5);
    let (since, later) = (Instant::now(), Instant::now() + Duration::from_secs(5));
    let (run, back) = std::thread::scope(|scope| {
        let handlers = [0, 1].map(|thread| {
            let desk = &desk;
            scope.spawn(move || {
                std::iter::from_fn(|| desk.desks.next(thread)).map(|turn| turn.job.id.0).collect::<Vec<_>>()
            })
        });
        let ids: Vec<_> = (1..=MESSAGES).map(MessageId).collect();
        ids.chunks(100).for_each(|ids| accept(&desk, 1, ids));
        desk.redis_fails(since, later);
        let nacked = |frame: &str| frame.strip_prefix("NACK ")?.split(' ').next()?.parse().ok();
        let back: Vec<u64> = said(&outbox).iter().filter_map(|frame| nacked(frame)).collect();
        desk.desks.close();
        (handlers.map(|handler| handler.join().expect("no panic")).concat(), back)
    });
    let mut all = [run, back].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=MESSAGES).collect::<Vec<_>>());
}
