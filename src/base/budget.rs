//! A budget of bytes that several threads share. It bounds what one path through a program keeps in memory.
//!
//! Each stored item keeps its [`Share`] beside it. Dropping both returns the bytes. An item larger than the whole
//! budget may be stored when nothing else is.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// See the module's text. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit_bytes: usize,
    state: Mutex<BudgetState>,
    freed: Condvar,
    /// Held by the thread that waits, so that small items don't overtake a large one for ever.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct BudgetState {
    used_bytes: usize,
    closed: bool,
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
        let state = Mutex::default();
        Budget(Arc::new(Inner { limit_bytes, state, freed: Condvar::new(), turn: Mutex::default() }))
    }

    /// The total of the budget in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    /// The free bytes.
    pub fn free_bytes(&self) -> usize {
        self.0.limit_bytes.saturating_sub(self.0.state.lock().used_bytes)
    }

    /// Takes a share, even beyond the limit. The caller has checked what is [free](Budget::free_bytes).
    pub fn take(&self, bytes: usize) -> Share {
        self.0.state.lock().used_bytes += bytes;
        Share { budget: self.clone(), bytes }
    }

    /// Waits until there is room for a share and takes it; threads are served one after the other. `None` if it would
    /// have to wait and the budget is [closed](Budget::close).
    pub fn wait_for(&self, bytes: usize) -> Option<Share> {
        let _turn = self.0.turn.lock();
        let mut state = self.0.state.lock();
        while state.used_bytes > 0 && state.used_bytes.saturating_add(bytes) > self.0.limit_bytes {
            if state.closed {
                return None;
            }
            self.0.freed.wait(&mut state);
        }
        state.used_bytes += bytes;
        Some(Share { budget: self.clone(), bytes })
    }

    /// Ends all waits; from now on no thread waits.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.freed.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.state.lock().used_bytes -= self.bytes;
        self.budget.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use crossbeam_channel::unbounded;

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

    #[test]
    fn shares_are_given_in_turn_when_there_is_room() {
        let budget = Budget::new(10);
        let held = budget.wait_for(8).expect("it is free");
        let (got, order) = unbounded();
        thread::scope(|scope| {
            for bytes in [9, 2] {
                let (budget, got) = (&budget, got.clone());
                scope.spawn(move || {
                    let share = budget.wait_for(bytes).expect("it is not closed");
                    got.send(bytes).expect("the test listens");
                    drop(share);
                });
                // The large request holds the turn before the small one is made.
                while bytes == 9 && budget.0.turn.try_lock().is_some() {
                    thread::yield_now();
                }
            }
            assert!(order.recv_timeout(Duration::from_millis(50)).is_err(), "the small one overtook the large one");
            drop(held);
            assert_eq!([order.recv(), order.recv()], [Ok(9), Ok(2)]);
        });
    }

    #[test]
    fn an_item_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(10);
        let alone = budget.wait_for(99).expect("nothing else is held");
        thread::scope(|scope| {
            let next = scope.spawn(|| budget.wait_for(99).is_some());
            drop(alone);
            assert!(next.join().expect("it came back"));
        });
    }

    #[test]
    fn a_closed_budget_ends_all_waits() {
        let budget = Budget::new(10);
        let held = budget.wait_for(8);
        thread::scope(|scope| {
            let waiting = [1, 2].map(|_| scope.spawn(|| budget.wait_for(8).is_none()));
            budget.close();
            waiting.into_iter().for_each(|waiter| assert!(waiter.join().expect("it came back")));
        });
        assert!(budget.wait_for(2).is_some(), "what has room needs no wait");
        drop(held);
    }
}
