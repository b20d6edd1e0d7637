//! How a message reaches a consumer, and what comes of it.

mod answers;
mod deliveries;
mod gaps;
mod one_result;
mod precedence;
mod recall;
mod retries;
