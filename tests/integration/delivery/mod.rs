//! Delivery of messages to consumers, and its outcomes.

mod answers;
mod confirmations;
mod deliveries;
mod forward;
mod gaps;
mod interests;
mod lanes;
mod one_result;
mod order;
mod pause;
mod precedence;
mod recall;
mod replicas;
mod retries;
mod roster;
mod shadow;
mod shadow_lanes;
mod sharded;
mod spread;
mod streams;
mod switch;
mod upgrade;
