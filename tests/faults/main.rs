//! The fault matrix: each row tests the guarantees under one kind of fault, with real processes and a real Redis.
//!
//! A test is named after its row. One alone, with the seed of a failure, under more load:
//!
//! ```text
//! cargo test --test faults row_04
//! ONCECAST_SEED=1234 cargo test --test faults row_04
//! cargo test --test faults stream::row_04                  with --deliver stream
//! cargo test --test faults mixed::                         with consumers in several languages
//! make faults                                              all of them, long
//! ```
//!
//! Most rows run in two [modes](mode): delivering to consumers and into a stream. The others need consumers. Some run
//! with [consumers in several languages](languages), too.
//!
//! A message is *owed* if its `PUBLISH` reached a dispatcher in sync that lived until the message was stored. Every row
//! must end with **L0**: each owed message is in the results or the dead letters, none is there twice, nothing is there
//! that was never published, and nothing is pending.

#[path = "../support/mod.rs"]
mod support;

mod absurd;
mod bundles;
mod censor;
mod clusters;
mod consumer;
mod delays;
mod dispatchers;
mod doctor;
mod drains;
mod garbage;
mod keepers;
mod keys;
mod keys_in_order;
mod lanes;
mod languages;
mod leader;
mod limits;
mod managed;
mod mixed;
mod mode;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod network;
mod order;
mod pair;
mod pauses;
mod proxy;
mod redis;
mod refusals;
mod replays;
mod replies;
mod restarts;
mod roster;
mod router;
mod run;
mod scene;
mod sentinel;
mod servers;
mod slow_bus;
mod strangers;
mod stream_workers;
mod subscription;
mod users;
mod watch;
mod workers;
