//! The notices that dispatchers publish on the control channel. Pure.

use std::fmt;
use std::str::FromStr;

use super::cursor::Marker;
use super::question::Question;
use crate::base::id::{Epoch, MessageId, id_in};

/// A message on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `marker <marker> <interests>`: names this place among the messages that a dispatcher with these interests
    /// counts: a channel's name, or a fingerprint. A cursor that counts messages of other interests means nothing to
    /// others. In a Redis Cluster the node follows, `<interests> node:<id>`, because each node sends the messages in an
    /// order of its own (see `on_node`).
    Marker(Marker, String),
    /// `released <epoch>`: the leader of this epoch has released the lease.
    Released(Epoch),
    /// `returned <id> <id> …`: these dead letters are pending again. At most [`MOST_RETURNED`].
    Returned(Vec<MessageId>),
    /// `settings`: the group's settings have changed.
    Settings,
    /// `where <request> <id> <id> …`: an operator asks where these messages are.
    Where(Question),
}

/// What a marker says of the messages that it stands among: the interests, and in a Redis Cluster the node at which its
/// dispatcher is subscribed.
pub fn on_node(interests: &str, node: Option<&str>) -> String {
    node.map_or_else(|| interests.to_owned(), |node| format!("{interests}{NODE}{node}"))
}

/// The interests and the node again.
pub fn interests_and_node(of: &str) -> (&str, Option<&str>) {
    of.rsplit_once(NODE).map_or((of, None), |(interests, node)| (interests, Some(node)))
}

/// What stands between the two.
const NODE: &str = " node:";

/// The most ids in a notice.
pub const MOST_RETURNED: usize = 128;

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Marker(marker, interests) => write!(f, "marker {marker} {interests}"),
            Notice::Released(epoch) => write!(f, "released {epoch}"),
            Notice::Returned(ids) => {
                f.write_str("returned")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Notice::Settings => f.write_str("settings"),
            Notice::Where(question) => write!(f, "where {question}"),
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
            Some(("returned", ids)) => {
                let ids: Option<Vec<MessageId>> = ids.split(' ').map(id_in).take(MOST_RETURNED + 1).collect();
                ids.filter(|ids| ids.len() <= MOST_RETURNED).map(Notice::Returned).ok_or(())
            }
            None if text == "settings" => Ok(Notice::Settings),
            Some(("where", question)) => question.parse().map(Notice::Where),
            _ => Err(()),
        }
    }
}
