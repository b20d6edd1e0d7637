//! Limits the questions about lanes that this consumer does not serve yet: at most [`MAX_ASKED`] at one node of Redis
//! at a time.
//!
//! Any client may name any lane, and each such question opens a connection. The limit is each node's own, so that a
//! node that does not answer delays only the lanes that are on it. The reading threads of links call this.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::net::Address;

/// The most questions at one node at a time.
const MAX_ASKED: usize = 4;

/// See the module's text.
#[derive(Default)]
pub(super) struct Asking {
    /// How many questions each node is asked now; without an address: the only server that there is.
    nodes: Mutex<BTreeMap<Option<String>, usize>>,
    fewer: Condvar,
}

/// A question may be asked while this exists.
pub(super) struct Question<'a> {
    asking: &'a Asking,
    node: Option<String>,
}

impl Asking {
    /// Waits for its turn to ask this node. `None`: other questions took too long.
    pub(super) fn begin(&self, node: Option<&Address>, deadline: Instant) -> Option<Question<'_>> {
        let node = node.map(Address::to_string);
        let mut nodes = self.nodes.lock();
        loop {
            let asked = nodes.entry(node.clone()).or_default();
            if *asked < MAX_ASKED {
                *asked += 1;
                return Some(Question { asking: self, node });
            }
            if self.fewer.wait_until(&mut nodes, deadline).timed_out() {
                return None;
            }
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut nodes = self.asking.nodes.lock();
        if let Some(asked) = nodes.get_mut(&self.node) {
            *asked -= 1;
            if *asked == 0 {
                nodes.remove(&self.node);
            }
        }
        self.asking.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn questions_wait_only_for_those_at_the_same_node() {
        let asking = Asking::default();
        let nodes = [1, 2].map(|port| Address::Tcp { host: "n".to_owned(), port });
        let begin = |node: &Address| asking.begin(Some(node), Instant::now() + Duration::from_millis(5));
        let mut hung: Vec<Question<'_>> = (0..MAX_ASKED).map_while(|_| begin(&nodes[0])).collect();
        assert_eq!(hung.len(), MAX_ASKED);
        assert!(begin(&nodes[0]).is_none());
        assert!(begin(&nodes[1]).is_some());
        hung.pop();
        hung.extend(begin(&nodes[0]));
        assert_eq!(hung.len(), MAX_ASKED, "one was free");
        drop(hung);
        assert!(asking.nodes.lock().is_empty(), "nothing stays");
    }
}
