//! Finds out whether a server lets each program work: `oncecast doctor`.
//!
//! Runs on the caller's thread, in four parts. `rights` tries each command that a program needs, in a form that
//! changes nothing, and each of the group's keys and channels. `steps` then carries out the program's own steps on keys
//! of a trial, which it removes. `server` looks at the settings of the server, and `places` at the Sentinels or nodes
//! of the URL (`nodes`) and at what may take the server's place. `needs` says what each program needs.
//!
//! What it guarantees: of a group it changes nothing. The trial's keys begin with `<group>:put-back:doctor-`, for
//! which every program's user has the right, and whose keyspace events the group ignores as its own. Its channels begin
//! with the prefix of the alive channels, where no program takes it for a dispatcher. Nothing is published on a channel
//! that the group listens to.
//!
//! Limitations: whether a user may publish on a channel can't be tried without publishing. It is inferred from the
//! right to subscribe to the channel, and not known if the user may not subscribe. A process that is killed within
//! the few milliseconds of a trial leaves keys behind, until they expire: whatever is written has an expiry from the
//! beginning (`Seal`). Other groups hear of the trial if they listen to all
//! channels (`*`) or to keyspace events of all keys, as they hear of everything that this group does.

mod channels;
mod diagnose;
mod finding;
mod forms;
mod needs;
mod nodes;
mod patient;
mod place;
mod places;
mod reply;
mod rights;
mod server;
mod steps;
mod trial;

pub use self::diagnose::{Diagnosis, Examined, diagnose};
pub use self::finding::{Effect, Finding, Remedy};
pub use self::needs::Program;
pub use self::patient::Patient;
pub use self::place::{Place, Places};
