//! A consumer that keeps a [journal](super::journal) of its handler's runs, for trials: the programs' own counts die with
//! them. Apart from that it is `oncecast-consumer` with the handler `stamp`.

use super::journal::Journal;
use crate::base::error::Result;
use crate::consumer::Delivery;
use crate::process::config::WitnessConfig;
use crate::process::supervision::Supervisor;
use crate::programs::consumer::{run_handler, stamp};

/// Runs the consumer until it is asked to stop.
pub fn run(config: WitnessConfig) -> Result<()> {
    let journal = Journal::open(&config.journals.join(&config.consumer.consumer_id))?;
    let handler = move |delivery: &Delivery<'_>| {
        journal.note(delivery.id(), delivery.number())?;
        stamp(delivery)
    };
    run_handler(config.consumer, handler, Supervisor::unnoticed)
}
