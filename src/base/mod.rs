//! Shared basics: ids, errors, durations, waiting, counting. Nothing here talks to Redis or opens a socket; `failure`
//! only wraps the error type of the `redis` package.

pub mod address;
pub mod backoff;
pub mod budget;
pub mod bundle;
pub mod delivery_rate;
pub mod duration;
pub mod error;
pub mod failure;
pub mod hint;
pub mod histogram;
pub mod id;
pub mod log_context;
pub mod log_sum;
pub mod mask;
pub mod pulse;
pub mod rate;
pub mod rate_limit;
pub mod refusal;
pub mod retry_policy;
pub mod secret_file;
pub mod setting;
pub mod shutdown;
pub mod text;
pub mod tls;
pub mod trouble;
