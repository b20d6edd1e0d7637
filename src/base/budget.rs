//! A budget of bytes that several threads share. It bounds what one path through a program keeps in memory.
//!
//! Each stored item keeps its [`Share`] beside it. Dropping both returns the bytes. Whoever takes a share has checked
//! before that there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module's text. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

/// A part of a budget, returned when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit_bytes`, all of it free.
    pub fn new(limit_bytes: usize) -> Budget {
        Budget(Arc::new(Inner { limit_bytes, used_bytes: AtomicUsize::new(0) }))
    }

    /// The total of the budget in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    /// The free bytes.
    pub fn free_bytes(&self) -> usize {
        self.0.limit_bytes.saturating_sub(self.used_bytes())
    }

    /// The bytes of all shares.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.load(Ordering::SeqCst)
    }

    /// Takes a share, even beyond the limit. The caller has checked what is [free](Budget::free_bytes).
    pub fn take(&self, bytes: usize) -> Share {
        self.0.used_bytes.fetch_add(bytes, Ordering::SeqCst);
        Share { budget: self.clone(), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.used_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_shares_are_free_again() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        let beyond = budget.take(6);
        assert_eq!(budget.free_bytes(), 0);
        drop(first);
        assert_eq!(budget.free_bytes(), 4);
        drop(beyond);
        assert_eq!(budget.free_bytes(), 10);
    }
}
