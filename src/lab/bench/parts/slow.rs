//! A consumer whose handler takes its time: `stamp`, after a wait that stands for the work of real life.

use std::thread;

use super::settings::SlowConfig;
use crate::base::error::Result;
use crate::consumer::Delivery;
use crate::process::supervision::Supervisor;
use crate::programs::consumer::{serve, stamp};

/// Runs the consumer until it is asked to stop.
pub(in crate::lab::bench) fn run(config: SlowConfig) -> Result<()> {
    let takes = config.handler_takes;
    let handler = move |delivery: &Delivery<'_>| {
        thread::sleep(takes);
        stamp(delivery)
    };
    serve(config.consumer, handler, Supervisor::unnoticed())
}
