//! The notices that dispatchers publish on the control channel. Pure.

use std::fmt;
use std::str::FromStr;

use super::cursor::Marker;
use crate::base::id::Epoch;

/// A message on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `marker <marker> <channel>`: names this place among the messages of the users' channel. Dispatchers with another
    /// channel ignore it, because a cursor that counts another channel's messages means nothing to them.
    Marker(Marker, String),
    /// `released <epoch>`: the leader of this epoch has released the lease.
    Released(Epoch),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Marker(marker, channel) => write!(f, "marker {marker} {channel}"),
            Notice::Released(epoch) => write!(f, "released {epoch}"),
        }
    }
}

impl FromStr for Notice {
    type Err = ();

    fn from_str(text: &str) -> Result<Notice, ()> {
        match text.split_once(' ') {
            Some(("marker", place)) => {
                let (marker, channel) = place.split_once(' ').ok_or(())?;
                Ok(Notice::Marker(marker.parse()?, channel.to_owned()))
            }
            Some(("released", epoch)) => epoch.parse().map(|epoch| Notice::Released(Epoch(epoch))).map_err(|_| ()),
            _ => Err(()),
        }
    }
}
