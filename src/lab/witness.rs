//! A consumer that keeps a [journal](super::journal) of its handler's runs, for trials: the programs' own counts die with
//! them. Apart from that it is `oncecast-consumer` with the handler `stamp`.

pub mod settings;

use self::settings::WitnessConfig;
use super::journal::Journal;
use crate::base::error::Result;
use crate::consumer::{ConsumerBuilder, Delivery, stamp};
use crate::programs;

/// Runs the consumer until it is asked to stop.
pub fn run(config: WitnessConfig) -> Result<()> {
    let log_level = config.consumer.common.log_level;
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let builder = ConsumerBuilder::from(config.consumer).handler(move |delivery: &Delivery<'_>| {
        journal.note(delivery.id(), delivery.number())?;
        stamp(delivery)
    });
    programs::consumer::serve(builder, log_level)
}
