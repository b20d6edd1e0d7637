//! Whether enough replicas have what intake has stored (`--wait-replicas`): what is done about the replies to `WAIT`.
//!
//! Before a connection stores anything, it is tried whether `WAIT` is answered at all: the user may lack the right, and
//! a proxy may not know the command. Otherwise each leader in turn would store messages that it may not count, and the
//! next one would deliver them as what was stored before its term.

use super::command::Command;
use super::core::{Ledger, name_the_right};
use super::replicas::{Confirmed, Replicas};
use crate::base::error::{Error, Result};
use crate::base::failure::Failure;

const CONFIRMING: &str = "waiting for replicas (--wait-replicas)";

impl Ledger {
    /// Ends in an error if `WAIT` is refused. Asked once on each connection; waits for no replica.
    pub(super) fn require_waiting(&mut self) -> Result<()> {
        let tried = self.attempts.waits_on;
        if self.replicas.is_none() || tried.is_some() && tried == self.connection.number() {
            return Ok(());
        }
        let reply = self.connection.query(CONFIRMING, Command::of(&["WAIT", "0", "1"]));
        match Confirmed::of(reply.map_err(|error| name_the_right(error, "WAIT"))?) {
            Confirmed::By(_) => self.attempts.waits_on = self.connection.number(),
            Confirmed::Refused(failure) => return Err(self.refused_to_wait(failure)),
        }
        Ok(())
    }

    /// Ends in an error unless enough replicas have confirmed the last attempt.
    pub(super) fn require_replicas(&mut self) -> Result<()> {
        let Some(Replicas(wanted)) = self.replicas else { return Ok(()) };
        match self.attempts.confirmed.take() {
            Some(Confirmed::By(replicas)) if replicas >= wanted => Ok(()),
            Some(Confirmed::Refused(failure)) => Err(self.refused_to_wait(failure)),
            confirmed => {
                let confirmed = if let Some(Confirmed::By(replicas)) = confirmed { replicas } else { 0 };
                Err(Error::Unreplicated { server: self.connection.server().shown(), confirmed, wanted })
            }
        }
    }

    fn refused_to_wait(&mut self, failure: Failure) -> Error {
        self.attempts.waits_on = None;
        name_the_right(self.connection.refusal(CONFIRMING, failure), "WAIT")
    }
}
