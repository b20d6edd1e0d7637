//! The subcommand `conform`: plays a dispatcher to one consumer, and reports where the consumer violates the protocol.
//!
//! The cases are data, in `cases.json`; `parse` reads them and `case` says what they can express. `run` tries the
//! consumer once, then plays each case on a `stage`, which holds the case's connections and checks what every frame
//! must keep. `steps` executes a case's steps; `proving` knows the link secret; `expectations` and `answers` judge what
//! came back. All of it runs on the caller's thread, and each step has a deadline.

mod answers;
mod body;
mod case;
mod expectations;
mod group;
mod handshake;
mod heard;
mod link;
mod members;
mod parse;
mod peer;
mod proving;
mod report;
mod run;
pub mod settings;
mod stage;
mod steps;
mod target;

pub use self::case::{Case, Cases};
pub use self::parse::cases;
pub use self::report::{Report, Verdict};
pub use self::run::{conform, run};

#[cfg(test)]
mod tests;
