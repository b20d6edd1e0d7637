//! What was found of the servers beside the one that is used now. Plain values.

use std::time::Duration;

/// How long each may take to answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// One of these servers.
#[derive(Clone, Debug)]
pub struct Place {
    /// `sentinel`, `node` or `replica`.
    pub kind: &'static str,
    /// Where it is.
    pub address: String,
    /// What it says, or what is wrong with it.
    pub says: Result<String, String>,
}

/// All of them; none if the URL names the server itself.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Each.
    pub each: Vec<Place>,
    /// What will stop the programs, now or at a failover.
    pub problems: Vec<String>,
    /// What stops no program, and should be corrected.
    pub warnings: Vec<String>,
    /// What was not looked at, and what is worth knowing.
    pub notes: Vec<String>,
}
