//! The name of a process of a cluster.

use std::fmt;

/// One of the cluster's dispatchers or consumers, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// `d0`, `d1`, …
    Dispatcher(usize),
    /// `c0`, `c1`, …
    Consumer(usize),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Dispatcher(number) => write!(f, "d{number}"),
            Node::Consumer(number) => write!(f, "c{number}"),
        }
    }
}
