//! The time of a message's next delivery, which Redis keeps beside the number of that delivery.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// How much time may pass between two steps of a test.
const SLACK: Duration = Duration::from_secs(20);

fn failed(id: u64) -> Returned {
    Returned { hold: Hold::Released, ..returned(id, Verdict::Failed) }
}

impl Fixture {
    fn settle_later(&mut self, epoch: Epoch, returned: &Returned, delivery: u16, wait: Duration) {
        self.ledger.settle(epoch, 8, &[Settling { returned, delivery, wait }]).expect("it is settled");
    }

    /// What `attempts` has for a message.
    fn attempts(&mut self, id: u64) -> Option<String> {
        text(&self.run(&["HGET", "messages:attempts", &id.to_string()])).map(str::to_owned)
    }

    fn write_attempts(&mut self, id: u64, value: &str) {
        self.run(&["HSET", "messages:attempts", &id.to_string(), value]);
    }

    /// Redis's time in milliseconds.
    fn now_ms(&mut self) -> u64 {
        let Value::Array(time) = self.run(&["TIME"]) else { panic!("no time") };
        let part = |index: usize| text(&time[index]).and_then(|part| part.parse::<u64>().ok()).expect("a number");
        part(0) * 1_000 + part(1) / 1_000
    }

    fn whole_page(&mut self, epoch: Epoch) -> Page {
        self.ledger.page(epoch, part(MessageId::ZERO, MessageId(100), 100, 1 << 20)).expect("it is read")
    }
}

/// When a delivery is due and how long it was to wait, in milliseconds.
fn due_of(value: &str) -> (u64, u64) {
    let mut words = value.split(' ').skip(1);
    let mut number = |sign| words.next().and_then(|word| word.strip_prefix(sign)?.parse().ok()).expect("a time");
    (number('@'), number('+'))
}

#[test]
fn a_delay_is_kept_with_the_count_and_only_its_end_matters() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2, 3]);
    let before = f.now_ms();
    f.settle_later(epoch, &failed(2), 1, MINUTE);
    let value = f.attempts(2).expect("it is counted");
    let (due, wait) = due_of(&value);
    assert!(value.starts_with("2 @") && wait == 60_000, "{value}");
    assert!((before + 60_000..=f.now_ms() + 60_001).contains(&due), "{value}");
    // The reply was lost, so the call is repeated.
    f.settle_later(epoch, &failed(2), 1, MINUTE);
    assert_eq!(f.attempts(2), Some(value));
    let page = f.whole_page(epoch);
    assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [1, 3]);
    let [(Pending { id: MessageId(2), .. }, left)] = page.delayed[..] else { panic!("{page:?}") };
    assert!(MINUTE - SLACK < left && left <= MINUTE, "{left:?}");
    let fetched = f.ledger.fetch(epoch, &[1, 2].map(MessageId), 1_000).expect("they are read");
    assert_eq!((fetched.looked_at, fetched.messages.len(), fetched.delayed.len()), (2, 1, 1), "{fetched:?}");
    assert!(fetched.delayed[0].0.id == MessageId(2) && fetched.delayed[0].1 <= left, "{fetched:?}");
    assert_eq!(f.ledger.deliveries(&[MessageId(2)]).expect("they are read"), [2]);
}

#[test]
fn what_is_due_comes_as_before() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2]);
    f.settle_later(epoch, &failed(1), 1, Duration::ZERO);
    assert_eq!(f.attempts(1).as_deref(), Some("2"), "no wait, no time");
    f.settle_later(epoch, &failed(2), 1, Duration::from_millis(50));
    assert!(due_of(&f.attempts(2).expect("a time")).1 == 50);
    let page = wait_until(Duration::from_secs(10), "it is due", || {
        let page = f.whole_page(epoch);
        Ok(page.delayed.is_empty().then_some(page))
    });
    let page = page.expect("it becomes due");
    let now = f.now_ms();
    assert!(due_of(&f.attempts(2).expect("a time")).0 <= now, "it came before its time");
    let numbers: Vec<_> = page.messages.iter().map(|message| (message.id.0, message.delivery)).collect();
    assert_eq!(numbers, [(1, 2), (2, 2)]);
    assert_eq!(page.messages[1].body, Body::copied(None, b"x"));
}

#[test]
fn a_later_delivery_has_a_time_of_its_own_or_none() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    let history = " 1 8 1790000000123 the first, with @9 +9";
    f.write_attempts(1, &format!("1{history}"));
    f.settle_later(epoch, &failed(1), 1, MINUTE);
    let first = f.attempts(1).expect("a time");
    assert!(first.starts_with("2 @") && first.ends_with(history), "{first}");
    f.settle_later(epoch, &failed(1), 2, 2 * MINUTE);
    let second = f.attempts(1).expect("a time");
    assert!(second.starts_with("3 @") && second.ends_with(history) && due_of(&second).1 == 120_000, "{second}");
    // A call that arrives late changes nothing.
    f.settle_later(epoch, &failed(1), 1, MINUTE);
    assert_eq!(f.attempts(1), Some(second));
    // Its consumer was lost before, so this delivery is counted when it is sent.
    f.ledger.count_deliveries(epoch, &[(MessageId(1), 4)]).expect("they are counted");
    assert_eq!(f.attempts(1), Some(format!("4{history}")), "it is under way");
    f.settle_later(epoch, &failed(1), 8, MINUTE);
    let Value::Array(letters) = f.run(&["XRANGE", "messages:dead", "-", "+"]) else { panic!("no stream") };
    let letter = format!("{letters:?}");
    assert_eq!((letters.len(), f.attempts(1)), (1, None));
    assert!(letter.contains("replays") && letter.contains("earlier_deliveries"), "{letter}");
}

#[test]
fn the_history_of_a_delayed_message_reaches_its_letter() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    f.write_attempts(1, "7 1 8 1790000000123 why");
    f.settle_later(epoch, &failed(1), 7, MINUTE);
    f.settle_later(epoch, &Returned { verdict: Verdict::Rejected, ..failed(1) }, 8, Duration::ZERO);
    let letter = format!("{:?}", f.run(&["XRANGE", "messages:dead", "-", "+"]));
    assert!(letter.contains("first_reason") && letter.contains("why"), "{letter}");
    assert_eq!(f.attempts(1), None);
}

#[test]
fn a_replay_takes_the_delay_away() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    f.settle_later(epoch, &failed(1), 1, MINUTE);
    f.settle_later(epoch, &Returned { verdict: Verdict::Rejected, ..failed(1) }, 2, MINUTE);
    assert_eq!(f.attempts(1), None, "nor has a dead letter one");
    let letter = replays::letters(&mut f).remove(0);
    assert_eq!(replays::replay(&mut f, &[&letter.id]), [Replayed::Replayed]);
    assert_eq!(
        (f.whole_page(epoch).messages.len(), f.attempts(1).is_some_and(|value| value.contains('@'))),
        (1, false)
    );
}

#[test]
fn values_of_other_programs_and_clocks_are_bounded() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    let now = f.now_ms();
    let (hour, day) = (3_600_000, 86_400_000);
    for (value, delivery, wait_ms) in [
        // Earlier releases wrote these.
        ("2".to_owned(), 2, None),
        ("1 1 8 1790000000123 why".to_owned(), 1, None),
        ("3 1 8 1790000000123 @1 +1".to_owned(), 3, None),
        ("3 5000".to_owned(), 3, None),
        ("3 99999999999".to_owned(), 3, None),
        // Past, and ahead.
        (format!("2 @{} +{hour}", now - 1), 2, None),
        (format!("2 @{} +{hour}", now + hour), 2, Some(hour)),
        (format!("2 @{} +{hour} 1 8 1790000000123 why", now + hour), 2, Some(hour)),
        // The longest that a consumer can ask for.
        (format!("2 @{} +4294967295", now + 4_294_967_295), 2, Some(4_294_967_295)),
        // The clock was set back.
        (format!("2 @{} +{hour}", now + day), 2, Some(hour)),
        (format!("2 @{} +{hour}", now + day + hour + 60_000), 2, None),
        // No dispatcher wrote these.
        (format!("2 @{} +4294967296", now + hour), 2, None),
        (format!("2 @{} +{}", now + hour, "9".repeat(400)), 2, None),
        (format!("2 @{} +{hour}", "9".repeat(400)), 2, None),
        (format!("2 @{}", now + hour), 2, None),
        (format!("2 @{} +", now + hour), 2, None),
        (format!("2 @-{} +1000", now), 2, None),
        ("2 @ +".to_owned(), 2, None),
        ("@5 +5".to_owned(), 1, None),
        (String::new(), 1, None),
        ("many".to_owned(), 1, None),
    ] {
        f.write_attempts(1, &value);
        let page = f.whole_page(epoch);
        match wait_ms {
            None => {
                assert_eq!((page.messages.len(), page.delayed.len()), (1, 0), "{value}");
                assert_eq!(page.messages[0].delivery, delivery, "{value}");
                assert_eq!(page.messages[0].body, Body::copied(None, b"x"), "{value}");
            }
            Some(wait_ms) => {
                let wait = Duration::from_millis(wait_ms);
                let [(_, left)] = page.delayed[..] else { panic!("{value}: {page:?}") };
                assert!(wait - SLACK < left && left <= wait, "{value}: {left:?}");
            }
        }
        assert_eq!(f.ledger.deliveries(&[MessageId(1)]).expect("they are read"), [delivery], "{value}");
        // A leader that has waited itself does not wait once more because the clock was set back.
        let fetched = f.ledger.fetch(epoch, &[MessageId(1)], 100).expect("it is read");
        let is_early = wait_ms.is_some() && !value.contains(&(now + day).to_string());
        assert_eq!((fetched.messages.len(), fetched.delayed.len()), if is_early { (0, 1) } else { (1, 0) }, "{value}");
        assert!(fetched.messages.iter().all(|message| message.delivery == delivery), "{value}");
    }
}

/// What is written is read back as it was meant, whatever was there before.
#[test]
fn writing_and_reading_agree() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    let f = std::cell::RefCell::new(f);
    let history = "( [0-9]{1,3} [0-9]{1,3} [0-9]{1,13} [ -~]{0,12})?";
    let time = "( @[0-9]{1,20} \\+[0-9]{1,12})?";
    let cases = (1_u16..=u16::MAX - 1, 0_u64..=4_294_967_295, time, history);
    let outcome = runner.run(&cases, |(number, wait_ms, time, history)| {
        let f = &mut *f.borrow_mut();
        f.write_attempts(1, &format!("{number}{time}{history}"));
        let before = f.now_ms();
        let wait = Duration::from_millis(wait_ms);
        f.ledger
            .settle(epoch, u32::MAX, &[Settling { returned: &failed(1), delivery: number, wait }])
            .expect("it is settled");
        let value = f.attempts(1).expect("it is counted");
        prop_assert!(value.starts_with(&(number + 1).to_string()) && value.ends_with(&history), "{}", value);
        let page = f.whole_page(epoch);
        let passed = Duration::from_millis(f.now_ms() - before + 1);
        let left = page.delayed.first().map_or(Duration::ZERO, |(_, left)| *left);
        prop_assert!(left <= wait && wait <= left + passed, "{} {:?}", value, left);
        prop_assert_eq!(page.messages.len() + page.delayed.len(), 1);
        prop_assert_eq!(f.ledger.deliveries(&[MessageId(1)]).expect("they are read"), [number + 1]);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
