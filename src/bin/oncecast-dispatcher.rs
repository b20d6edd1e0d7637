//! The dispatcher: reads its settings, runs, and says how it ended.

use std::process::ExitCode;

use oncecast::config::{self, DispatcherConfig, Parsed};
use oncecast::dispatcher::Dispatcher;
use oncecast::error::Result;
use oncecast::metrics::healthcheck;
use oncecast::shutdown::shutdown_channel;

fn main() -> ExitCode {
    match config::dispatcher(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => match run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                oncecast::log::fail("oncecast-dispatcher", &error);
                ExitCode::from(error.exit_code())
            }
        },
        Ok(Parsed::Healthcheck(config)) => ExitCode::from(healthcheck::run(&config)),
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => error.exit(),
    }
}

fn run(config: DispatcherConfig) -> Result<()> {
    let level = config.common.log_level;
    let dispatcher = Dispatcher::new(config);
    let _log = oncecast::log::init(level, dispatcher.shared().id.as_str(), "starting")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    dispatcher.run(requests)
}
