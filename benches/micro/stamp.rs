//! The handler `stamp`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use oncecast::Delivery;
use oncecast::programs::consumer::stamp;

use crate::messages::payload;

#[divan::bench]
fn one_member_of_53_bytes(bencher: Bencher<'_, '_>) {
    measure(bencher, &payload(7));
}

#[divan::bench]
fn ten_members(bencher: Bencher<'_, '_>) {
    const OTHERS: &str = r#""kind":"order","customer":"c-81723","amount":1299,"currency":"EUR","paid":true,"note":null,
        "lines":[{"sku":"a-1","count":2}, {"sku":"b-7","count":1}],"title":"two \"quoted\" words","at":1795641234.567"#;
    measure(bencher, &payload(7).replace('}', &format!(",{OTHERS}}}")));
}

fn measure(bencher: Bencher<'_, '_>, payload: &str) {
    let delivery = Delivery::new(payload);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| drop(black_box(stamp(black_box(&delivery)))));
}
