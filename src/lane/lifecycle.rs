//! A lane that runs: started, asked to stop, joined.
//!
//! It ends in order: the election stops its term and gives the lease back, then the dialers and last the listener go,
//! since the lease counts as abandoned once the listener's connection is closed.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

use super::dialer::Dialers;
use super::election::Election;
use super::listener::ListenerHandle;
use super::shared::Shared;
use crate::base::error::{Error, Result};
use crate::base::shutdown::{ShutdownHandle, shutdown_channel};
use crate::base::text::Quoted;
use crate::ledger::subscription::Channels;

/// A group's way from Redis to its consumers. Dropped: stops, and waits until it has ended.
#[derive(Debug)]
pub struct Lane {
    stop: ShutdownHandle,
    election: Option<JoinHandle<Result<()>>>,
    dialers: Option<Dialers>,
    listener: Option<ListenerHandle>,
}

/// Announces the end of the election, even by a panic.
struct EndGuard(Sender<()>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        // Whoever no longer listens is not interested.
        let _ = self.0.try_send(());
    }
}

impl Lane {
    /// Starts the threads of a lane. When its election has ended, asked to or not, that is announced on `ended`, which
    /// must have room for it; the lane is then to be [joined](Lane::join). A Redis that can't be reached is no reason
    /// to end.
    pub fn start(shared: &Arc<Shared>, ended: Sender<()>) -> Result<Lane> {
        let settings = &shared.settings;
        let channels = Channels {
            server: settings.redis.clone(),
            keys: Arc::new(settings.keys.clone()),
            published: settings.channel.clone(),
            dispatcher: shared.id.clone(),
        };
        let (released, releases) = bounded(1);
        let (stop, requests) = shutdown_channel();
        let listener = ListenerHandle::start(shared, channels, released)?;
        let dialers = Dialers::start(shared)?;
        let election = Election::new(shared.clone(), dialers.requests(), releases, requests);
        let guard = EndGuard(ended);
        let election = shared.spawn("election", move || {
            let _guard = guard;
            election.run()
        })?;
        Ok(Lane { stop, election: Some(election), dialers: Some(dialers), listener: Some(listener) })
    }

    /// Asks the lane to end: its term stores what has arrived, and the lease is given back.
    pub fn stop(&self) {
        self.stop.shutdown();
    }

    /// Waits until all its threads have ended. Returns why the election ended, if it failed.
    pub fn join(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let panicked = |_| Err(Error::Failed("the thread election panicked".to_owned()));
        let outcome = self.election.take().map_or(Ok(()), |election| election.join().unwrap_or_else(panicked));
        self.dialers = None;
        self.listener = None;
        outcome
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.end() {
            log::error!("event=lane-failed error={}", Quoted(error));
        }
    }
}
