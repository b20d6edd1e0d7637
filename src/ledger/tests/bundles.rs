//! Bundles: stored, read, recorded and taken apart by each operation.

use super::transactions::{counts, other};
use super::*;
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition};

/// The ids of the bundle in these tests.
const BUNDLED: std::ops::RangeInclusive<u64> = 100..=115;

fn body(id: u64) -> Body {
    let channel = id.is_multiple_of(2).then(|| format!("eu@1:{id}").into_bytes());
    Body::copied(channel.as_deref(), format!("x*{id},:").as_bytes())
}

/// Stores messages after the present cursor, in bundles where their ids follow one another.
pub(super) fn store(f: &mut Fixture, epoch: Epoch, ids: &[u64]) {
    let mut batch: Vec<Arrival> = ids.iter().map(|id| Arrival { body: body(*id), ..arrival(*id, b"") }).collect();
    bundle::form(&mut batch);
    let before = f.ledger.cursor().expect("the cursor is read");
    let next = cursor("m", ids.len() as u64, ids[ids.len() - 1]);
    assert_eq!(f.ledger.intake(epoch, before.as_ref(), &next, &batch).unwrap(), IntakeAnswer::Taken(next));
}

/// A group whose leader has stored 5, a bundle of 100 to 115, and 116.
pub(super) fn bundled() -> (Fixture, Epoch) {
    let mut f = fixture();
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let ids: Vec<u64> = [5].into_iter().chain(BUNDLED).chain([116]).collect();
    store(&mut f, epoch, &ids);
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 3, "the bundle is one member");
    (f, epoch)
}

/// The ids of all pending messages, in order; each must be there once and as it was stored.
fn pending(f: &mut Fixture, epoch: Epoch) -> Vec<u64> {
    let page =
        f.ledger.page(epoch, part(MessageId::ZERO, MessageId(u64::MAX >> 12), 1_000, 1 << 20)).expect("it leads");
    for message in page.messages.iter().chain(page.delayed.iter().map(|(message, _)| message)) {
        let mut expected = body(message.id.0);
        expected.set_position(message.body.position());
        assert_eq!(message.body, expected);
    }
    let mut ids: Vec<u64> = page.messages.iter().map(|message| message.id.0).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    ids.extend(page.delayed.iter().map(|(message, _)| message.id.0));
    ids.sort_unstable();
    let members = f.ledger.count_pending().expect("they are counted");
    assert_eq!(members, ids.len() as u64, "they are counted as messages");
    ids
}

pub(super) fn without(ids: &[u64]) -> Vec<u64> {
    [5].into_iter().chain(BUNDLED).chain([116]).filter(|id| !ids.contains(id)).collect()
}

pub(super) fn bundles(f: &mut Fixture) -> i64 {
    f.number(&["ZCOUNT", "messages:pending", "-inf", "(0"])
}

#[test]
fn a_bundle_is_read_in_order_as_its_messages() {
    let (mut f, epoch) = bundled();
    assert_eq!(pending(&mut f, epoch), without(&[]));
    for (after, up_to) in [(0, 200), (4, 5), (5, 100), (99, 115), (100, 101), (107, 116), (115, 116), (116, 200)] {
        let page = f.ledger.page(epoch, part(MessageId(after), MessageId(up_to), 1_000, 1 << 20)).expect("it leads");
        let expected: Vec<u64> = without(&[]).into_iter().filter(|id| after < *id && *id <= up_to).collect();
        assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), expected, "{after} {up_to}");
        assert_eq!(page.read_up_to.map(|id| id.0), expected.last().copied(), "{after} {up_to}");
        for Pending { id, body, delivery } in &page.messages {
            assert_eq!(*delivery, 1);
            let position = BUNDLED.contains(&id.0).then(|| BundlePosition::new((id.0 - 100) as u8)).flatten();
            assert_eq!(body.position(), position);
        }
        let first = f.ledger.page_without_payloads(epoch, MessageId(after), MessageId(up_to)).expect("it leads");
        assert_eq!(first.read_up_to.map(|id| id.0), expected.first().copied(), "{after} {up_to}");
    }
    for up_to in [1 << 53, u64::MAX] {
        let page = f.ledger.page(epoch, part(MessageId::ZERO, MessageId(up_to), 1_000, 1 << 20)).expect("it leads");
        assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), without(&[]), "{up_to}");
        let looked = f.ledger.look(MessageId::ZERO, MessageId(up_to), 1_000).expect("they are looked at");
        assert_eq!(looked.messages.iter().map(|looked| looked.id.0).collect::<Vec<_>>(), without(&[]), "{up_to}");
    }
    let page = f.ledger.page(epoch, part(MessageId::ZERO, MessageId(200), 2, 1 << 20)).expect("it leads");
    assert_eq!(page.read_up_to, Some(MessageId(115)), "a bundle is read whole");
}

#[test]
fn tools_see_the_messages_of_a_bundle() {
    let (mut f, epoch) = bundled();
    f.run(&["HSET", "messages:attempts", "5", "3"]);
    let page = f.ledger.look(MessageId(103), MessageId(116), 5).expect("it is looked at");
    assert_eq!(page.messages.iter().map(|looked| looked.id.0).collect::<Vec<_>>(), [104, 105, 106, 107, 108]);
    assert_eq!((page.read_up_to, page.foreign), (Some(MessageId(108)), 0));
    assert_eq!(page.messages[0].bytes, body(104).payload().len() as u64);
    let whole = f.ledger.look_whole(MessageId(109)).expect("it is looked at").expect("it is pending");
    assert_eq!(whole.body, body(109));
    let mut position = reading::ReadPosition::default();
    let mut read = f.ledger.read_pending(&mut position).expect("it is read").expect("there is something");
    read.sort_by_key(|(id, _)| *id);
    assert_eq!(read.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), without(&[]));
    assert_eq!(f.ledger.sample().expect("it is read").counts.pending, 18);
    let mut view = overview::GroupView::new(f.redis.connection(), Keys::new("messages"));
    let snapshot = view.snapshot().expect("it is read");
    assert_eq!((snapshot.pending, snapshot.oldest), (18, Some(MessageId(5))));
    f.ledger.commit(None, None, Raise::Nothing, &[commit(5)]).expect("it is recorded");
    assert_eq!(view.snapshot().expect("it is read").oldest, Some(MessageId(100)));
    assert_eq!(view.oldest_read_whole().expect("it is read"), Some(MessageId(100)));
    assert_eq!(pending(&mut f, epoch), without(&[5]));
}

#[test]
fn messages_of_a_bundle_are_pending_and_read_again_one_by_one() {
    let (mut f, epoch) = bundled();
    let ids = [5, 99, 100, 108, 115, 116, 117].map(MessageId);
    assert_eq!(f.ledger.not_pending(&ids).expect("it answers"), [99, 117].map(MessageId));
    assert_eq!(bundles(&mut f), 1);
    let fetched = f.ledger.fetch(epoch, &ids, 1 << 20).expect("it leads");
    let read: Vec<_> = fetched.messages.iter().map(|message| (message.id.0, message.body.clone())).collect();
    assert_eq!(read, [5, 100, 108, 115, 116].map(|id| (id, body(id))), "as members of their own");
    assert_eq!(bundles(&mut f), 0, "it was taken apart");
    assert_eq!(f.ledger.not_pending(&ids).expect("it answers"), [99, 117].map(MessageId));
}

/// A result of each message of the bundle, and of 116.
fn whole_and_next() -> Vec<Commit> {
    BUNDLED.chain([116]).map(commit).collect()
}

fn sole(commits: &[Commit]) -> Vec<Sole<'_>> {
    let position = |id: u64| BundlePosition::new(id.checked_sub(100)?.try_into().ok()?);
    commits.iter().map(|commit| Sole { commit, position: position(commit.id.0) }).collect()
}

#[test]
fn a_transaction_removes_a_bundle_whole_also_if_it_was_taken_apart() {
    for apart in [false, true] {
        let (mut f, epoch) = bundled();
        let mut consumer = other(&f);
        consumer.watch_recall().expect("it is watched");
        if apart {
            let unused = Returned { hold: Hold::Released, ..returned(104, Verdict::Unused) };
            f.ledger.settle(epoch, 5, &[settling(&unused, 1)]).expect("it leads");
            assert_eq!(bundles(&mut f), 0);
        }
        let commits = whole_and_next();
        let recorded =
            consumer.commit_sole(None, &sole(&commits)).expect("redis answers").expect("nothing was written");
        assert_eq!((recorded.removed, recorded.unstored), (17, None), "{apart}");
        assert_eq!(counts(&mut f), (17, 1), "{apart}");
        assert_eq!(pending(&mut f, epoch), [5]);
    }
}

#[test]
fn results_of_a_part_take_the_bundle_apart() {
    let (mut f, epoch) = bundled();
    let part: Vec<Commit> = [101, 103, 116, 200].map(commit).into();
    let committed = f.ledger.commit(None, None, Raise::Recorded, &part).expect("they are recorded");
    assert_eq!((committed.recorded, &committed.gone[..]), (3, &[MessageId(200)][..]));
    assert_eq!(pending(&mut f, epoch), without(&[101, 103, 116]));
    assert_eq!(bundles(&mut f), 0);
    let again = f.ledger.commit(None, None, Raise::Nothing, &part).expect("it answers");
    assert_eq!((again.recorded, again.gone.len()), (0, 4));
    let rest: Vec<Commit> = without(&[101, 103, 116]).into_iter().map(commit).collect();
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &rest).expect("they are recorded").recorded, 15);
    assert_eq!((pending(&mut f, epoch), counts(&mut f)), (vec![], (18, 0)));
}

#[test]
fn messages_are_put_back_once_if_redis_has_forgotten_their_removal() {
    let (mut f, epoch) = bundled();
    let back: Vec<_> = [100, 107, 116].map(|id| (MessageId(id), body(id))).into();
    f.ledger.put_back(7, &back).expect("they are put back");
    assert_eq!((pending(&mut f, epoch), bundles(&mut f)), (without(&[]), 0));
    f.ledger.commit(None, None, Raise::Nothing, &[commit(107)]).expect("it is recorded");
    f.ledger.put_back(7, &back).expect("it was done before");
    assert_eq!(pending(&mut f, epoch), without(&[107]));
}

#[test]
fn settling_a_message_takes_its_bundle_apart() {
    for verdict in [Verdict::Failed, Verdict::Lost, Verdict::Unused, Verdict::Rejected] {
        let (mut f, epoch) = bundled();
        let returned = returned(107, verdict);
        let settled = f.ledger.settle(epoch, 5, &[settling(&returned, 1)]).expect("it leads").settled;
        let (expected, left) = match verdict {
            Verdict::Failed | Verdict::Lost => (Settled::Again(2), without(&[])),
            Verdict::Unused => (Settled::Again(1), without(&[])),
            Verdict::Rejected => (Settled::DeadLettered, without(&[107])),
        };
        assert_eq!(settled, [expected], "{verdict:?}");
        assert_eq!(pending(&mut f, epoch), left, "{verdict:?}");
        assert_eq!(bundles(&mut f), 0, "{verdict:?}");
        if verdict == Verdict::Rejected {
            let letters = f.ledger.read_stream(reading::EntryStream::Dead, &mut reading::ReadPosition::default());
            let letters = letters.expect("it is read").expect("there is one");
            assert_eq!(
                (letters[0].text("id"), letters[0].text("payload")),
                (MessageId(107).to_string(), "x*107,:".into())
            );
        }
    }
}

#[test]
fn a_delivery_is_counted_in_a_bundle_as_well() {
    let (mut f, epoch) = bundled();
    f.ledger.count_deliveries(epoch, &[(MessageId(102), 3), (MessageId(200), 3)]).expect("it leads");
    assert_eq!(f.ledger.deliveries(&[102, 103, 200].map(MessageId)).expect("they are read"), [3, 1, 1]);
    assert_eq!(pending(&mut f, epoch), without(&[]));
}

#[test]
fn the_newest_message_may_be_in_a_bundle() {
    let (mut f, _) = bundled();
    f.ledger.commit(None, None, Raise::Nothing, &[commit(116)]).expect("it is recorded");
    // Stray members, with the scores of bundles and with those of messages.
    f.run(&["ZADD", "messages:pending", "-1", "stranger", "-7", "0000000000000001*1:x", "1e300", "high"]);
    f.run(&["DEL", "messages:cursor"]);
    let id = DispatcherId::generate("b");
    let _subscription = f.listen(&id);
    let newest =
        wait_until(Duration::from_secs(10), "the lease", || match f.ledger.acquire(&id, TTL, Epoch(0), true)?.answer {
            Acquire::Acquired { newest, .. } => Ok(Some(newest)),
            _ => Ok(None),
        });
    assert_eq!(newest.expect("it is free"), Some(MessageId(115)));
}

#[test]
fn members_that_only_look_like_bundles_are_left_alone() {
    let (mut f, epoch) = bundled();
    let score = |last: u64| (last as i64 - (1 << 53)).to_string();
    let zeros = vec!["0"; BUNDLE_MESSAGES].join(",");
    for (last, member) in [
        (304, "stranger".to_owned()),
        (315, format!("000000000000012d*{zeros}:")),
        (335, format!("0000000000000140*{zeros}:too long")),
        (355, "0000000000000154*0,0:".to_owned()),
    ] {
        f.run(&["ZADD", "messages:pending", &score(last), &member]);
    }
    assert_eq!(f.ledger.page(epoch, part(MessageId(116), MessageId(400), 99, 1 << 20)).unwrap().messages, []);
    let looked = f.ledger.look(MessageId(116), MessageId(400), 99).expect("they are looked at");
    assert_eq!((looked.messages.len(), looked.foreign), (0, 4));
    let strange: Vec<Commit> = [304, 310, 330, 350].map(commit).into();
    let committed = f.ledger.commit(None, None, Raise::Nothing, &strange).expect("it answers");
    assert_eq!((committed.recorded, committed.gone.len()), (0, 4));
    assert_eq!(bundles(&mut f), 5, "none was removed");
}

#[test]
fn a_bundle_is_taken_apart_also_when_the_memory_is_full() {
    let (mut f, epoch) = bundled();
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let recorded = f.ledger.commit(None, None, Raise::Nothing, &[commit(103)]).expect("it needs no memory").recorded;
    assert_eq!(recorded, 1);
    assert_eq!(pending(&mut f, epoch), without(&[103]));
    f.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let (mut f, epoch) = bundled();
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let returned = returned(103, Verdict::Lost);
    f.ledger.settle(epoch, 5, &[settling(&returned, 1)]).expect("it needs no memory");
    assert_eq!(pending(&mut f, epoch), without(&[]));
}

#[test]
fn a_bundle_is_withdrawn_with_its_batch() {
    let (mut f, epoch) = bundled();
    let call = WithdrawCall { my_epoch: epoch, first: MessageId(100), last: MessageId(115) }.on(&f.ledger.keys);
    f.ledger.call_for_ok(epoch, "testing", call).expect("it leads");
    assert_eq!(pending(&mut f, epoch), [5, 116]);
}

#[test]
fn a_bundle_that_is_stored_twice_is_stored_once() {
    let (mut f, epoch) = bundled();
    let before = f.ledger.cursor().expect("it is read");
    let mut batch: Vec<Arrival> = (200..216).map(|id| Arrival { body: body(id), ..arrival(id, b"") }).collect();
    bundle::form(&mut batch);
    let taken = |f: &mut Fixture, before: Option<&Cursor>| {
        let next = cursor("m", 40, 215);
        f.ledger.intake(epoch, before, &next, &batch).expect("it answers")
    };
    // The first attempt takes effect, and its reply is lost.
    assert!(matches!(taken(&mut f, before.as_ref()), IntakeAnswer::Taken(_)));
    f.ledger.attempts.doubts = vec![cursor("m", 40, 215)];
    assert!(matches!(taken(&mut f, before.as_ref()), IntakeAnswer::Taken(_)));
    assert_eq!(bundles(&mut f), 2);
    assert_eq!(pending(&mut f, epoch).len(), 18 + 16);
}
