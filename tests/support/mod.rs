//! What the integration tests and the fault matrix share.
//!
//! Everything stops when it is dropped. Waits have a deadline, and their failures say what was awaited.

// Each test program uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod browser;
pub mod certificates;
pub mod exposition;
pub mod http;
pub mod keeper;
pub mod load;
pub mod logs;
pub mod order;
pub mod peer;
pub mod processes;
pub mod programs;
pub mod progress;
pub mod proxy;
pub mod redis;
pub mod results;
pub mod running_consumer;
pub mod scripted_dispatcher;
pub mod scripted_group;
pub mod secret;
pub mod sharded;
pub mod skip;
pub mod status;
pub mod waiting;
pub mod workers;

pub use self::processes::{children_of, local_ports, most_resident_bytes, resident_bytes, runs, scheduling, threads};
pub use self::programs::{
    bare_cluster, cluster, cluster_of, dispatcher, lasting_cluster, lasting_redis_server, options, programs,
    redis_server, wait_for_another_leader,
};
pub use self::progress::{wait_for_intake, wait_for_intake_of, wait_until_done, wait_until_in_sync};
pub use self::redis::{
    CHANNEL, client, client_of, elect, pend, publish, publish_payloads, run, run_on, subscribers, subscription_of,
};
pub use self::results::{
    Fields, assert_each_once, assert_each_once_but, id_in_payload, id_of, newest_ids, occurrences, pending, raw_stream,
    recorded_ids, recorded_ids_of, state, state_of, stream,
};
pub use self::running_consumer::RunningConsumer;
pub use self::skip::{is_too_old, skipped};
pub use self::status::{assert_status_shows_gap, status};
pub use self::waiting::{DEADLINE, wait_until};
