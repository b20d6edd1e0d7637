//! The dispatcher: reads its settings, runs, and says how it ended.

use std::process::ExitCode;

use oncecast::base::error::Result;
use oncecast::base::shutdown::shutdown_channel;
use oncecast::lane::Dispatcher;
use oncecast::process::config::{self, DispatcherConfig};
use oncecast::process::program;

fn main() -> ExitCode {
    program::main("oncecast-dispatcher", config::dispatcher, run)
}

fn run(config: DispatcherConfig) -> Result<u8> {
    let level = config.common.log_level;
    let dispatcher = Dispatcher::new(config);
    let _log = oncecast::process::log::init(level, dispatcher.shared().id.as_str(), "starting")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    dispatcher.run(requests).map(|()| 0)
}
