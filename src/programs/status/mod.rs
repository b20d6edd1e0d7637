//! The status of a group: `oncecast status`, and the page that each dispatcher serves. It only reads.

pub mod delivery;
mod health;
mod lanes;
pub mod order;
mod page;
mod reader;
mod readers;
mod records;
pub mod report;
mod run;
pub mod settings;
pub mod shadow;
mod show;
mod state;

pub use self::health::NEEDS_ATTENTION;
pub use self::lanes::combined;
pub use self::page::{PAGE, PAGE_POLICY};
pub use self::reader::StatusReader;
pub use self::run::run;
pub use self::show::{failure_to_json, json_text};
pub use self::state::{MANY_DEATHS, MAX_AGE, Member, SHOWN_GAPS, Status};

#[cfg(test)]
mod tests;
