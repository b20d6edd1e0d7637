//! A consumer for chaos experiments. It keeps a [journal](crate::lab::journal) of its handler's runs, since the counts
//! in its memory are lost when it is killed. Otherwise it is `oncecast-consumer` with the handler `stamp`.

use self::settings::ChaosConsumerConfig;
use crate::base::error::Result;
use crate::consumer::{ConsumerBuilder, Delivery, stamp};
use crate::lab::journal::Journal;
use crate::programs;

pub mod settings;

/// Runs the consumer until it is asked to stop.
pub fn run(config: ChaosConsumerConfig) -> Result<()> {
    let log_level = config.consumer.common.log_level;
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let builder = ConsumerBuilder::from(config.consumer).handler(move |delivery: &Delivery<'_>| {
        journal.record(delivery.id(), delivery.number())?;
        stamp(delivery)
    });
    programs::consumer::serve(builder, log_level)
}
