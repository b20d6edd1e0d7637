//! The request to stop a whole service: it comes from a signal or from a [`ShutdownHandle`].

use crossbeam_channel::{Receiver, Sender, bounded};

#[cfg(feature = "signals")]
mod signals;

/// Asks a running consumer to stop, from any thread. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(Sender<()>);

/// Receives the requests of a [`ShutdownHandle`].
#[derive(Clone, Debug)]
pub struct ShutdownRequests(Receiver<()>);

/// A handle, and the receiver of its requests.
pub fn shutdown_channel() -> (ShutdownHandle, ShutdownRequests) {
    // Two: the second request means "at once".
    let (sender, receiver) = bounded(2);
    (ShutdownHandle(sender), ShutdownRequests(receiver))
}

impl ShutdownHandle {
    /// Asks the consumer to finish the messages that it holds and then stop. A second request stops it immediately.
    /// Never blocks.
    pub fn shutdown(&self) {
        // A full channel holds both requests already. If the channel is closed, there is nothing left to stop.
        let _ = self.0.try_send(());
    }

    /// Makes SIGTERM, SIGINT and SIGHUP requests, except SIGINT and SIGHUP if they were ignored at the start. Call it
    /// once per process.
    #[cfg(feature = "signals")]
    #[doc(hidden)]
    pub fn on_signals(&self) -> crate::base::error::Result<()> {
        let handle = self.clone();
        signals::catch(move || handle.shutdown(), false)
    }

    /// The same, and ignores SIGHUP if this process uses certificates or a link secret: who renews them may send it, as
    /// to other programs. Here it is not needed, since changed files are noticed.
    #[cfg(feature = "signals")]
    #[doc(hidden)]
    pub fn on_signals_with_certificates(&self, certificates: bool) -> crate::base::error::Result<()> {
        let handle = self.clone();
        signals::catch(move || handle.shutdown(), certificates)
    }
}

impl ShutdownRequests {
    /// The channel to wait on, for a `select!`.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.0
    }
}
