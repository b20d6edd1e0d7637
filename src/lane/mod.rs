//! A lane: the dispatcher's work for one group. As leader it stores messages and delivers them.
//!
//! A lane knows nothing of the process that runs it, and several can run in one. It is a few threads:
//!
//! ```text
//!  Lane
//!   ├─ listener ──────── ring                             in every lane, always
//!   ├─ dialers ───────── one for each consumer: connect, greet, pass the link to the courier
//!   ├─ discovery ─────── follows lists of consumers, if there is one to follow
//!   └─ election ──────── the lease; the main loop of the lane
//!        └─ a term, while leader: three workers that all check one kill switch, or only ingest
//!             ingest ──arrivals──▶ courier ──tasks──▶ redistributor
//!                                     ▲◀───replies──────────┘
//! ```
//!
//! [`Lane::start`] starts it, [`Lane::stop`] and [`Lane::join`] end it. Everything that its process may read is in
//! [`Shared`]: settings, figures, signs of life.
//!
//! In reading order: `settings`, `shared`, `stats`, `listener_stats`, `pulses` and `health` are what the process sees.
//! `lifecycle` starts and stops the threads. `listener` fills `ring`, its `sink`; `hearing` and `reach` check that
//! subscription and commands reach one server. `election` competes for the `lease`; `precedence` decides who goes
//! first; `leading` spreads the terms of several lanes over dispatchers. The election begins a `term`, to which it
//! passes what `elected` holds and a `kill_switch`. `ingest` and `intake` store messages. `courier` delivers them,
//! with `table`, `places`, `backlog` and `strays`, to the consumers on the `roster`, which `discovery` changes by the
//! rules of `following`, as `group_settings` and its gate allow, and in the order that `order_key` asks for;
//! `delivery_state` is what is shown of that. `dialers`, each with `dialer`, `handshake`, `credentials` and
//! `greeting`, make each `link`, and `sockets` waits for them. `tasks` lead to `redistributor`, with `refused`,
//! `dead_letters` and `deaths`. `retry` repeats failed Redis commands; `tests` makes lanes for unit tests. `shadow` is
//! another composition of a listener: it observes a group and takes part in nothing.

mod backlog;
mod bundling;
mod courier;
mod credentials;
mod dead_letters;
mod deaths;
mod delivery_state;
mod dialer;
mod dialers;
mod discovery;
mod elected;
mod election;
mod following;
mod greeting;
mod group_settings;
mod handshake;
pub mod health;
mod hearing;
mod ingest;
mod intake;
mod kill_switch;
mod leading;
mod lease;
mod lifecycle;
mod link;
mod link_hint;
mod listener;
mod listener_stats;
pub mod order_key;
mod places;
pub mod precedence;
mod pulses;
mod questions;
mod reach;
mod redistributor;
mod refused;
mod replays;
mod retry;
pub mod ring;
pub mod roster;
mod settings;
pub mod shadow;
mod shared;
mod sink;
mod sockets;
mod stats;
mod strays;
mod table;
mod tasks;
mod term;
#[cfg(test)]
pub(crate) mod tests;
mod threads;

pub use self::deaths::DEATHS_WINDOW;
pub use self::delivery_state::{DeliveryState, Limit};
pub use self::following::Following;
pub use self::leading::Leading;
pub use self::lifecycle::Lane;
pub use self::settings::Settings;
pub use self::shared::{ProcessHandles, Shared};
pub use self::stats::{LaneStats, LinkFigures};
