use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(30);

fn members_of(entries: &[&str]) -> Members {
    let sources: Vec<ConsumerSource> = entries.iter().map(|entry| ConsumerSource::of(entry)).collect();
    Members::new(&sources)
}

fn lines(addresses: &[String]) -> Answer {
    Answer::Lines(addresses.iter().map(|address| Target::of(address)).collect())
}

fn take(members: &mut Members, source: usize, addresses: &[&str]) -> Vec<String> {
    let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    let changes = members.take(source, lines(&addresses), HOLD, Instant::now());
    changes.iter().map(shown).collect()
}

fn shown(change: &Change) -> String {
    let (sign, member) = match change {
        Change::Added(member) => ('+', member),
        Change::Leaves(member) => ('-', member),
        Change::Stays(member) => ('=', member),
    };
    format!("{sign}{}@{}", member, member.id.slot)
}

fn release(members: &mut Members, slot: usize) -> bool {
    let id = members.slots[slot].as_ref().expect("a member").id;
    members.release(id).is_some()
}

#[test]
fn a_fixed_list_has_its_order_and_never_changes() {
    let mut members = members_of(&["b:1", "a:1", "file:c"]);
    let slots: Vec<String> = members.iter().map(ToString::to_string).collect();
    assert_eq!(slots, ["b:1", "a:1"]);
    assert_eq!(take(&mut members, 2, &["a:1", "c:1"]), ["+c:1@2"], "one address, one member");
    assert_eq!(take(&mut members, 2, &["d:1"]), ["-c:1@2", "+d:1@3"]);
    assert!(!release(&mut members, 0), "it does not leave");
}

#[test]
fn a_slot_is_used_again_once_it_is_released() {
    let mut members = members_of(&["file:a"]);
    assert_eq!(take(&mut members, 0, &["a:1", "b:1", "c:1"]), ["+a:1@0", "+b:1@1", "+c:1@2"]);
    assert_eq!(take(&mut members, 0, &["a:1", "c:1", "d:1"]), ["-b:1@1", "+d:1@3"]);
    assert_eq!(take(&mut members, 0, &["a:1", "b:1", "c:1", "d:1"]), ["=b:1@1"], "it has its slot still");
    assert_eq!(take(&mut members, 0, &["a:1", "c:1"]), ["-b:1@1", "-d:1@3"]);
    let before = members.slots[1].as_ref().expect("it leaves").id;
    assert!(release(&mut members, 1));
    assert_eq!(take(&mut members, 0, &["a:1", "c:1", "b:1"]), ["+b:1@1"]);
    assert!(members.release(before).is_none(), "that was an earlier member");
}

#[test]
fn an_address_with_and_without_tls_is_one_consumer() {
    let mut members = members_of(&["a:1", "file:b"]);
    assert_eq!(take(&mut members, 1, &["wss://a:1", "b:1"]), ["+b:1@1"]);
    assert_eq!(take(&mut members, 1, &["wss://b:1"]), ["-b:1@1", "+wss://b:1@2"], "it has TLS now");
}

#[test]
fn too_many_addresses_are_left_out() {
    let mut members = members_of(&["a:1", "file:b"]);
    let many: Vec<String> = (0..MOST_FOUND + 3).map(|n| format!("c{n}:1")).collect();
    let changes = members.take(1, lines(&many), HOLD, Instant::now());
    assert_eq!((changes.len(), members.iter().count(), members.left_out()), (MOST_FOUND, MOST_FOUND + 1, 3));
    // One leaves: the others keep their slots, and another is added once that one is gone.
    let changes = members.take(1, lines(&many[1..]), HOLD, Instant::now());
    assert_eq!(changes.len(), 1);
    assert!(members.confirm(1, Instant::now()).is_empty(), "it has its slot still");
    assert!(release(&mut members, 1));
    let changes = members.confirm(1, Instant::now());
    assert_eq!(changes.iter().map(shown).collect::<Vec<_>>(), [format!("+c{MOST_FOUND}:1@1")]);
}

#[test]
fn a_source_is_settled_by_its_first_answer_or_failure() {
    let mut members = members_of(&["a:1", "dns:b:1", "file:c"]);
    assert!(!members.is_settled());
    members.take(1, Answer::Failed("no such name".to_owned()), HOLD, Instant::now());
    take(&mut members, 2, &["c:1"]);
    assert!(members.is_settled());
    assert_eq!(members.status_of(1).error.as_deref(), Some("no such name"));
    assert!(members_of(&["a:1"]).is_settled());
}

/// A step of a random course.
#[derive(Clone, Debug)]
enum Step {
    /// DNS answers after so many seconds with the addresses whose bits are set.
    Answer(u64, u8),
    Fail,
    List(u8),
    /// All that leave are released.
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..40, any::<u8>()).prop_map(|(after, bits)| Step::Answer(after, bits)),
        1 => Just(Step::Fail),
        2 => any::<u8>().prop_map(Step::List),
        2 => Just(Step::Release),
    ];
    proptest::collection::vec(step, 1..60)
}

fn hosts(bits: u8) -> Vec<String> {
    (0..8).filter(|bit| bits & (1 << bit) != 0).map(|bit| format!("10.0.0.{bit}:1")).collect()
}

proptest! {
    /// Members keep their slots, no address has two, and an address that is answered counts until 30 s without it.
    #[test]
    fn members_follow_the_lists(steps in steps()) {
        let mut members = members_of(&["10.0.0.7:1", "dns:c:1", "file:d"]);
        let mut now = Instant::now();
        let mut answered: [Option<Instant>; 8] = [None; 8];
        let mut lacked: [Option<Instant>; 8] = [None; 8];
        let mut listed = 0u8;
        for step in steps {
            let before: Vec<(String, usize)> = members.iter().map(|m| (m.to_string(), m.id.slot)).collect();
            match step {
                Step::Answer(after, bits) => {
                    now += Duration::from_secs(after);
                    let addresses = hosts(bits).iter().map(|host| host.parse().expect("an address")).collect();
                    members.take(1, Answer::Addresses(addresses), HOLD, now);
                    for bit in (0..8).filter(|_| bits != 0) {
                        if bits & (1 << bit) != 0 {
                            (answered[bit], lacked[bit]) = (Some(now), None);
                        } else if now.duration_since(*lacked[bit].get_or_insert(now)) >= HOLD {
                            answered[bit] = None;
                        }
                    }
                }
                Step::Fail => drop(members.take(1, Answer::Failed("x".to_owned()), HOLD, now)),
                Step::List(bits) => {
                    members.take(2, lines(&hosts(bits)), HOLD, now);
                    listed = bits;
                }
                Step::Release => {
                    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
                    ids.into_iter().for_each(|id| drop(members.release(id)));
                }
            }
            let present: Vec<String> =
                members.iter().filter(|m| m.leaving_since.is_none()).map(ToString::to_string).collect();
            for (bit, answered) in answered.iter().enumerate() {
                let wanted = bit == 7 || answered.is_some() || listed & (1 << bit) != 0;
                prop_assert_eq!(present.contains(&format!("10.0.0.{bit}:1")), wanted, "address {}", bit);
            }
            let all: HashSet<String> = members.iter().map(ToString::to_string).collect();
            prop_assert_eq!(all.len(), members.iter().count());
            for (address, slot) in before {
                let now_in = members.iter().find(|member| member.to_string() == address);
                prop_assert!(now_in.is_none_or(|member| member.id.slot == slot), "{} moved", address);
            }
            prop_assert!(members.slots.len() <= 8);
        }
    }
}
