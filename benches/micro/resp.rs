//! The Redis protocol: reading published messages, and writing the results of a batch.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use oncecast::ledger::Words;
use oncecast::ledger::command::{begin, word};
use oncecast::ledger::resp::{Received, receive};
use oncecast::wire::MAX_BODY_BYTES;

use crate::messages::payload;

const MANY: usize = 1_000;

#[divan::bench]
fn receive_1000_pushes(bencher: Bencher<'_, '_>) {
    let push = |number| {
        let payload = payload(number);
        let channel = "messages:published";
        format!(">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n", channel.len(), payload.len())
    };
    let bytes = (0..MANY as u64).map(push).collect::<String>().into_bytes();
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| {
        let mut rest = black_box(bytes.as_slice());
        while let Some((received, length)) = receive(rest, MAX_BODY_BYTES as u64).expect("it is RESP3") {
            assert!(matches!(black_box(received), Received::Message { .. }));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    });
}

/// Like a committer: the handler's thread has already encoded the fields as words.
#[divan::bench]
fn write_1000_xadds(bencher: Bencher<'_, '_>) {
    let fields = |number: u64| -> Words {
        let id = format!("01890a5d-ac96-774b-bcce-{number:012x}");
        ["message_id", &id, "random_property", "0a1b2c3d", "consumer_id", "consumer-1"].into_iter().collect()
    };
    let results: Vec<Words> = (0..MANY as u64).map(fields).collect();
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| {
        out.clear();
        for fields in black_box(&results) {
            begin(&mut out, 3 + fields.len());
            word(&mut out, "XADD");
            word(&mut out, "messages:processed");
            word(&mut out, "*");
            out.extend_from_slice(fields.bytes());
        }
        black_box(out.as_slice());
    });
}
