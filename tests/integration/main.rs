//! The integration tests: real programs, a real Redis, and peers that follow a script.
//!
//! They are one program, since each test program is linked with the whole library again. Tests of one program share a
//! process: none may change what belongs to a process, such as its environment, its folder, its signals or its logger.
//! `tests/faults` is a program of its own because it starts itself as a consumer; `tests/model` runs no program at all.

#[path = "../support/mod.rs"]
mod support;

mod conform;
mod consumers;
mod delivery;
mod documents;
mod lab;
mod leadership;
mod monitoring;
mod programs;
mod status_page;
