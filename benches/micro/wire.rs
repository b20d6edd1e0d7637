//! Frames: the cost of a message on its way to a consumer, and of the ACK on its way back. Buffers are reused, as in
//! the connections of the programs.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use oncecast::base::id::MessageId;
use oncecast::ledger::Payload;
use oncecast::wire::{Frame, frames};

use crate::messages::{BATCH, ids, payloads};

/// The ids in an ACK.
const ACKED: usize = 1_000;

fn encode_processes(messages: &[(MessageId, Payload)], out: &mut Vec<u8>) {
    out.clear();
    for (id, body) in messages {
        Frame::Process { id: *id, delivery: 1, body }.encode(out);
    }
}

fn messages() -> Vec<(MessageId, Payload)> {
    ids(BATCH).into_iter().zip(payloads(BATCH)).collect()
}

fn decode(bencher: Bencher<'_, '_>, message: &[u8], items: usize) {
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        for frame in frames(black_box(message)) {
            drop(black_box(frame.expect("it was encoded here")));
        }
    });
}

#[divan::bench]
fn encode_256_process(bencher: Bencher<'_, '_>) {
    let messages = messages();
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        encode_processes(black_box(&messages), &mut out);
        black_box(out.as_slice());
    });
}

#[divan::bench]
fn decode_256_process(bencher: Bencher<'_, '_>) {
    let mut message = Vec::new();
    encode_processes(&messages(), &mut message);
    decode(bencher, &message, BATCH);
}

#[divan::bench]
fn encode_ack_of_1000(bencher: Bencher<'_, '_>) {
    let ack = Frame::Ack(ids(ACKED));
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(ACKED)).bench_local(|| {
        out.clear();
        black_box(&ack).encode(&mut out);
        black_box(out.as_slice());
    });
}

#[divan::bench]
fn decode_ack_of_1000(bencher: Bencher<'_, '_>) {
    decode(bencher, &Frame::Ack(ids(ACKED)).to_vec(), ACKED);
}
