//! The floor of cost: a subscriber that writes a result for each message, and promises nothing.
//!
//! Two connections and one thread. What one read of the subscription brought is written in one pipeline; its replies are
//! taken when the next one is about to go out. Nothing is kept, acknowledged or handed to anybody, and what comes while
//! it is away is lost.

use super::link::Link;
use super::message::{PAYLOAD_BYTES, Recorder};
use super::settings::RelayConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::command;
use crate::ledger::resp::{Received, receive};
use crate::process::output;

/// The most results that are written before the replies to the pipeline before are taken.
const MAX_BATCH: usize = 1_000;

/// Relays until it is killed: the relay's main loop.
pub(in crate::lab::bench) fn run(config: &RelayConfig) -> Result<()> {
    let mut subscription = Link::connect(config.port)?;
    let mut results = Link::connect(config.port)?;
    let mut out = Vec::new();
    command(&mut out, &["HELLO", "3"]);
    command(&mut out, &["SUBSCRIBE", &config.channel]);
    subscription.send(&out)?;
    subscription.wait_for_ever()?;
    out.clear();
    let recorder = Recorder::new(&config.results, &config.name);
    // The replies to the two commands.
    let mut greetings = 2;
    let mut unanswered = 0;
    loop {
        let mut batch = 0;
        while batch < MAX_BATCH {
            let received = receive(subscription.waiting(), *PAYLOAD_BYTES.end());
            let Some((received, length)) = received.map_err(|_| Error::Failed("this is no redis".to_owned()))? else {
                break;
            };
            match received {
                Received::Message { payload, .. } => {
                    recorder.append(payload, &mut out);
                    batch += 1;
                }
                Received::Other if greetings > 0 => {
                    greetings -= 1;
                    if greetings == 0 {
                        // Whoever started it waits for this.
                        output::print("ready\n")?;
                    }
                }
                other => return Err(Error::Failed(format!("the subscription brought {other:?}"))),
            }
            subscription.take(length);
        }
        if batch == 0 {
            subscription.settle();
            subscription.read_more()?;
            continue;
        }
        results.settle();
        results.pass(unanswered)?;
        results.send(&out)?;
        out.clear();
        unanswered = batch;
    }
}
