//! A shadow: it listens to what a group listens to, takes part in nothing, and compares what it heard with what the
//! group stored. So Oncecast can be tried beside live subscribers, and a running group can be checked.
//!
//! ```text
//!  Shadow
//!   ├─ listener ──────── tally          counts messages, and remembers at which count each marker came
//!   └─ sampler ───────── comparison     reads the cursor and the group's counts once a second, in one step
//! ```
//!
//! The cursor names a place by a marker and the number of messages since. The tally knows the count at each marker, so
//! the comparison is exact: between two samples the group must have stored as many messages as the cursor has moved.
//!
//! A shadow never competes for the lease and has no alive channel, so elections ignore it. It publishes no marker, also
//! when it joins: its first marker is a leader's. It writes nothing; its process writes its report.

mod comparison;
mod lifecycle;
mod pace;
mod sampler;
mod state;
mod tally;

pub use self::comparison::{Restart, Totals};
pub use self::lifecycle::Shadow;
pub use self::pace::Pace;
pub use self::state::{Comparing, Figures, Findings, ShadowSettings, ShadowShared};
pub use self::tally::Received;
