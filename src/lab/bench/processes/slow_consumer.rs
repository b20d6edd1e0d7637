//! A consumer with a slow handler: it sleeps, in place of real work, and then calls `stamp`.

use std::thread;

use super::settings::SlowConfig;
use crate::base::error::Result;
use crate::consumer::{ConsumerBuilder, Delivery, stamp};
use crate::programs;

/// Runs the consumer until it is asked to stop.
pub(crate) fn run(config: SlowConfig) -> Result<()> {
    let log_level = config.consumer.common.log_level;
    let takes = config.handler_takes;
    let builder = ConsumerBuilder::from(config.consumer).handler(move |delivery: &Delivery<'_>| {
        thread::sleep(takes);
        stamp(delivery)
    });
    programs::consumer::serve(builder, log_level)
}
