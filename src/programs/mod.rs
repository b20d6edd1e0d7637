//! The programs that are not a service of their own: the publisher, `audit` and `status`.

pub mod audit;
pub mod publisher;
pub mod status;
