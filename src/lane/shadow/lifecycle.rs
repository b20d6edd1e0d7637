//! Starts, stops and joins a shadow's threads.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::sampler::Sampler;
use super::state::ShadowShared;
use crate::base::error::{Error, Result};
use crate::lane::listener::{ListenerHandle, Listening};
use crate::lane::threads;
use crate::ledger::subscription::{Channels, Subscriber};

/// A running shadow. When dropped, it stops and waits until its threads have ended.
#[derive(Debug)]
pub struct Shadow {
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
    sampler: Option<JoinHandle<()>>,
    // Dropped last, as its markers are needed until then.
    _listener: ListenerHandle,
}

impl Shadow {
    /// Starts the threads of a shadow. It does not end because Redis can't be reached.
    pub fn start(shared: &Arc<ShadowShared>) -> Result<Shadow> {
        let settings = &shared.settings;
        let channels = Channels {
            server: settings.redis.clone(),
            keys: Arc::new(settings.keys.clone()),
            interests: settings.interests.clone(),
            subscriber: Subscriber::Shadow(shared.id.clone()),
        };
        let listening = Listening {
            channels,
            sink: shared.tally.clone(),
            stats: shared.listener.clone(),
            troubles: shared.troubles.clone(),
            notices: None,
        };
        let listener = ListenerHandle::start(listening, "listener", &shared.log)?;
        let (stop, stopped) = bounded(0);
        let (ends, ended) = bounded(0);
        let sampler = Sampler::new(shared, stopped);
        let sampler = threads::spawn(thread::Builder::new(), "sampler", &shared.log, move || {
            // Dropped also after a panic.
            let _ends: Sender<()> = ends;
            sampler.run();
        })?;
        Ok(Shadow { stop: Some(stop), ended, sampler: Some(sampler), _listener: listener })
    }

    /// Disconnected when the sampler has ended by itself, which is a bug; then call [`stop`](Shadow::stop).
    pub fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    /// Stops, and waits until the threads have ended. Returns an error if one panicked.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop = None;
        let panicked = |_| Error::Failed("the thread sampler panicked".to_owned());
        self.sampler.take().map_or(Ok(()), |sampler| sampler.join().map_err(panicked))
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("event=shadow-failed error={}", crate::base::text::Quoted(error));
        }
    }
}
