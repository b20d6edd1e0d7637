//! One dispatcher's connection: a thread that reads ([`DispatcherLink`]), and one that writes the frames in its outbox.

mod common;
mod reader;
mod writer;

pub(super) use self::common::{Common, LinkLane};
pub(super) use self::reader::DispatcherLink;
