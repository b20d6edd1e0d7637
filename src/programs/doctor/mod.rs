//! The subcommand `doctor`: says for each program whether it works with this server and this user, and if not, what to
//! type.
//!
//! Runs on the caller's thread. What is tried, and how, is in [`ledger::doctor`](crate::ledger::doctor); `report` shows
//! it, as text and as JSON. `consumers` tries the entries of `--consumers`.

mod consumers;
mod report;
mod run;
pub mod settings;

pub use self::report::Report;
pub use self::run::run;
