//! The context of a thread's log lines: a role, an epoch and, if a process has several lanes, the lane's name.
//!
//! Each lane, and each service without one, has a [`LogContext`]. Every thread that works for it calls [`enter`] when
//! it starts, so that a change of role shows in the lines of all its threads at once. A thread that has entered none
//! logs with the process's own context, [`LogContext::of_process`].
//!
//! Reading one is an uncontended lock, and happens once for each log line.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use super::id::Epoch;

thread_local! {
    static ENTERED: RefCell<Option<LogContext>> = const { RefCell::new(None) };
}

/// The context of the threads that have entered none.
static PROCESS: LazyLock<LogContext> = LazyLock::new(|| LogContext::new("starting"));

/// See the module's text. Clones are the same context.
#[derive(Clone, Debug)]
pub struct LogContext(Arc<ContextState>);

#[derive(Debug)]
struct ContextState {
    lane: Option<String>,
    // Under one lock, so that no line has the role of one moment and the epoch of another.
    role: RwLock<(&'static str, Option<Epoch>)>,
}

impl LogContext {
    /// A context of its own, without a lane's name.
    pub fn new(role: &'static str) -> LogContext {
        LogContext::with_lane(role, None)
    }

    /// A context of its own; `lane` is the name that distinguishes it from the process's other lanes.
    pub fn with_lane(role: &'static str, lane: Option<String>) -> LogContext {
        LogContext(Arc::new(ContextState { lane, role: RwLock::new((role, None)) }))
    }

    /// The context of the threads that have entered no other. One for a process, like the logger.
    pub fn of_process() -> LogContext {
        PROCESS.clone()
    }

    /// Changes what log lines show from now on.
    pub fn set(&self, role: &'static str, epoch: Option<Epoch>) {
        *self.0.role.write() = (role, epoch);
    }

    /// The role, and its epoch if it has one.
    pub fn role(&self) -> (&'static str, Option<Epoch>) {
        *self.0.role.read()
    }

    /// The lane's name, if the process has several.
    pub fn lane(&self) -> Option<&str> {
        self.0.lane.as_deref()
    }
}

/// From now on this thread works for what `context` describes.
pub fn enter(context: &LogContext) {
    ENTERED.set(Some(context.clone()));
}

/// Runs `work` in another context, for a thread that works for several.
pub fn within<T>(context: &LogContext, work: impl FnOnce() -> T) -> T {
    let before = ENTERED.replace(Some(context.clone()));
    let done = work();
    ENTERED.set(before);
    done
}

/// The context of this thread.
pub fn current() -> LogContext {
    // A thread that is ending may still log when its thread-locals are gone.
    let entered = ENTERED.try_with(|entered| entered.borrow().clone()).ok().flatten();
    entered.unwrap_or_else(LogContext::of_process)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn threads_of_two_lanes_have_their_own_roles() {
        let lanes = ["orders", "mails"].map(|name| LogContext::with_lane("standby", Some(name.to_owned())));
        let of_thread = |context: &LogContext| {
            let context = context.clone();
            let thread = thread::spawn(move || {
                enter(&context);
                let current = current();
                (current.role(), current.lane().map(str::to_owned))
            });
            thread.join().expect("it ends")
        };
        lanes[0].set("leader", Some(Epoch(7)));
        assert_eq!(of_thread(&lanes[0]), (("leader", Some(Epoch(7))), Some("orders".to_owned())));
        assert_eq!(of_thread(&lanes[1]), (("standby", None), Some("mails".to_owned())));
        let elsewhere = thread::spawn(|| current().lane().map(str::to_owned)).join().expect("it ends");
        assert_eq!(elsewhere, None);
    }
}
