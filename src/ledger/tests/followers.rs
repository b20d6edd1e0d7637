//! Following a stream: each entry once, and how many were trimmed before they could be read.

use super::reading::EntryStream;
use super::*;

const KEY: &str = "messages:processed";

impl Fixture {
    fn add(&mut self, numbers: std::ops::Range<u64>) {
        numbers.for_each(|number| drop(self.run(&["XADD", KEY, "*", "n", &number.to_string()])));
    }

    /// Reads to the end. Returns the numbers of the entries, and how many were skipped.
    fn follow(&mut self, follower: &mut Follower) -> (Vec<u64>, u64) {
        let (mut numbers, mut skipped) = (Vec::new(), 0);
        loop {
            let followed = follower.read(&mut self.ledger).expect("it can be read");
            skipped += followed.skipped;
            if followed.entries.is_empty() {
                return (numbers, skipped);
            }
            numbers.extend(followed.entries.iter().map(|entry| entry.text("n").parse::<u64>().expect("a number")));
        }
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn each_entry_is_read_once_from_where_it_begins() {
    let mut f = fixture();
    let mut before = Follower::from_now(&mut f.ledger, EntryStream::Processed).expect("no stream is needed");
    f.add(0..3);
    let mut now = Follower::from_now(&mut f.ledger, EntryStream::Processed).expect("it is read");
    let mut all = Follower::from_start(EntryStream::Processed);
    let mut recent = Follower::since(EntryStream::Processed, 1_000);
    for follower in [&mut before, &mut all, &mut recent] {
        assert_eq!(f.follow(follower), (numbers(0..3), 0));
    }
    assert_eq!(f.follow(&mut now), (numbers(0..0), 0));
    f.add(3..5);
    for follower in [&mut now, &mut before, &mut all, &mut recent] {
        assert_eq!(f.follow(follower), (numbers(3..5), 0));
    }
}

#[test]
fn what_was_trimmed_before_it_was_read_is_counted() {
    let mut f = fixture();
    f.add(0..5);
    let has_counts = !f.redis.version().expect("it answers").starts_with("redis 6.");
    let counted = |skipped: u64| if has_counts { skipped } else { 0 };
    let mut follower = Follower::from_start(EntryStream::Processed);
    assert_eq!(f.follow(&mut follower), (numbers(0..5), 0));
    f.run(&["XTRIM", KEY, "MAXLEN", "2"]);
    f.add(5..9);
    assert_eq!(f.follow(&mut follower), (numbers(5..9), 0), "those that were trimmed had been read");
    f.add(9..20);
    f.run(&["XTRIM", KEY, "MAXLEN", "4"]);
    assert_eq!(f.follow(&mut follower), (numbers(16..20), counted(7)));
    f.add(20..22);
    f.run(&["XTRIM", KEY, "MAXLEN", "0"]);
    assert_eq!(f.follow(&mut follower), (numbers(0..0), counted(2)));
    f.add(22..23);
    assert_eq!(f.follow(&mut follower), (numbers(22..23), 0));
    let mut recent = Follower::since(EntryStream::Processed, 1_000);
    f.run(&["XTRIM", KEY, "MAXLEN", "0"]);
    f.add(23..24);
    assert_eq!(f.follow(&mut recent), (numbers(23..24), 0), "nothing was missed of what it had not begun");
}

#[test]
fn a_stream_that_was_lost_or_restored_is_followed_from_its_end() {
    let mut f = fixture();
    f.add(0..5);
    let mut follower = Follower::from_start(EntryStream::Processed);
    f.follow(&mut follower);
    f.run(&["DEL", KEY]);
    f.run(&["XADD", KEY, "1-1", "n", "100"]);
    let followed = follower.read(&mut f.ledger).expect("it is read");
    assert!(followed.went_back && followed.entries.is_empty(), "{followed:?}");
    f.add(101..103);
    assert_eq!(f.follow(&mut follower), (numbers(101..103), 0));
}

#[test]
fn a_page_is_bounded_by_bytes_and_a_wait_by_time() {
    let mut f = fixture();
    let large = "x".repeat(900_000);
    (0..3).for_each(|n| drop(f.run(&["XADD", KEY, "*", "n", &n.to_string(), "x", &large])));
    let mut follower = Follower::from_start(EntryStream::Processed);
    let first = follower.read(&mut f.ledger).expect("it is read");
    assert!(first.entries.len() < 3, "{}", first.entries.len());
    f.follow(&mut follower);
    follower.wait(&mut f.ledger, 10).expect("it returns when nothing comes");
    f.add(3..4);
    follower.wait(&mut f.ledger, 10_000).expect("it returns at once");
    assert_eq!(f.follow(&mut follower), (numbers(3..4), 0));
}
