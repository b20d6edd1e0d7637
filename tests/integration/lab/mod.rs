//! `oncecast demo`, `chaos` and `bench`, and the local cluster that they and the tests use.

mod bench;
mod chaos;
mod cluster;
mod demo;
mod server;
