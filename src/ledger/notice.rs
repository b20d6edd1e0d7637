//! The notices that dispatchers publish on the control channel. Pure.

use std::fmt;
use std::str::FromStr;

use super::cursor::Marker;
use crate::base::id::Epoch;

/// A message on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `marker <marker> <interests>`: names this place among the messages that a dispatcher with these interests
    /// counts: a channel's name, or a fingerprint. A cursor that counts messages of other interests means nothing to
    /// others.
    Marker(Marker, String),
    /// `released <epoch>`: the leader of this epoch has released the lease.
    Released(Epoch),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Marker(marker, interests) => write!(f, "marker {marker} {interests}"),
            Notice::Released(epoch) => write!(f, "released {epoch}"),
        }
    }
}

impl FromStr for Notice {
    type Err = ();

    fn from_str(text: &str) -> Result<Notice, ()> {
        match text.split_once(' ') {
            Some(("marker", place)) => {
                let (marker, interests) = place.split_once(' ').ok_or(())?;
                Ok(Notice::Marker(marker.parse()?, interests.to_owned()))
            }
            Some(("released", epoch)) => epoch.parse().map(|epoch| Notice::Released(Epoch(epoch))).map_err(|_| ()),
            _ => Err(()),
        }
    }
}
