//! Several lanes at the desks of one consumer.

use super::*;
use crate::consumer::desk::hands::TURN;

/// The desks of this many lanes, each with a leader of epoch 5 on a connection of the lane's number, and its outbox.
fn lanes<const N: usize>(terms: Terms) -> [(Desk, Arc<Outbox>); N] {
    let desks = Arc::new(Desks::new(terms, Arc::default()));
    std::array::from_fn(|number| {
        let desk = open(&desks, number as LaneNumber);
        let outbox = lead(&desk, number as LinkId, 5);
        said(&outbox);
        (desk, outbox)
    })
}

fn terms(concurrency: usize, prefetch: u32) -> Terms {
    Terms { prefetch, handler_timeout: Some(TIMEOUT), ..Terms::of_tests(concurrency) }
}

fn numbered(ids: std::ops::RangeInclusive<u64>) -> Vec<MessageId> {
    ids.map(MessageId).collect()
}

#[test]
fn lanes_take_turns_whatever_each_has_waiting() {
    let [(first, _), (second, _), (third, _)] = lanes(terms(1, 100));
    accept(&first, 0, &numbered(1..=50));
    accept(&second, 1, &numbered(1..=3));
    let start = Instant::now();
    let mut begun = (0..).map(|n| {
        let turn = first.desks.state.lock().next_turn(0, start + n * TURN);
        turn.map(|turn| turn.lane).expect("one has a message")
    });
    assert_eq!(begun.by_ref().take(4).collect::<Vec<_>>(), [0, 1, 0, 1]);
    // One that comes later waits for one turn of each other lane.
    accept(&third, 2, &numbered(1..=2));
    assert_eq!(begun.take(7).collect::<Vec<_>>(), [0, 1, 2, 0, 2, 0, 0]);
}

#[test]
fn a_turn_lasts_a_while_even_if_messages_take_none() {
    let [(first, _), (second, _)] = lanes(terms(1, 100));
    accept(&first, 0, &numbered(1..=50));
    accept(&second, 1, &numbered(1..=3));
    let start = Instant::now();
    let begun = (0..10).map(|n| {
        let turn = first.desks.state.lock().next_turn(0, start + n * TURN / 2);
        turn.map(|turn| turn.lane).expect("one has a message")
    });
    // The second lane's last turn ends with its messages.
    assert_eq!(begun.collect::<Vec<_>>(), [0, 0, 1, 1, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn threads_that_are_free_at_the_same_time_take_different_lanes() {
    let [(first, _), (second, _)] = lanes(terms(6, 100));
    accept(&first, 0, &numbered(1..=50));
    accept(&second, 1, &numbered(1..=50));
    let now = Instant::now();
    let mut state = first.desks.state.lock();
    let begun = (0..6).map(|thread| state.next_turn(thread, now).map(|turn| turn.lane).expect("it has a message"));
    assert_eq!(begun.collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1]);
}

#[test]
fn what_one_lane_knows_of_epochs_and_messages_has_no_effect_in_another() {
    let [(first, one), (second, two)] = lanes(terms(2, 2));
    // The same ids, and each lane's own prefetch.
    accept(&first, 0, &[A, B]);
    accept(&second, 1, &[A, B]);
    assert_eq!(first.stats().held(), 4);
    assert_eq!((first.lane_stats().held(), second.lane_stats().held()), (2, 2));
    // A later leader of one lane: the other's goes on.
    let later = lead(&second, 7, 9);
    assert_eq!(said(&later), ["READY 2 true c0", "HELD 1 2"]);
    assert_eq!((said(&two), said(&one)), (vec!["ERROR".to_owned()], Vec::new()));
    assert_eq!(first.claim(Epoch(6)), Ok(super::super::Claim::Higher));
    assert_eq!(
        refusal(second.lead(8, &Arc::default(), Epoch(6), ReadyFlags::COMMITS, Instant::now())),
        ErrorCode::Stale
    );
    let outbox = lead(&first, 8, 6);
    assert_eq!(said(&outbox), ["READY 2 true c0", "HELD 1 2"]);
    // An answer goes to the ruler of the message's lane.
    second.ack([A].into_iter());
    assert_eq!((said(&later), said(&outbox)), (vec!["ACK 1".to_owned()], Vec::new()));
    assert_eq!(refusal(first.accept(7, Vec::new(), Instant::now())), ErrorCode::Stale);
}

#[test]
fn a_lane_without_redis_holds_up_no_other() {
    let [(first, one), (second, two)] = lanes(terms(2, 4));
    accept(&first, 0, &[A, B]);
    accept(&second, 1, &[A, B]);
    let late = Instant::now();
    let since = late.checked_sub(Duration::from_secs(6)).expect("not just booted");
    second.redis_fails(since, late);
    assert_eq!((said(&two), said(&one)), (vec!["DRAIN".into(), "NACK 1 0 ".into(), "NACK 2 0 ".into()], Vec::new()));
    assert!(!first.stats().is_unable());
    let begun = [0, 1].map(|thread| first.desks.next(thread).map(|turn| (turn.lane, turn.job.id)));
    assert_eq!(begun, [Some((0, A)), Some((0, B))]);
    assert_eq!(said(&lead(&second, 8, 5)), ["READY 4 true c0", "HELD", "DRAIN"].map(str::to_owned));
    // If no lane's Redis stores results, the consumer can't work.
    first.redis_fails(since, late);
    assert!(first.stats().is_unable());
    second.redis_answers(late);
    assert!(!first.stats().is_unable());
    assert_eq!(said(&one), ["DRAIN"], "its own is still silent");
}

#[test]
fn a_handler_that_is_not_ready_and_a_stop_concern_all_lanes() {
    let [(first, one), (second, two)] = lanes(terms(1, 4));
    accept(&first, 0, &[A]);
    accept(&second, 1, &[B]);
    first.desks.check(Err("nothing listens".to_owned()), Instant::now(), Instant::now());
    assert_eq!(
        (said(&one), said(&two)),
        (vec!["DRAIN".into(), "NACK 1 0 ".into()], vec!["DRAIN".into(), "NACK 2 0 ".into()])
    );
    first.desks.check(Ok(()), Instant::now(), Instant::now());
    let outboxes = [lead(&first, 10, 5), lead(&second, 11, 5)];
    accept(&second, 11, &[B]);
    begin(&second);
    let drained = first.desks.drain();
    assert!(outboxes.iter().all(|outbox| said(outbox).last().is_some_and(|frame| frame == "DRAIN")));
    assert!(drained.try_recv().is_err(), "one lane still holds a message");
    second.ack([B].into_iter());
    assert!(drained.try_recv().is_ok());
}

#[test]
fn handlers_given_up_in_one_lane_free_its_places_only() {
    let [(first, one), (second, _)] = lanes(terms(2, 1));
    accept(&first, 0, &[A]);
    accept(&second, 1, &[A]);
    assert_eq!([turn(&first, 0).id, turn(&first, 1).id], [A, A]);
    let start = Instant::now();
    first.desks.returned(1, start);
    first.desks.check(Ok(()), start, start + TIMEOUT);
    assert_eq!(first.stats().timed_out(), 1);
    accept(&first, 0, &[B]);
    let full = vec![(B, 1, Body::of(Payload::new()))];
    assert_eq!(refusal(second.accept(1, full, start + TIMEOUT)), ErrorCode::OverPrefetch);
    assert_eq!(said(&one), [""; 0]);
}

#[test]
fn a_lane_is_read_while_it_holds_less_than_its_share_of_bytes() {
    let [(first, _), (second, _)] = lanes(terms(1, 4));
    let large = Body::of(Payload::from(vec![0; MAX_HELD_BYTES + 1]));
    first.accept(0, vec![(A, 1, large)], Instant::now()).expect("it rules");
    accept(&second, 1, &[A]);
    // This comes back although the consumer as a whole holds too much.
    second.wait_for_room(1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| first.wait_for_room(0));
        begin(&first);
        first.ack([A].into_iter());
        waiter.join().expect("it came back");
    });
}

#[test]
fn only_lanes_without_connections_and_messages_go() {
    let [(zero, _), (held, _), (linked, _), (idle, _)] = lanes(terms(1, 4));
    accept(&held, 1, &[A]);
    for (desk, link) in [(&zero, 0), (&held, 1), (&idle, 3)] {
        desk.leave(link);
    }
    let (desks, start) = (&zero.desks, Instant::now());
    assert_eq!(desks.remove_idle(TIMEOUT, false, start), [0; 0]);
    assert_eq!(desks.remove_idle(TIMEOUT, false, start + TIMEOUT / 2), [0; 0]);
    assert_eq!(desks.remove_idle(TIMEOUT, false, start + TIMEOUT), [3]);
    assert_eq!(refusal(idle.lead(9, &Arc::default(), Epoch(9), ReadyFlags::COMMITS, start)), ErrorCode::Unavailable);
    begin(&held);
    held.ack([A].into_iter());
    assert_eq!(desks.remove_idle(TIMEOUT, true, start + TIMEOUT), [1], "room is wanted");
    assert_eq!(desks.remove_idle(TIMEOUT, true, start + 3 * TIMEOUT), [0; 0]);
    linked.leave(2);
    assert_eq!(desks.remove_idle(Duration::ZERO, false, start), [2]);
    assert_eq!(zero.stats().lanes().len(), 1);
    // What is told a lane that is gone has no effect.
    idle.ack([A].into_iter());
    assert!(!idle.leave(3));
}
