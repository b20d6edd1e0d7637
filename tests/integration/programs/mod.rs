//! The programs as a shell, systemd and an operator meet them.

mod audit;
mod example;
mod healthcheck;
mod local;
mod logs;
mod publisher;
mod redis_settings;
mod settings;
mod slow_names;
mod status;
mod supervision;
