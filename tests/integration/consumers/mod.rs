//! Consumers, and what connects to them.

mod consumer;
mod greeting;
mod membership;
mod strangers;
