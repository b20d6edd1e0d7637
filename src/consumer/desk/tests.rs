use super::*;
use crate::wire::{self, REJECT};

const A: MessageId = MessageId(1);
const B: MessageId = MessageId(2);
const C: MessageId = MessageId(3);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(in crate::consumer) fn desk(prefetch: u32) -> Desk {
    let terms = Terms { group: "g".to_owned(), consumer_id: "c0".to_owned(), prefetch, handler_timeout: Some(TIMEOUT) };
    Desk::new(terms, Arc::default())
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
            Frame::Nack { id, delay_ms, reason } => format!("NACK {} {delay_ms} {reason}", id.0),
            Frame::Ready { prefetch, flags, consumer } => format!("READY {prefetch} {} {consumer}", flags.commits()),
            frame => frame.name().to_owned(),
        })
        .collect()
}

/// A new connection that leads in this epoch.
pub(super) fn lead(desk: &Desk, link: LinkId, epoch: u64) -> Arc<Outbox> {
    let outbox = Arc::new(Outbox::default());
    desk.lead(link, &outbox, Epoch(epoch), "g", Instant::now()).expect("epochs rise");
    outbox
}

fn accept(desk: &Desk, link: LinkId, ids: &[MessageId]) -> Vec<Job> {
    let messages = ids.iter().map(|id| (*id, 1, Payload::from_static(b"body"))).collect();
    desk.accept(link, messages, Instant::now()).expect("this link rules")
}

pub(super) fn refusal<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> ErrorCode {
    outcome.expect_err("it must be refused").code
}

#[test]
fn a_leader_hears_ready_and_what_is_held() {
    let desk = desk(4);
    let first = lead(&desk, 1, 5);
    assert_eq!(said(&first), ["READY 4 true c0", "HELD"]);
    let jobs = accept(&desk, 1, &[A, B]);
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [A, B]);
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
    assert_eq!(refusal(desk.lead(2, &outbox, Epoch(4), "g", Instant::now())), ErrorCode::Stale);
    assert_eq!(refusal(desk.lead(2, &outbox, Epoch(9), "other", Instant::now())), ErrorCode::Group);
    assert!(said(&outbox).is_empty());
    accept(&desk, 1, &[A]);
    // The same dispatcher, connected again.
    lead(&desk, 3, 5);
    assert_eq!(refusal(desk.accept(1, vec![(B, 1, Payload::new())], Instant::now())), ErrorCode::Replaced);
    // Its older connection says LEAD late.
    assert_eq!(refusal(desk.lead(2, &outbox, Epoch(5), "g", Instant::now())), ErrorCode::Replaced);
    accept(&desk, 3, &[B]);
    assert!(!desk.leave(1));
    assert!(desk.leave(3));
    // Who ruled last stays the measure when nobody is connected.
    assert_eq!(refusal(desk.lead(4, &outbox, Epoch(4), "g", Instant::now())), ErrorCode::Stale);
}

#[test]
fn what_is_in_hand_is_not_run_twice() {
    let desk = desk(2);
    lead(&desk, 1, 5);
    assert_eq!(accept(&desk, 1, &[A, A]).len(), 1);
    lead(&desk, 2, 6);
    assert!(accept(&desk, 2, &[A]).is_empty());
    assert_eq!(desk.stats().received.get(), 1);
}

#[test]
fn more_than_the_prefetch_is_refused_whole() {
    let desk = desk(2);
    lead(&desk, 1, 5);
    accept(&desk, 1, &[A]);
    let two = vec![(B, 1, Payload::new()), (C, 1, Payload::new())];
    assert_eq!(refusal(desk.accept(1, two, Instant::now())), ErrorCode::OverPrefetch);
    desk.leave(1);
    assert_eq!(said(&lead(&desk, 2, 5))[1], "HELD 1");
    assert_eq!(accept(&desk, 2, &[B]).len(), 1);
}

#[test]
fn acks_without_a_ruler_are_dropped_and_nacks_kept() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    let jobs = accept(&desk, 1, &[A, B, C]);
    desk.leave(1);
    desk.ack([A].into_iter());
    desk.fail(B, jobs[1].run, HandlerError::reject("bad"));
    let next = lead(&desk, 2, 5);
    assert_eq!(said(&next), ["READY 4 true c0".into(), "HELD 2 3".into(), format!("NACK 2 {REJECT} bad")]);
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
    assert!(said(&second).is_empty(), "nothing is in hand");
    accept(&desk, 2, &[A]);
    assert!(desk.report(1, Instant::now()).is_err());
    assert!(desk.report(2, Instant::now()).is_ok());
    assert_eq!(said(&second), ["PROGRESS 1"]);
    said(&first);
}

#[test]
fn a_handler_past_its_time_is_given_up_and_may_run_again() {
    let desk = desk(1);
    let outbox = lead(&desk, 1, 5);
    let slow = &accept(&desk, 1, &[A])[0];
    let start = Instant::now();
    desk.begin(A, slow.run, start);
    desk.report(1, start + TIMEOUT / 2).expect("it rules");
    assert_eq!(said(&outbox)[2], "PROGRESS 1");
    desk.report(1, start + TIMEOUT).expect("it rules");
    assert!(said(&outbox).is_empty());
    assert_eq!(desk.stats().timed_out.get(), 1);
    // Its place is free, although its thread is not.
    accept(&desk, 1, &[B]);
    desk.ack([B].into_iter());
    let again = &accept(&desk, 1, &[A])[0];
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
fn a_late_failure_of_a_given_up_handler_is_still_told() {
    let desk = desk(1);
    let outbox = lead(&desk, 1, 5);
    let run = accept(&desk, 1, &[A])[0].run;
    let start = Instant::now();
    desk.begin(A, run, start);
    desk.report(1, start + TIMEOUT).expect("it rules");
    desk.leave(1);
    desk.fail(A, run, HandlerError::retry("late"));
    said(&outbox);
    assert_eq!(said(&lead(&desk, 2, 5))[1..], ["HELD 1", "NACK 1 0 late"]);
    assert_eq!(accept(&desk, 2, &[B]).len(), 1);
}

#[test]
fn draining_accepts_nothing_and_ends_when_nothing_is_in_hand() {
    let desk = desk(4);
    let first = lead(&desk, 1, 5);
    let jobs = accept(&desk, 1, &[A, B]);
    let drained = desk.drain();
    assert_eq!(said(&first)[2], "DRAIN");
    assert!(accept(&desk, 1, &[C]).is_empty());
    desk.ack([A].into_iter());
    assert!(drained.try_recv().is_err());
    // A leader that comes now is told as well.
    let second = lead(&desk, 2, 6);
    assert_eq!(said(&second), ["READY 4 true c0", "HELD 2", "DRAIN"]);
    // A failure that nobody is there to hear does not hold up the end.
    desk.leave(2);
    desk.fail(B, jobs[1].run, HandlerError::retry("x"));
    assert!(drained.try_recv().is_ok());
}

#[test]
fn an_idle_desk_is_drained_at_once() {
    assert!(desk(1).drain().try_recv().is_ok());
}

#[test]
fn a_reader_waits_while_too_many_bytes_are_in_hand() {
    let desk = desk(4);
    lead(&desk, 1, 5);
    let large = Payload::from(vec![0; MAX_HELD_BYTES + 1]);
    desk.accept(1, vec![(A, 1, large.clone())], Instant::now()).expect("it rules");
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
