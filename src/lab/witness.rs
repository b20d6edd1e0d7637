//! A consumer that keeps a [journal](super::journal) of its handler's runs, for trials: the programs' own counts die with
//! them. Apart from that it is `oncecast-consumer` with the handler `stamp`.

use super::journal::Journal;
use crate::base::error::Result;
use crate::consumer::{ConsumerBuilder, Delivery, stamp};
use crate::process::config::WitnessConfig;

/// Runs the consumer until it is asked to stop.
pub fn run(config: WitnessConfig) -> Result<()> {
    let log_level = config.consumer.common.log_level;
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let consumer = ConsumerBuilder::from(config.consumer)
        .handler(move |delivery: &Delivery<'_>| {
            journal.note(delivery.id(), delivery.number())?;
            stamp(delivery)
        })
        .bind()?;
    let _log = crate::process::log::init(log_level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals()?;
    consumer.run()
}
