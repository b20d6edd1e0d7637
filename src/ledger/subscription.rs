//! The subscription of a dispatcher, and the notices on its control channel.

use std::fmt;
use std::str::FromStr;

use super::Marker;
use crate::id::Epoch;

/// A message on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `marker <marker>`: names this place in the stream.
    Marker(Marker),
    /// `released <epoch>`: the leader of this epoch has given the lease back.
    Released(Epoch),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Marker(marker) => write!(f, "marker {marker}"),
            Notice::Released(epoch) => write!(f, "released {epoch}"),
        }
    }
}

impl FromStr for Notice {
    type Err = ();

    fn from_str(text: &str) -> Result<Notice, ()> {
        match text.split_once(' ') {
            Some(("marker", marker)) => marker.parse().map(Notice::Marker),
            Some(("released", epoch)) => epoch.parse().map(|epoch| Notice::Released(Epoch(epoch))).map_err(|_| ()),
            _ => Err(()),
        }
    }
}
