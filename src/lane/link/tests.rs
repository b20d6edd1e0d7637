use super::*;
use crate::lane::tests::{link, message};

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
    while !link.congested {
        last += 1;
        link.deliver(&message(last, CHUNK_BYTES), now).expect("the peer is there");
        link.flush().expect("the peer is there");
    }
    let much_later = now + Duration::from_secs(3600);
    assert_eq!(link.take_overdue(Duration::from_secs(1), much_later), []);
    assert_eq!(link.change_of_watch(true), Some((true, true)));
    assert_eq!(link.change_of_watch(true), None);
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
    while !link.congested {
        last += 1;
        link.deliver(&message(last, CHUNK_BYTES), now).expect("the peer is there");
        link.flush().expect("the peer is there");
        assert!(!link.reads_nothing(limit, now + limit), "nothing waited until now");
    }
    assert!(!link.reads_nothing(limit, now + limit), "it has only just begun to wait");
    assert!(link.reads_nothing(limit, now + 2 * limit + Duration::from_secs(1)));
    // It reads something, and more can be written.
    let before = link.progress.0;
    let mut read = vec![0; CHUNK_BYTES];
    while link.socket.get_ref().written_bytes() == before {
        std::io::Read::read_exact(&mut peer, &mut read).expect("there is more");
        link.flush().expect("the peer is there");
    }
    assert!(!link.reads_nothing(limit, now + 3 * limit));
}
