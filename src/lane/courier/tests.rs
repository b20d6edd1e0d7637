use std::io::Write;
use std::net::TcpStream;

use crossbeam_channel::bounded;

use super::choice::{MAX_RUN, SHORT_RUN};
use super::*;
use crate::base::budget::Budget;
use crate::lane::dialers::Dialers;
use crate::lane::group_settings::KnownSettings;
use crate::lane::table::{Again, Loss, Whereabouts};
use crate::lane::tests::{lane_of, link, message};
use crate::ledger::{Commit, GroupSettings, Page, Pause, PauseEnd, SettingsReading, Words};

/// A courier with links to peers that read nothing. The fields are in the order in which they must be dropped.
struct Rig {
    courier: Courier,
    peers: Vec<TcpStream>,
    replies: Sender<RedistributorReply>,
    _dialers: Dialers,
}

impl Rig {
    fn new(prefetches: &[u32]) -> Rig {
        let addresses: Vec<String> = (1..=prefetches.len()).map(|port| format!("127.0.0.1:{port}")).collect();
        let shared = &lane_of(addresses);
        let dialers = Dialers::start(shared).expect("threads");
        let (redistributor, replies) = bounded(1);
        let channels =
            CourierChannels { arrivals: bounded(1).1, replies, tasks: bounded(1).0, dial: dialers.requests() };
        let kill = KillSwitch::until(Instant::now() + Duration::from_secs(3600));
        let sockets = Sockets::new().expect("a poller");
        let mut courier = Courier::new(shared, Epoch(1), (MessageId::ZERO, None), kill, sockets, channels);
        let (links, peers) = prefetches.iter().map(|prefetch| link(*prefetch)).unzip::<_, _, Vec<_>, _>();
        for (slot, link) in links.into_iter().enumerate() {
            courier.links.open(slot);
            courier.sockets.add(link.socket.stream(), slot).expect("it is watched");
            courier.links.put(slot, link);
        }
        Rig { courier, peers, replies: redistributor, _dialers: dialers }
    }
}

fn held(courier: &Courier) -> Vec<usize> {
    courier.links.iter().map(|link| link.places.taken()).collect()
}

fn deliver(courier: &mut Courier, ids: std::ops::RangeInclusive<u64>) {
    ids.for_each(|id| assert!(courier.table.admit(message(id, 1))));
    courier.deliver();
}

/// Where the first so many messages are, and how many in a row go to the same place.
fn runs(courier: &Courier, ids: std::ops::RangeInclusive<u64>) -> Vec<(usize, usize)> {
    let at = |id| match courier.table.whereabouts(MessageId(id)) {
        Some(Whereabouts::Sent(link)) => link,
        other => panic!("{id} is {other:?}"),
    };
    let places: Vec<usize> = ids.map(at).collect();
    places.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect()
}

#[test]
fn consecutive_messages_are_sent_in_runs() {
    let mut rig = Rig::new(&[1_000, 1_000]);
    deliver(&mut rig.courier, 1..=400);
    assert_eq!(runs(&rig.courier, 1..=192), [(0, 64), (1, 64), (0, 64)]);
    let held = held(&rig.courier);
    assert!(held[0].abs_diff(held[1]) <= MAX_RUN, "{held:?}");
}

/// Each consumer is done with one more message, which it has had since then.
fn finish(courier: &mut Courier, since: Instant) {
    for link in courier.links.iter_mut() {
        link.places.give(&message(1_000, 1), since);
        link.finish(MessageId(1_000)).expect("it has a place");
    }
}

#[test]
fn a_few_messages_are_divided_among_consumers_unless_these_answer_soon() {
    let mut rig = Rig::new(&[1_000, 1_000]);
    let lengths = |rig: &mut Rig, ids: std::ops::RangeInclusive<u64>| -> Vec<usize> {
        deliver(&mut rig.courier, ids.clone());
        runs(&rig.courier, ids).into_iter().map(|(_, length)| length).collect()
    };
    assert_eq!(lengths(&mut rig, 1..=4), [2, 2], "nothing is known about them");
    // A time to come, because this thread may be interrupted.
    let hour = Duration::from_secs(3600);
    finish(&mut rig.courier, Instant::now() + hour);
    assert_eq!(lengths(&mut rig, 5..=8), [4]);
    assert_eq!(lengths(&mut rig, 9..=14), [4, 2], "the freer one gets the first");
    let slow = Instant::now().checked_sub(Duration::from_millis(10)).expect("the machine has run for longer");
    finish(&mut rig.courier, slow);
    assert_eq!(lengths(&mut rig, 15..=18), [2, 2]);
}

#[test]
fn small_prefetches_are_filled_evenly() {
    for (prefetches, messages) in [(&[4, 4, 4][..], 6), (&[16; 3], 24), (&[2, 20], 11), (&[1, 1, 1, 1], 3)] {
        let mut rig = Rig::new(prefetches);
        deliver(&mut rig.courier, 1..=messages);
        let shares =
            held(&rig.courier).into_iter().zip(prefetches).map(|(held, prefetch)| held as f64 / f64::from(*prefetch));
        let (least, most) = shares.fold((1.0_f64, 0.0_f64), |(least, most), share| (least.min(share), most.max(share)));
        let one = 1.0 / f64::from(prefetches[0]);
        assert!(most - least <= one, "{prefetches:?}: {:?}", held(&rig.courier));
    }
}

#[test]
fn a_few_messages_at_once_are_divided_among_all_consumers() {
    let mut rig = Rig::new(&[1_000; 4]);
    deliver(&mut rig.courier, 1..=10);
    assert_eq!(held(&rig.courier).iter().max(), Some(&3), "{:?}", held(&rig.courier));
    assert_eq!(held(&rig.courier).iter().min(), Some(&1));
    let mut rig = Rig::new(&[1_000; 4]);
    (1..=4).for_each(|id| deliver(&mut rig.courier, id..=id));
    assert_eq!(held(&rig.courier), [1; 4]);
}

#[test]
fn a_run_ends_where_the_link_is_full() {
    let mut rig = Rig::new(&[20]);
    deliver(&mut rig.courier, 1..=30);
    assert_eq!((held(&rig.courier), rig.courier.table.ready_len()), (vec![20], 10));
}

/// A redelivery goes to a link that has released the message, if there is one.
#[test]
fn a_redelivery_joins_no_run_to_a_link_that_still_holds_it() {
    let mut rig = Rig::new(&[1_000, 1_000]);
    deliver(&mut rig.courier, 1..=1);
    assert_eq!(held(&rig.courier), [1, 0]);
    // Both links are equally free now, and the search begins at the first.
    deliver(&mut rig.courier, 2..=2);
    let link = rig.courier.links.get_mut(0).expect("it is linked");
    assert_eq!(link.take_overdue(Duration::ZERO, Instant::now()).len(), 1);
    let budget = Budget::new(1 << 20);
    let again = |id: u64, delivery| Again::new(Pending { delivery, ..message(id, 1) }, None::<Loss>, &budget);
    for (id, delivery) in [(10, 1), (1, 2), (11, 1), (12, 1)] {
        rig.courier.table.set_away(MessageId(id));
        assert!(rig.courier.table.readmit(again(id, delivery)));
    }
    rig.courier.deliver();
    assert_eq!(rig.courier.table.whereabouts(MessageId(1)), Some(Whereabouts::Sent(1)));
    let link = rig.courier.links.get(0).expect("it is linked");
    assert!(link.still_holds(&Pending { delivery: 2, ..message(1, 1) }), "its place there is taken");
}

#[test]
fn a_paused_consumer_gets_nothing_and_keeps_no_places_from_others() {
    let mut rig = Rig::new(&[4, 4]);
    rig.courier.links.get_mut(0).expect("it is linked").set_prefetch(0);
    deliver(&mut rig.courier, 1..=4);
    assert_eq!(held(&rig.courier), [0, 4]);
    let overdue = |rig: &mut Rig| {
        let link = rig.courier.links.get_mut(1).expect("it is linked");
        link.take_overdue(Duration::ZERO, Instant::now()).len()
    };
    assert_eq!(overdue(&mut rig), 4);
    deliver(&mut rig.courier, 5..=6);
    assert_eq!(held(&rig.courier), [0, 2], "the overdue ones gave up their places");
    // A paused consumer's own places stay: it gets no others for them.
    assert_eq!(overdue(&mut rig), 2);
    rig.courier.links.get_mut(1).expect("it is linked").set_prefetch(0);
    deliver(&mut rig.courier, 7..=7);
    assert_eq!(held(&rig.courier), [0, 2]);
    rig.courier.links.get_mut(0).expect("it is linked").set_prefetch(u32::MAX);
    rig.courier.deliver();
    assert_eq!(held(&rig.courier), [1, 2]);
}

/// Makes the courier keep to these settings.
fn set(rig: &mut Rig, settings: GroupSettings) {
    let reading = SettingsReading { settings, ..SettingsReading::default() };
    rig.courier.keep_to(&KnownSettings::now(reading));
}

#[test]
fn while_the_group_is_paused_nothing_is_sent_and_no_place_is_freed() {
    let mut rig = Rig::new(&[2, 2]);
    deliver(&mut rig.courier, 1..=4);
    let pause = Pause { until: PauseEnd::Never, since_ms: None, by: String::new() };
    set(&mut rig, GroupSettings { pause: Some(pause), ..GroupSettings::default() });
    rig.courier.links.iter_mut().for_each(|link| {
        assert_eq!(link.take_overdue(Duration::ZERO, Instant::now()).len(), 2);
    });
    deliver(&mut rig.courier, 5..=8);
    assert_eq!((held(&rig.courier), rig.courier.table.ready_len()), (vec![2, 2], 4));
    assert_eq!(rig.courier.longest_wait(), rig.courier.patience, "it does not turn for nothing");
    set(&mut rig, GroupSettings::default());
    rig.courier.deliver();
    assert_eq!((held(&rig.courier), rig.courier.table.ready_len()), (vec![2, 2], 0));
}

#[test]
fn all_links_together_hold_no_more_than_the_most_in_flight() {
    let mut rig = Rig::new(&[1_000, 1_000, 1_000]);
    set(&mut rig, GroupSettings { max_in_flight: Some(5), ..GroupSettings::default() });
    deliver(&mut rig.courier, 1..=20);
    assert_eq!(held(&rig.courier), [0, 0, 0], "what consumers hold is not known yet");
    (0..3).for_each(|index| rig.courier.consumer_reports.note_answer(index));
    let Courier { consumer_reports, roster, .. } = &mut rig.courier;
    consumer_reports.check(3, roster);
    rig.courier.deliver();
    assert_eq!(held(&rig.courier).iter().sum::<usize>(), 5);
    // What a consumer no longer reports leaves room.
    let link = rig.courier.links.get_mut(0).expect("it is linked");
    let overdue = link.take_overdue(Duration::ZERO, Instant::now()).len();
    assert!(overdue > 0);
    rig.courier.deliver();
    assert_eq!(held(&rig.courier).iter().sum::<usize>(), 5 + overdue);
    set(&mut rig, GroupSettings::default());
    rig.courier.deliver();
    assert_eq!(rig.courier.table.ready_len(), 0);
}

#[test]
fn a_rate_is_shared_by_both_lines_and_all_links() {
    let mut rig = Rig::new(&[1_000, 1_000]);
    // A message a day.
    set(&mut rig, GroupSettings { rate: "0.04/h".parse().ok(), ..GroupSettings::default() });
    let budget = Budget::new(1 << 20);
    let loss = || Some(Loss { consumer: "c0".into(), reason: "lost".into() });
    for id in 1..=3 {
        rig.courier.table.set_away(MessageId(id));
        let again = Again::new(Pending { delivery: 2, ..message(id, 1) }, loss(), &budget);
        assert!(rig.courier.table.readmit(again));
    }
    deliver(&mut rig.courier, 10..=20);
    rig.courier.deliver();
    assert_eq!(held(&rig.courier).iter().sum::<usize>(), 1);
    assert_eq!(rig.courier.table.line_len(Line::Suspects), 2, "a suspect was first");
}

#[test]
fn runs_are_bounded() {
    let run = |room, share| run_length(Line::Common, room, share, false);
    assert_eq!(
        [run(10_000, 10_000), run(80, 10_000), run(10_000, 5), run(1, 10_000), run(10_000, 0)],
        [64, 10, 5, 1, 1]
    );
    let quick = |room, share| run_length(Line::Common, room, share, true);
    assert_eq!([quick(10_000, 10_000), quick(10_000, 1), quick(16, 1), quick(4, 1)], [64, SHORT_RUN, 2, 1]);
    assert_eq!(run_length(Line::Suspects, 10_000, 10_000, true), 1);
}

/// The consumer's ERROR may be read before the newer link is taken over, so no two links are ever seen side by side.
#[test]
fn a_consumer_whose_link_was_replaced_has_two_addresses() {
    let mut rig = Rig::new(&[1, 1]);
    let links = &mut rig.courier.links;
    let consumer = links.get(0).expect("it is linked").consumer.clone();
    links.note_replaced(0);
    (0..2).for_each(|index| drop(links.take(index)));
    assert_eq!(links.new_duplicate(0, &consumer), None, "it may come back at its own address");
    assert_eq!(links.new_duplicate(1, &consumer), Some(0));
    assert_eq!(links.new_duplicate(1, &consumer), None, "it is reported once");
}

/// A consumer may list it in HELD before its page comes.
#[test]
fn what_must_wait_is_not_delivered_unless_a_consumer_has_it_already() {
    let mut rig = Rig::new(&[4]);
    let courier = &mut rig.courier;
    courier.backlog = Backlog::new(MessageId(9));
    courier.backlog.request(1).expect("there is something to read");
    courier.table.adopt(MessageId(2), 0);
    let delayed = [2, 3].map(|id| (message(id, 2), Duration::from_secs(60))).to_vec();
    courier.read_back(Page { read_up_to: Some(MessageId(9)), messages: vec![message(1, 1)], delayed });
    courier.deliver();
    let at = |id| courier.table.whereabouts(MessageId(id));
    assert_eq!([1, 2, 3].map(at), [Some(Whereabouts::Sent(0)), Some(Whereabouts::Sent(0)), Some(Whereabouts::Away)]);
}

#[test]
fn a_link_that_was_put_off_is_read_when_results_are_recorded_although_nothing_new_arrives() {
    let mut rig = Rig::new(&[10, 10]);
    let courier = &mut rig.courier;
    // More than may wait for one link, and less.
    let (much, little) = (5 << 20, 1 << 10);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine has run for longer");
    for (link, bytes) in [(0, much), (1, little)] {
        courier.record(link, vec![Commit { id: MessageId(1), fields: Words::default() }], bytes, false);
        courier.links.get_mut(link).expect("it is there").last_heard = long_ago;
    }
    // An empty ping of WebSocket.
    rig.peers.iter_mut().for_each(|peer| peer.write_all(&[0x89, 0]).expect("it is written"));
    let mut reported = Vec::new();
    while reported.len() < 2 {
        let keys = courier.sockets.wait(Duration::from_secs(10)).expect("it waits");
        assert!(!keys.is_empty(), "{reported:?}");
        reported.extend(keys.iter().copied());
        courier.read_links(keys);
    }
    let heard = |courier: &Courier| courier.links.iter().map(|link| link.last_heard > long_ago).collect::<Vec<_>>();
    assert_eq!(heard(courier), [false, true]);
    assert_eq!(courier.sockets.wait(Duration::ZERO).expect("it waits"), [0; 0], "reported once");
    assert_ne!(courier.longest_wait(), Duration::ZERO, "nobody waits for it in vain");

    let serial = courier.links.get(0).expect("it is there").serial;
    let recorded = RedistributorReply::Committed { link: 0, serial, ids: vec![], bytes: much };
    rig.replies.send(recorded).expect("the courier has the other end");
    courier.hear_redistributor();
    assert_eq!(courier.longest_wait(), Duration::ZERO);
    courier.read_links(Vec::new());
    assert_eq!(heard(courier), [true, true]);
}
