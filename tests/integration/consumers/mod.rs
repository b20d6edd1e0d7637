//! Consumers, and the peers that connect to them.

mod exec;
mod fixture;
mod greeting;
mod lane_limits;
mod lanes;
mod leaders;
mod membership;
mod misuse;
mod processing;
mod secret;
mod stopping;
mod strangers;
mod tls;
mod without_redis;
