//! `oncecast-dispatcher`: a lane as a service.

pub mod settings;

use self::settings::DispatcherConfig;
use crate::base::error::Result;
use crate::base::shutdown::shutdown_channel;
use crate::lane::Dispatcher;
use crate::process::log;

/// Runs the dispatcher until it is asked to stop. Gives the exit code.
pub fn run(config: DispatcherConfig) -> Result<u8> {
    let level = config.common.log_level;
    let dispatcher = Dispatcher::new(config);
    let _log = log::init(level, dispatcher.shared().id.as_str(), "starting")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    dispatcher.run(requests).map(|()| 0)
}
