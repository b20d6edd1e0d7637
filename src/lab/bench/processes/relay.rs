//! The lower bound of cost: a subscriber that writes a result for each message and guarantees nothing.
//!
//! Two connections and one thread. The messages of one read of the subscription are recorded in one pipeline, whose
//! replies are read just before the next pipeline is sent. Nothing is stored, acknowledged or delivered to another
//! process, and messages published while the relay does not run are lost.

use std::io::Write;

use super::message::{PAYLOAD_BYTES, ResultWriter};
use super::replies::{self, Replies};
use super::settings::RelayConfig;
use crate::base::error::{Error, Result};
use crate::ledger::command::command;
use crate::ledger::resp::{Received, receive};
use crate::net::Wait;
use crate::process::output;

/// The most results in a pipeline.
const MAX_BATCH: usize = 1_000;

/// Relays until it is killed: the relay's main loop.
pub(crate) fn run(config: &RelayConfig) -> Result<()> {
    let (mut subscription, mut subscriber) = replies::open(config.port, |greeting| {
        command(greeting, &["HELLO", "3"]);
        1
    })?;
    let (mut replies, mut writer) = Replies::connect(config.port)?;
    let mut out = Vec::new();
    command(&mut out, &["SUBSCRIBE", &config.channel]);
    subscriber.write_all(&out).map_err(Error::io("subscribing"))?;
    subscription.set_wait(Wait::Forever).map_err(Error::io("setting a timeout"))?;
    out.clear();
    let results = ResultWriter::new(&config.results, &config.name);
    let mut subscribed = false;
    let mut unanswered = 0;
    loop {
        let mut batch = 0;
        while batch < MAX_BATCH {
            let received = receive(subscription.received(), *PAYLOAD_BYTES.end());
            let Some((received, length)) =
                received.map_err(|_| Error::Failed("the reply is not valid RESP".to_owned()))?
            else {
                break;
            };
            match received {
                Received::Message { payload, .. } => {
                    results.append(payload, &mut out);
                    batch += 1;
                }
                Received::Other if !subscribed => {
                    subscribed = true;
                    // The bench waits for this line.
                    output::print("ready\n")?;
                }
                other => return Err(Error::Failed(format!("unexpected data on the subscription: {other:?}"))),
            }
            subscription.take(length);
        }
        if batch == 0 {
            subscription.move_to_front();
            subscription.receive().map_err(Error::io("reading the subscription"))?;
            continue;
        }
        replies.make_room();
        replies.skip_ok(unanswered)?;
        writer.write_all(&out).map_err(Error::io("writing to redis"))?;
        out.clear();
        unanswered = batch;
    }
}
