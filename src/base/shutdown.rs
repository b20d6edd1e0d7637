//! The request to stop a whole service: it comes from a signal or from a [`ShutdownHandle`].

use crossbeam_channel::{Receiver, Sender, bounded};

#[cfg(feature = "signals")]
mod signals;

/// Asks a running consumer to stop, from any thread. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(Sender<()>);

/// Hears what a [`ShutdownHandle`] asks.
#[derive(Clone, Debug)]
pub struct ShutdownRequests(Receiver<()>);

/// A handle and the end that hears it.
pub fn shutdown_channel() -> (ShutdownHandle, ShutdownRequests) {
    // Two: the second request means "at once".
    let (sender, receiver) = bounded(2);
    (ShutdownHandle(sender), ShutdownRequests(receiver))
}

impl ShutdownHandle {
    /// Asks it to finish the messages that it holds and then to stop; asked a second time, to stop at once. Never
    /// blocks.
    pub fn shutdown(&self) {
        // A full channel holds both requests already, a closed one has no receiver left to stop.
        let _ = self.0.try_send(());
    }

    /// Passes SIGTERM, SIGINT and SIGHUP on, but for SIGINT and SIGHUP that were ignored at the start. Once for a
    /// process.
    #[cfg(feature = "signals")]
    #[doc(hidden)]
    pub fn on_signals(&self) -> crate::base::error::Result<()> {
        let handle = self.clone();
        signals::catch(move || handle.shutdown())
    }
}

impl ShutdownRequests {
    /// The channel to wait on, for a `select!`.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.0
    }
}
