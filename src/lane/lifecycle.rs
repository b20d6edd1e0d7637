//! Starts, stops and joins a lane's threads.
//!
//! The order of shutdown: the election ends its term and releases the lease, then the discovery and the dialers end.
//! The listener ends last, because the lease counts as abandoned once the listener's connection is closed.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

use super::dialers::Dialers;
use super::discovery::Discovery;
use super::election::Election;
use super::listener::{ListenerHandle, Listening, Notices};
use super::shared::Shared;
use crate::base::error::{Error, Result};
use crate::base::shutdown::{ShutdownHandle, shutdown_channel};
use crate::base::text::Quoted;
use crate::ledger::subscription::{Channels, Subscriber};

/// A running lane. When dropped, it stops and waits until all its threads have ended.
#[derive(Debug)]
pub struct Lane {
    stop: ShutdownHandle,
    election: Option<JoinHandle<Result<()>>>,
    discovery: Option<Discovery>,
    dialers: Option<Arc<Dialers>>,
    listener: Option<ListenerHandle>,
}

/// Announces the end of the election, even after a panic.
struct EndGuard<T>(Sender<T>, Option<T>);

impl<T> Drop for EndGuard<T> {
    fn drop(&mut self) {
        // If the receiver is gone, nothing waits for this.
        let _ = self.1.take().map(|name| self.0.try_send(name));
    }
}

impl Lane {
    /// Starts the threads of a lane. When its election has ended, for whatever reason, `name` is sent on `ended`,
    /// which must have room for it; then call [`join`](Lane::join). The lane does not end because Redis can't be
    /// reached.
    pub fn start<T: Send + 'static>(shared: &Arc<Shared>, ended: Sender<T>, name: T) -> Result<Lane> {
        let settings = &shared.settings;
        let channels = Channels {
            server: settings.redis.clone(),
            keys: Arc::new(settings.keys.clone()),
            interests: settings.interests.clone(),
            subscriber: Subscriber::Dispatcher(shared.id.clone()),
        };
        let (released, releases) = bounded(1);
        let (stop, requests) = shutdown_channel();
        let listening = Listening {
            channels,
            sink: shared.ring.clone(),
            stats: shared.listener.clone(),
            troubles: shared.troubles.clone(),
            notices: Some(Notices {
                released,
                replays: shared.replays.clone(),
                settings: shared.settings_news.clone(),
                moved: shared.moved.clone(),
                questions: shared.questions.clone(),
            }),
        };
        let listener = ListenerHandle::start(listening, &shared.thread_name("listener"), &shared.log)?;
        let dialers = Arc::new(Dialers::start(shared)?);
        let discovery = Discovery::start(shared, &dialers)?;
        let election = Election::new(shared.clone(), dialers.requests(), releases, requests);
        let guard = EndGuard(ended, Some(name));
        let election = shared.spawn("election", move || {
            let _guard = guard;
            election.run()
        })?;
        Ok(Lane { stop, election: Some(election), discovery, dialers: Some(dialers), listener: Some(listener) })
    }

    /// Asks the lane to end: its term stores what has arrived, and the lease is released.
    pub fn stop(&self) {
        self.stop.shutdown();
    }

    /// Waits until all threads have ended. Returns the error if the election failed.
    pub fn join(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let panicked = |_| Err(Error::Failed("the thread election panicked".to_owned()));
        let outcome = self.election.take().map_or(Ok(()), |election| election.join().unwrap_or_else(panicked));
        // Before what may take long, such as a look-up of a name: another lane may listen on the same node next.
        self.listener = None;
        self.discovery = None;
        self.dialers = None;
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
