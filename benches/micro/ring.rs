//! The ring: the work of every dispatcher for each message, and the time in which a new leader finds the cursor.

use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use oncecast::base::id::{Epoch, MessageId};
use oncecast::lane::ring::{Limits, RETAIN, Resolution, Ring, Standing, Taken};
use oncecast::ledger::subscription::{Published, Seen};
use oncecast::ledger::{Body, Cursor, Marker, Payload, Position};

use crate::messages::{BATCH, payloads};

const EPOCH: Epoch = Epoch(1_795_641_000_000);
/// The time between two batches by the cursor's clock: 25,600 messages/s.
const BATCH_EVERY: Duration = Duration::from_millis(10);
/// A leader publishes a marker every 100 ms.
const BATCHES_FOR_A_MARKER: u32 = 10;
/// More than the ring ever holds.
const RING_BYTES: usize = 1 << 30;

fn published(payload: &Payload) -> Seen {
    Seen::Published(Published::Message(Body::of(payload.clone())))
}

fn marker(number: u64) -> Seen {
    Seen::Marker(Marker::of_leader(EPOCH, number))
}

fn cursor(marker: u64, offset: u64) -> Cursor {
    Cursor { position: Position { marker: Marker::of_leader(EPOCH, marker), offset }, last_id: MessageId(1) }
}

fn found(ring: &Ring, cursor: &Cursor) -> Resolution {
    ring.resolve(Some(cursor)).expect("the ring is live")
}

/// A leader's work on the batches between two markers: each is appended and taken, and messages that the cursor passed
/// long enough ago are released, about once per marker. The cursor's clock advances with the batches, so that the ring
/// is as full as under that load.
#[divan::bench]
fn append_and_take_10_times_256(bencher: Bencher<'_, '_>) {
    let ring = Ring::new(RING_BYTES);
    ring.begin_segment();
    ring.append([marker(0)]);
    let mut place = found(&ring, &cursor(0, 0)).place;
    let mut now = Instant::now();
    let limits = Limits { messages: BATCH + 1, bytes: 1 << 20 };
    let mut step = |seen: Vec<Seen>| {
        ring.append(seen);
        let taken = ring.take(place, None, limits, now);
        let Taken::Batch { messages, place: after, .. } = &taken else { panic!("{taken:?}") };
        assert_eq!(messages.len(), BATCH);
        place = *after;
        now += BATCH_EVERY;
        ring.note_cursor(place, now);
        taken
    };
    let mut markers = 0;
    let mut next = || -> Vec<Vec<Seen>> {
        markers += 1;
        let batch = |_| payloads(BATCH).iter().map(published).collect();
        let mut batches: Vec<Vec<Seen>> = (0..BATCHES_FOR_A_MARKER).map(batch).collect();
        batches[0].insert(0, marker(markers));
        batches
    };
    // The ring has its normal size when the first messages are released.
    for _ in 0..2 * RETAIN.as_millis() / (BATCH_EVERY * BATCHES_FOR_A_MARKER).as_millis() {
        next().into_iter().for_each(|batch| drop(step(batch)));
    }
    assert!(ring.stats().messages < ring.stats().seen as usize, "messages are released");
    bencher
        .counter(ItemsCount::new(BATCHES_FOR_A_MARKER as usize * BATCH))
        .with_inputs(next)
        // The messages taken are dropped outside the measured time, since dropping them is not the ring's work.
        .bench_local_values(|batches| batches.into_iter().map(&mut step).collect::<Vec<_>>());
}

/// The messages in the ring in which the cursor is searched.
const MESSAGES: u64 = 600_000;
const MESSAGES_FOR_A_MARKER: u64 = 30_000;
const MESSAGES_OF_A_SEGMENT: u64 = 150_000;
const LAST_MARKER: u64 = MESSAGES / MESSAGES_FOR_A_MARKER - 1;

fn large_ring() -> Ring {
    let ring = Ring::new(RING_BYTES);
    let all = payloads(MESSAGES_FOR_A_MARKER as usize);
    for number in 0..=LAST_MARKER {
        if (number * MESSAGES_FOR_A_MARKER).is_multiple_of(MESSAGES_OF_A_SEGMENT) {
            ring.begin_segment();
        }
        ring.append([marker(number)]);
        ring.append(all.iter().map(published));
    }
    assert_eq!(ring.stats().messages as u64, MESSAGES);
    ring
}

fn resolve(bencher: Bencher<'_, '_>, cursor: Cursor, expected: Standing) {
    let ring = large_ring();
    assert_eq!(found(&ring, &cursor).standing, expected);
    bencher.bench_local(|| black_box(found(&ring, black_box(&cursor))));
}

/// What a standby in sync does at every check of the lease.
#[divan::bench]
fn resolve_the_newest_of_600000(bencher: Bencher<'_, '_>) {
    resolve(bencher, cursor(LAST_MARKER, MESSAGES_FOR_A_MARKER / 2), Standing::InSync);
}

/// All markers are compared.
#[divan::bench]
fn resolve_the_oldest_of_600000(bencher: Bencher<'_, '_>) {
    resolve(bencher, cursor(0, MESSAGES_FOR_A_MARKER / 2), Standing::Continues);
}

/// All markers are compared twice, the second time to find a later one. The cursor's marker is of an older epoch, so it
/// is before the whole ring.
#[divan::bench]
fn resolve_one_before_all_600000(bencher: Bencher<'_, '_>) {
    let marker = Marker::of_leader(Epoch(EPOCH.0 - 1), 7);
    resolve(bencher, Cursor { position: Position { marker, offset: 1 }, last_id: MessageId(1) }, Standing::Beyond);
}
