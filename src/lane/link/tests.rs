use super::*;
use crate::lane::tests::{link, link_that_speaks, message};

#[test]
fn unsent_messages_of_a_broken_link_come_back_with_the_others() {
    let (mut link, peer) = link(10_000);
    drop(peer);
    let mut last = 0;
    // The first writes may succeed: the system accepts them before it learns that the peer is gone.
    while last < 9_000 {
        last += 1;
        if link.deliver(&message(last, CHUNK_BYTES), Instant::now()).is_err() {
            break;
        }
    }
    assert!(last < 9_000, "writing to a closed connection fails in the end");
    let back: Vec<u64> = link.take_attached().iter().map(|(id, _)| id.0).collect();
    assert_eq!(back, (1..=last).collect::<Vec<_>>());
}

#[test]
fn unsent_messages_are_not_overdue() {
    let (mut link, peer) = link(10_000);
    let now = Instant::now();
    let mut last = 0;
    while !link.socket.is_congested() {
        last += 1;
        link.deliver(&message(last, CHUNK_BYTES), now).expect("the peer is there");
        link.flush().expect("the peer is there");
    }
    let much_later = now + Duration::from_secs(3600);
    assert_eq!(link.take_overdue(Duration::from_secs(1), much_later), []);
    drop(peer);
}

#[test]
fn waiting_results_hold_up_only_their_own_link() {
    let ((mut one, _peer), (mut other, _other_peer)) = (link(10), link(10));
    one.result_bytes = LINK_RESULT_BYTES;
    assert!(!one.is_read(LINK_RESULT_BYTES) && other.is_read(LINK_RESULT_BYTES));
    one.result_bytes = 1;
    other.result_bytes = 0;
    assert!(!one.is_read(MAX_RESULT_BYTES), "too many in all: links with results wait");
    assert!(other.is_read(MAX_RESULT_BYTES), "and links without results are read");
}

#[test]
fn a_peer_that_reads_nothing_of_what_waits_is_given_up() {
    let (mut link, mut peer) = link(10_000);
    let (now, limit) = (Instant::now(), Duration::from_secs(6));
    let mut last = 0;
    while !link.socket.is_congested() {
        last += 1;
        link.deliver(&message(last, CHUNK_BYTES), now).expect("the peer is there");
        link.flush().expect("the peer is there");
        assert!(!link.socket.reads_nothing(limit, now + limit), "nothing waited until now");
    }
    assert!(!link.socket.reads_nothing(limit, now + limit), "it has only just begun to wait");
    assert!(link.socket.reads_nothing(limit, now + 2 * limit + Duration::from_secs(1)));
    // It reads something, and more can be written.
    let before = link.socket.stream().written_bytes();
    let mut read = vec![0; CHUNK_BYTES];
    while link.socket.stream().written_bytes() == before {
        std::io::Read::read_exact(&mut peer, &mut read).expect("there is more");
        link.flush().expect("the peer is there");
    }
    assert!(!link.socket.reads_nothing(limit, now + 3 * limit));
}

#[test]
fn confirmations_are_written_in_frames_that_fit_a_message_and_only_where_they_are_understood() {
    let ids: Vec<MessageId> = (0..2 * IDS_PER_RECORDED as u64 + 1).map(MessageId).collect();
    let confirmed = |link: &mut Link| {
        ids.iter().for_each(|id| link.confirm(*id));
        link.write_confirmations().expect("the peer is there")
    };
    let (mut old, _peer) = link(10);
    assert_eq!((confirmed(&mut old), old.socket.gathered().len()), (0, 0));
    let (mut new, _new_peer) = link_that_speaks(Subprotocol::Two, 10);
    assert_eq!(confirmed(&mut new), ids.len());
    // The last one waits for more.
    let last = *ids.last().expect("there are some");
    assert_eq!(new.socket.gathered(), Frame::Recorded(vec![last]).to_vec());
    assert_eq!(new.write_confirmations(), Ok(0), "each is written once");
}

#[test]
fn a_listed_message_excuses_one_answer_of_a_consumer_that_keeps_results() {
    let ((mut old, _peer), (mut new, _new_peer)) = (link(10), link_that_speaks(Subprotocol::Two, 10));
    let ids = [MessageId(1), MessageId(2)];
    [&mut old, &mut new].into_iter().for_each(|link| link.note_listed(&ids));
    assert!(!old.excuses(ids[0]));
    assert!(new.excuses(ids[0]) && !new.excuses(ids[0]));
    new.places.claim(ids[1], crate::lane::places::Place::Here, Instant::now());
    new.record(ids[1]);
    assert!(!new.excuses(ids[1]), "it has answered");
}
