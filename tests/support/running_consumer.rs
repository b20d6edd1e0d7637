//! A consumer in the test's own process, on a thread of its own. Dropping it stops and joins it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use oncecast::base::shutdown::ShutdownHandle;
use oncecast::{ConsumerBuilder, ConsumerStats};

use super::waiting::wait_until;

/// See the module's text.
pub struct RunningConsumer {
    pub address: SocketAddr,
    pub stats: Arc<ConsumerStats>,
    pub handle: ShutdownHandle,
    thread: Option<JoinHandle<Result<(), oncecast::Error>>>,
}

impl RunningConsumer {
    pub fn start(builder: ConsumerBuilder) -> RunningConsumer {
        let consumer = builder.bind().expect("a free port");
        let (address, stats, handle) = (consumer.local_addr(), consumer.stats(), consumer.shutdown_handle());
        let thread = thread::spawn(move || consumer.run());
        RunningConsumer { address, stats, handle, thread: Some(thread) }
    }

    /// Stops it; fails unless it ends without an error.
    pub fn stop(mut self) {
        self.handle.shutdown();
        let thread = self.thread.take().expect("it is stopped once");
        wait_until("the consumer to stop", || thread.is_finished().then_some(()));
        thread.join().expect("no panic").expect("a clean end");
    }
}

impl Drop for RunningConsumer {
    fn drop(&mut self) {
        // The second request stops it at once.
        self.handle.shutdown();
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
