//! Settling messages that came back without a result, and counting deliveries.

use redis::Value;

use super::core::{Ledger, name_the_command};
use super::scripts::{CountCall, SettleCall};
use super::types::{Returned, Settled, Settlement, Settling};
use crate::base::error::Result;
use crate::base::failure::Failure;
use crate::base::id::{Epoch, MessageId};

impl Ledger {
    /// Settles messages that came back: counts failed deliveries, and dead-letters messages whose last allowed
    /// delivery failed. The call may be repeated, because deliveries are counted by their numbers.
    pub fn settle(&mut self, epoch: Epoch, max_deliveries: u32, batch: &[Settling<'_>]) -> Result<Settlement> {
        const DOING: &str = "settling returned messages";
        let mut call = SettleCall { my_epoch: epoch, max_deliveries: max_deliveries.into() }.on(&self.keys);
        for Settling { returned, delivery, wait } in batch {
            let Returned { id, verdict, hold, consumer, reason, .. } = returned;
            call.push((id, verdict, hold));
            call.push((u64::from(*delivery), wait));
            call.push((&**consumer, &**reason));
        }
        let reply = self.call(DOING, call)?;
        let parts = self.ok_parts(epoch, DOING, reply)?;
        let (outcomes, refused) = parts.split_at(batch.len().min(parts.len()));
        let settled: Option<Vec<_>> = outcomes.iter().map(settled_of).collect();
        let Some(settled) = settled.filter(|settled| settled.len() == batch.len()) else {
            return self.unexpected_reply(DOING, &Value::Array(parts));
        };
        let refused = match refused {
            [Value::BulkString(text)] => {
                let failure = Failure::of_reply(text.strip_prefix(b"-").unwrap_or(text));
                let refusal = self.connection.refusal(DOING, failure);
                Some(self.name_the_key(name_the_command(refusal, "XADD")))
            }
            _ => None,
        };
        Ok(Settlement { settled, refused })
    }

    /// Counts redeliveries after a lost link, each with its number. Messages that are done are skipped.
    pub fn count_deliveries(&mut self, epoch: Epoch, sent: &[(MessageId, u16)]) -> Result<()> {
        let mut call = CountCall { my_epoch: epoch }.on(&self.keys);
        sent.iter().for_each(|(id, delivery)| call.push((id, u64::from(*delivery))));
        self.call_for_ok(epoch, "counting deliveries", call)
    }
}

/// Parses the outcome for one message in the reply of `lua/settle.lua`.
fn settled_of(part: &Value) -> Option<Settled> {
    match part {
        Value::Int(0) => Some(Settled::Gone),
        Value::Int(-1) => Some(Settled::DeadLettered),
        Value::Int(-2) => Some(Settled::Refused),
        Value::Int(delivery) => Some(Settled::Again((*delivery).clamp(1, u16::MAX.into()) as u16)),
        _ => None,
    }
}
