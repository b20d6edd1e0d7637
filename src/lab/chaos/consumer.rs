//! A consumer for chaos experiments. It keeps a [journal](crate::lab::journal) of its handler's runs, since the counts
//! in its memory are lost when it is killed. In all other respects it is `oncecast-consumer` with the handler `stamp`.

use self::settings::ChaosConsumerConfig;
use crate::base::error::Result;
use crate::consumer::Delivery;
use crate::lab::journal::Journal;
use crate::process::supervision::Supervisor;
use crate::programs::consumer::{serve, stamp};

pub mod settings;

/// Runs the consumer until it is asked to stop.
pub fn run(config: ChaosConsumerConfig) -> Result<()> {
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let handler = move |delivery: &Delivery<'_>| {
        journal.record(delivery.lane(), delivery.id(), delivery.number())?;
        stamp(delivery)
    };
    serve(config.consumer, handler, Supervisor::log_only())
}
