//! Everything that knows a Redis key: the keys, the scripts, and one typed operation for each thing done with them.
//!
//! A [`Ledger`] is one connection, used by one thread at a time. Each operation is one script, one transaction or one
//! command, so that it happens whole or not at all (how, see `lua/steps.lua`); those of the leader carry its epoch and
//! are refused with [`Error::Fenced`](crate::base::error::Error::Fenced) once another dispatcher leads. An operation is
//! never repeated here: after an [`Error::Redis`](crate::base::error::Error::Redis) its outcome is unknown, and only
//! the caller knows what that means.
//!
//! From below: `resp` and `command` read and write the protocol, a `session` is one open connection, a `connection`
//! opens it again, `scripts` are the typed calls, `core` is what operations have in common, and each operation is in
//! the file of its subject. This file only declares and re-exports: no file beside it imports it.

mod alive;
mod attempts;
mod backlog;
pub mod bundle;
mod bundle_pages;
pub mod command;
mod commit;
mod confirming;
mod connection;
mod core;
mod cursor;
mod destination;
pub mod doctor;
mod epoch;
mod following;
mod group_name;
mod group_settings;
mod intake;
pub mod interests;
mod keys;
mod lanes;
mod leadership;
mod lease;
pub mod letters;
mod limits;
mod login;
mod looking;
mod member;
mod notice;
mod operating;
pub mod overview;
mod place;
mod question;
pub mod reading;
mod receiving;
mod records;
mod replay;
mod replicas;
pub mod resp;
mod role;
mod sample;
mod script;
mod scripts;
mod seal;
mod secure;
mod server;
pub mod server_check;
pub mod session;
mod settlement;
mod split;
pub mod subscription;
pub mod topology;
mod transaction;
pub mod trial;
mod types;
mod url;
mod value;

pub use self::command::{Command, Words};
pub use self::commit::{Sole, batches};
pub use self::connection::Connection;
pub use self::core::Ledger;
pub use self::cursor::{Cursor, Marker, Position};
pub use self::destination::Destination;
pub use self::epoch::MOST_EPOCH_BYTES;
pub use self::following::{Followed, Follower};
pub use self::group_name::{GROUP_FORM, LaneNumber, lane_name, lane_number, may_name_group};
pub use self::group_settings::{
    GroupSettings, MAX_BY_BYTES, MOST_IN_FLIGHT, Pause, PauseChange, PauseEnd, SettingsChange, SettingsReading,
};
pub use self::interests::{Glob, Interests, identity_hash};
pub use self::keys::{Keys, SlotMistake, cluster_form, cluster_stream_form};
pub use self::lease::Lease;
pub use self::limits::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, MAX_BATCH_WORDS, MAX_GAPS, MAX_RESULT_FIELDS, parts};
pub use self::looking::{Looked, LookedPage};
pub use self::member::{
    Body, Payload, decode as decode_member, encode as encode_member, most_encoded_len as most_member_len,
};
pub use self::notice::MOST_RETURNED;
pub use self::question::{Answer, Location, MOST_ASKED, Question, RequestId};
pub use self::replay::Replayed;
pub use self::sample::{GroupCounts, Sample};
pub use self::server::{Mistake, Planned, Server};
pub use self::split::{Split, Splitter};
pub use self::topology::{Primary, SLOTS, Topology, slot_of};
pub use self::types::{
    Acquire, Arrival, Attempt, Commit, Committed, DeliveryNumber, Fetched, Gap, Hold, IntakeAnswer, Page, PageRequest,
    Pending, Raise, Recall, Recorded, Returned, ServerChange, Settled, Settlement, Settling, Verdict,
};

#[cfg(test)]
mod properties;
// These start a Redis, as the lab does.
#[cfg(all(test, feature = "programs"))]
mod tests;
