//! The context of a thread's log lines: a role, an epoch and, if a process has several lanes, the lane's name.
//!
//! Each lane, and each service without one, has a [`Context`]. Every thread that works for it calls [`enter`] when it
//! starts, so that a change of role shows in the lines of all its threads at once. A thread that has entered none logs
//! with the process's own context, [`Context::of_process`].
//!
//! Reading one is an uncontended lock, and happens once for each log line.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use super::id::Epoch;

thread_local! {
    static ENTERED: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// The context of the threads that have entered none.
static PROCESS: LazyLock<Context> = LazyLock::new(|| Context::new("starting"));

/// See the module's text. Clones are the same context.
#[derive(Clone, Debug)]
pub struct Context(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lane: Option<String>,
    // Under one lock, so that no line has the role of one moment and the epoch of another.
    role: RwLock<(&'static str, Epoch)>,
}

impl Context {
    /// A context of its own, without a lane's name.
    pub fn new(role: &'static str) -> Context {
        Context::with_lane(role, None)
    }

    /// A context of its own; `lane` is the name that distinguishes it from the process's other lanes.
    pub fn with_lane(role: &'static str, lane: Option<String>) -> Context {
        Context(Arc::new(Shared { lane, role: RwLock::new((role, Epoch::default())) }))
    }

    /// The context of the threads that have entered no other. One for a process, like the logger.
    pub fn of_process() -> Context {
        PROCESS.clone()
    }

    /// Changes what log lines show from now on.
    pub fn set(&self, role: &'static str, epoch: Epoch) {
        *self.0.role.write() = (role, epoch);
    }

    /// The role and its epoch, 0 if there is none.
    pub fn role(&self) -> (&'static str, Epoch) {
        *self.0.role.read()
    }

    /// The lane's name, if the process has several.
    pub fn lane(&self) -> Option<&str> {
        self.0.lane.as_deref()
    }
}

/// From now on this thread works for what `context` describes.
pub fn enter(context: &Context) {
    ENTERED.set(Some(context.clone()));
}

/// Runs `work` in another context, for a thread that works for several.
pub fn within<T>(context: &Context, work: impl FnOnce() -> T) -> T {
    let before = ENTERED.replace(Some(context.clone()));
    let done = work();
    ENTERED.set(before);
    done
}

/// The context of this thread.
pub fn current() -> Context {
    // A thread that is ending may still log when its thread-locals are gone.
    let entered = ENTERED.try_with(|entered| entered.borrow().clone()).ok().flatten();
    entered.unwrap_or_else(Context::of_process)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn threads_of_two_lanes_have_their_own_roles() {
        let lanes = ["orders", "mails"].map(|name| Context::with_lane("standby", Some(name.to_owned())));
        let of_thread = |context: &Context| {
            let context = context.clone();
            let thread = thread::spawn(move || {
                enter(&context);
                let current = current();
                (current.role(), current.lane().map(str::to_owned))
            });
            thread.join().expect("it ends")
        };
        lanes[0].set("leader", Epoch(7));
        assert_eq!(of_thread(&lanes[0]), (("leader", Epoch(7)), Some("orders".to_owned())));
        assert_eq!(of_thread(&lanes[1]), (("standby", Epoch(0)), Some("mails".to_owned())));
        let elsewhere = thread::spawn(|| current().lane().map(str::to_owned)).join().expect("it ends");
        assert_eq!(elsewhere, None);
    }
}
