//! One dispatcher leads at a time, and leadership moves without loss.

mod epochs;
mod fence;
mod kill_switch;
mod replicas;
mod takeover;
