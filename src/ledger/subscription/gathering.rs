//! Collects the messages and markers of one read, with few allocations.
//!
//! Small payloads of one read share an allocation: they are copied one behind the other, without the protocol's
//! framing, and each is a slice of that *chunk*. So a message costs a reference count instead of an allocation. The
//! ring drops messages in order of arrival, which frees whole chunks. Limitation: the last slice keeps its whole chunk
//! alive, which is therefore at most [`CHUNK_BYTES`]. Larger payloads, and excerpts of messages over the limit, have
//! allocations of their own. Pure; owned by the listener.

use super::seen::{Length, Published, Seen};
use crate::ledger::member::{Body, Payload};

/// The size of a chunk, so the most memory that one small payload can keep alive.
const CHUNK_BYTES: usize = 64 << 10;
/// Payloads up to this size share a chunk, so at most this much of a chunk stays empty.
const SMALL_BYTES: usize = CHUNK_BYTES / 8;

/// See the module's text.
#[derive(Default)]
pub(super) struct Gathering {
    seen: Vec<Seen>,
    /// The chunk being filled. It is copied when complete, so that the copy has no spare room.
    chunk: Vec<u8>,
    /// The messages whose bodies are in the chunk, in order.
    waiting: Vec<Waiting>,
}

/// A body whose chunk is not complete yet.
struct Waiting {
    /// Its index in `seen`.
    place: usize,
    /// Its length, and that of the channel in front of its payload.
    bytes: usize,
    channel_bytes: usize,
}

impl Gathering {
    /// Adds something without a payload.
    pub(super) fn push(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// Adds a message, with its channel if that is to be recorded.
    pub(super) fn push_message(&mut self, channel: Option<&[u8]>, payload: &[u8]) {
        let channel_bytes = channel.map_or(0, <[u8]>::len);
        let bytes = channel_bytes + payload.len();
        let body = if bytes > SMALL_BYTES {
            Body::copied(channel, payload)
        } else {
            if self.chunk.len() + bytes > CHUNK_BYTES {
                self.close_chunk();
            }
            self.waiting.push(Waiting { place: self.seen.len(), bytes, channel_bytes });
            self.chunk.extend_from_slice(channel.unwrap_or_default());
            self.chunk.extend_from_slice(payload);
            // Its slice takes this place when the chunk is complete.
            Body::of(Payload::new())
        };
        self.seen.push(Seen::Published(Published::Message(body)));
    }

    /// Adds a message over a limit, of which this is the beginning.
    pub(super) fn push_oversize(&mut self, channel: Option<&[u8]>, excerpt: &[u8], length: Length) {
        let excerpt = Body::copied(channel, excerpt);
        self.seen.push(Seen::Published(Published::Oversize { excerpt, length }));
    }

    /// Returns everything in order.
    pub(super) fn finish(&mut self) -> Vec<Seen> {
        self.close_chunk();
        // The next read will be about as large as this one.
        let room = Vec::with_capacity(self.seen.len());
        std::mem::replace(&mut self.seen, room)
    }

    fn close_chunk(&mut self) {
        let mut rest = Payload::copy_from_slice(&self.chunk);
        self.chunk.clear();
        for Waiting { place, bytes, channel_bytes } in self.waiting.drain(..) {
            let body = Body::of_joined(rest.split_to(bytes), channel_bytes);
            self.seen[place] = Seen::Published(Published::Message(body));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Epoch;
    use crate::ledger::cursor::Marker;

    fn payloads(seen: &[Seen]) -> Vec<&[u8]> {
        let payload = |seen| match seen {
            &Seen::Published(Published::Message(ref payload) | Published::Oversize { excerpt: ref payload, .. }) => {
                Some(payload.joined().1)
            }
            Seen::Marker(_) | Seen::OtherInterests(..) => None,
        };
        seen.iter().filter_map(payload).collect()
    }

    /// How many of them lie right behind the one before.
    fn sharing(payloads: &[&[u8]]) -> usize {
        payloads.windows(2).filter(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr()).count()
    }

    #[test]
    fn messages_and_markers_are_returned_in_order() {
        let marker = Seen::Marker(Marker::of_leader(Epoch(1), 1));
        let message = |payload: &[u8]| Seen::Published(Published::Message(Body::copied(None, payload)));
        let large = vec![b'l'; CHUNK_BYTES];
        let mut gathering = Gathering::default();
        for round in 0..3 {
            gathering.push_message(None, b"a");
            gathering.push(marker.clone());
            gathering.push_message(None, b"");
            gathering.push_message(None, &large);
            gathering.push_oversize(None, b"beginning", Length::Payload(9_000_000));
            gathering.push_message(None, b"b");
            let oversize =
                Published::Oversize { excerpt: Body::copied(None, b"beginning"), length: Length::Payload(9_000_000) };
            let all = [
                message(b"a"),
                marker.clone(),
                message(b""),
                message(&large),
                Seen::Published(oversize),
                message(b"b"),
            ];
            assert_eq!(gathering.finish(), all, "{round}");
            assert_eq!(gathering.finish(), []);
        }
    }

    #[test]
    fn small_messages_share_chunks_of_a_bounded_size() {
        const BYTES: usize = 1_000;
        let mut gathering = Gathering::default();
        (0..200).for_each(|_| gathering.push_message(None, &[b'x'; BYTES]));
        let seen = gathering.finish();
        let chunks = 200_usize.div_ceil(CHUNK_BYTES / BYTES);
        assert_eq!(payloads(&seen).len(), 200);
        assert!(sharing(&payloads(&seen)) >= 200 - chunks);
        assert!(gathering.chunk.capacity() <= 2 * CHUNK_BYTES);
    }

    /// Else one small message would keep the megabytes that came with it.
    #[test]
    fn large_payloads_share_no_chunk() {
        let mut gathering = Gathering::default();
        gathering.push_message(None, b"a");
        gathering.push_message(None, &[b'x'; SMALL_BYTES + 1]);
        gathering.push_oversize(None, &[b'x'; 4_096], Length::Payload(9_000_000));
        gathering.push_message(None, b"b");
        let seen = gathering.finish();
        let [a, large, excerpt, b] = payloads(&seen)[..] else { panic!("{seen:?}") };
        assert_eq!(sharing(&[a, b]), 1);
        assert_eq!(sharing(&[a, large, excerpt, b]), 0);
    }
}
