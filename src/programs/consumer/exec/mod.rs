//! The built-in handler `exec`: runs a program in any language on each message.
//!
//! `handler` is the whole of it. Either children live long and answer one message after the other: `pool` has those
//! that wait, `worker` is one of them, `request` and `answer` are the two lines. Or each message has a process of its
//! own: `per_message` starts and counts them, `process` is one of them. Both are made of `program`, the command line;
//! `group`, a process and what it starts; `pipes`; and `stderr`, what children write to the log.
//!
//! Guarantees: a handler thread waits for a child to be started and to read the message, each with a limit, then no
//! longer than the handler timeout and the few seconds that ending a child may take. A message fails only if a child
//! may have begun on it. When a result counts or a failure is reported, the child has answered or has ended, so no run
//! of a message goes on in secret. Memory is limited for each child: a request, an answer and a line of its log. No
//! child outlives the consumer in order: if the consumer is killed, children find the end of their standard input.

mod answer;
mod group;
mod handler;
mod per_message;
mod pipes;
mod pool;
mod process;
mod program;
mod request;
pub mod settings;
mod stderr;
#[cfg(test)]
mod tests;
mod worker;

pub use self::answer::read as read_answer;
pub use self::handler::Exec;
