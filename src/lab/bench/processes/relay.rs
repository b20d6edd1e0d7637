//! The lower bound of cost: a subscriber that writes a result for each message and guarantees nothing.
//!
//! Two connections and one thread. The messages of one read of the subscription are recorded in one pipeline, whose
//! replies are read just before the next pipeline is sent. Nothing is stored, acknowledged or delivered to another
//! process, and messages published while the relay does not run are lost.

use super::message::{PAYLOAD_BYTES, ResultWriter};
use super::raw_connection::RawConnection;
use super::settings::RelayConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::command;
use crate::ledger::resp::{Received, receive};
use crate::process::output;

/// The most results in a pipeline.
const MAX_BATCH: usize = 1_000;

/// Relays until it is killed: the relay's main loop.
pub(crate) fn run(config: &RelayConfig) -> Result<()> {
    let mut subscription = RawConnection::connect(config.port)?;
    let mut results = RawConnection::connect(config.port)?;
    let mut out = Vec::new();
    command(&mut out, &["HELLO", "3"]);
    command(&mut out, &["SUBSCRIBE", &config.channel]);
    subscription.send(&out)?;
    subscription.disable_timeout()?;
    out.clear();
    let writer = ResultWriter::new(&config.results, &config.name);
    // The replies to the two commands.
    let mut greetings = 2;
    let mut unanswered = 0;
    loop {
        let mut batch = 0;
        while batch < MAX_BATCH {
            let received = receive(subscription.unparsed(), *PAYLOAD_BYTES.end());
            let Some((received, length)) =
                received.map_err(|_| Error::Failed("the reply is not valid RESP".to_owned()))?
            else {
                break;
            };
            match received {
                Received::Message { payload, .. } => {
                    writer.append(payload, &mut out);
                    batch += 1;
                }
                Received::Other if greetings > 0 => {
                    greetings -= 1;
                    if greetings == 0 {
                        // The bench waits for this line.
                        output::print("ready\n")?;
                    }
                }
                other => return Err(Error::Failed(format!("unexpected data on the subscription: {other:?}"))),
            }
            subscription.take(length);
        }
        if batch == 0 {
            subscription.discard_taken();
            subscription.read_more()?;
            continue;
        }
        results.discard_taken();
        results.skip_ok(unanswered)?;
        results.send(&out)?;
        out.clear();
        unanswered = batch;
    }
}
