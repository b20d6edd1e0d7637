//! The programs as seen by a shell, systemd and an operator.

mod access;
mod audit;
mod backup;
mod dead;
mod doctor;
pub mod example;
mod healthcheck;
mod hostile;
mod http;
mod lanes;
mod lanes_watch;
mod local;
mod logs;
mod names;
mod pending;
mod publisher;
mod readme;
mod redis_cluster;
mod redis_settings;
mod results;
mod settings;
mod slow_names;
mod status;
mod supervision;
mod tls;
