//! A consumer for chaos experiments. It keeps a [journal](crate::lab::journal) of its handler's runs, since the counts in
//! its memory are lost when it is killed. Otherwise it is `oncecast-consumer` with the handler `stamp`.

use crate::base::error::Result;
use crate::consumer::{ConsumerBuilder, Delivery, stamp};
use crate::lab::journal::Journal;
use crate::process::config::WitnessConfig;

/// Runs the consumer until it is asked to stop.
pub fn run(config: WitnessConfig) -> Result<()> {
    let log_level = config.consumer.common.log_level;
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let consumer = ConsumerBuilder::from(config.consumer)
        .handler(move |delivery: &Delivery<'_>| {
            journal.record(delivery.id(), delivery.number())?;
            stamp(delivery)
        })
        .bind()?;
    let _log = crate::process::log::init(log_level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals()?;
    consumer.run()
}
