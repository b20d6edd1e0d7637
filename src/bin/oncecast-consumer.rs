//! `oncecast-consumer`: works on messages with a built-in handler. All it does is in `oncecast::programs::consumer`.

use std::process::ExitCode;

use oncecast::process::{config, program};
use oncecast::programs::consumer;

fn main() -> ExitCode {
    program::main("oncecast-consumer", config::consumer, |config| consumer::run(config).map(|()| 0))
}
