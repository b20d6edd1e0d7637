//! A consumer with a slow handler: it sleeps, in place of real work, and then calls `stamp`.

use std::thread;

use super::settings::SlowConfig;
use crate::base::error::Result;
use crate::consumer::Delivery;
use crate::process::supervision::Supervisor;
use crate::programs::consumer::{serve, stamp};

/// Runs the consumer until it is asked to stop.
pub(crate) fn run(config: SlowConfig) -> Result<()> {
    config.consumer.common.scheduling.apply();
    let takes = config.handler_takes;
    let handler = move |delivery: &Delivery<'_>| {
        thread::sleep(takes);
        stamp(delivery)
    };
    serve(config.consumer, handler, Supervisor::log_only())
}
