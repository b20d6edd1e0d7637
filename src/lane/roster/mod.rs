//! The roster: the consumers of a lane, shared by its threads. A list of plain addresses is a roster that never
//! changes.
//!
//! `source` has the entries of `--consumers`, `found` what each has led to, `members` the consumers with their slots,
//! `state` shares them, `list_file` reads files with addresses. The discovery passes in answers. The courier follows
//! the roster with a `follower`, and releases the members that leave, once they hold nothing. While no courier runs, a
//! member that leaves is kept for a while: if a term begins meanwhile, it is asked what it holds.

mod follower;
mod found;
mod list_file;
mod members;
mod source;
mod state;

pub(super) use self::follower::Follower;
pub(super) use self::found::Answer;
pub(super) use self::list_file::ListFile;
pub use self::list_file::read_list;
pub(super) use self::members::{Change, Member, MemberId};
pub use self::members::{MOST_FOUND, SourceStatus};
pub use self::source::{ConsumerSource, DNS_SCHEME, FILE_SCHEME, SECURE_SCHEME, Target};
pub use self::state::Roster;
