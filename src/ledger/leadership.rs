//! Leadership in Redis: acquires, renews and releases the lease, lists subscribed dispatchers, publishes leaders'
//! markers.

use std::time::Duration;

use redis::Value;

use super::alive;
use super::core::Ledger;
use super::cursor::Marker;
use super::destination::Destination;
use super::group_settings::SettingsReading;
use super::interests::Interests;
use super::lease::Lease;
use super::notice::Notice;
use super::replicas::{Confirmed, Replicas};
use super::scripts::{AcquireCall, MarkerCall, ReleaseCall, RenewCall};
use super::types::{Acquire, Attempt, ServerChange};
use super::value::{score, text};
use crate::base::error::Result;
use crate::base::id::{DispatcherId, Epoch};

impl Ledger {
    /// Tries to acquire the lease. With `may_take` false it only checks.
    ///
    /// `floor` is the highest epoch that the caller knows. The new epoch is higher, even if Redis lost the key.
    pub fn acquire(&mut self, id: &DispatcherId, ttl: Duration, floor: Epoch, may_take: bool) -> Result<Attempt> {
        const DOING: &str = "trying for the lease";
        let alive_prefix = &self.keys.alive_prefix;
        let delivers = self.destination == Destination::Pending;
        let call = AcquireCall { dispatcher: id, ttl_ms: ttl, alive_prefix, floor, may_take, delivers }.on(&self.keys);
        let reply = self.call(DOING, call)?;
        match self.attempt_of(&reply)? {
            Some(attempt) => Ok(attempt),
            None => self.unexpected_reply(DOING, &reply),
        }
    }

    fn attempt_of(&self, reply: &Value) -> Result<Option<Attempt>> {
        let Value::Array(parts) = reply else { return Ok(None) };
        let [verdict, Value::Int(counted), Value::Int(now_ms), cursor, lease, Value::Array(foreign), rest @ ..] =
            parts.as_slice()
        else {
            return Ok(None);
        };
        let cursor = self.cursor_of(cursor)?;
        let redis_ms = (*now_ms).try_into().unwrap_or(0);
        let lease = text(lease).and_then(Lease::parse);
        let answer = match (text(verdict), lease, rest) {
            (Some("acquired"), Some(lease), [newest, before, Value::Array(settings), server_before, server]) => {
                let before = text(before).and_then(|epoch| epoch.parse().ok()).map(Epoch);
                let newest = text(newest).and_then(score);
                // Without fields they don't concern this dispatcher.
                let settings = SettingsReading::of(redis_ms, settings).unwrap_or_default();
                let servers = ServerChange::between(text(server_before), text(server));
                Acquire::Acquired { lease, cursor, newest, before, settings, servers }
            }
            (Some("vacant"), ..) => Acquire::Vacant { cursor },
            (Some("held"), Some(lease), _) => Acquire::Held { lease, cursor },
            _ => return Ok(None),
        };
        let shown = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        let foreign = foreign.chunks_exact(2).map(|pair| (shown(&pair[0]), shown(&pair[1]))).collect();
        Ok(Some(Attempt { answer, counted: *counted == 1, redis_ms, foreign }))
    }

    /// Renews the lease; `false` if it is no longer this dispatcher's.
    pub fn renew(&mut self, lease: &Lease, ttl: Duration) -> Result<bool> {
        self.renew_with(lease, ttl, None).map(|(kept, _)| kept)
    }

    /// Renews the lease, and returns as well whether enough replicas have what was written before, by whomever
    /// (`--wait-replicas`): replication is one stream, and in it a renewal follows all that.
    pub fn renew_and_confirm(&mut self, lease: &Lease, ttl: Duration) -> Result<(bool, bool)> {
        let (kept, confirmed) = self.renew_with(lease, ttl, self.replicas)?;
        Ok((kept, self.replicas.is_none_or(|wanted| wanted.are_enough(confirmed.as_ref()))))
    }

    /// Whether replicas must confirm what is stored.
    pub fn waits_for_replicas(&self) -> bool {
        self.replicas.is_some()
    }

    fn renew_with(
        &mut self,
        lease: &Lease,
        ttl: Duration,
        replicas: Option<Replicas>,
    ) -> Result<(bool, Option<Confirmed>)> {
        let call = RenewCall { lease, ttl_ms: ttl }.on(&self.keys);
        let (reply, confirmed) = self.call_confirmed("renewing the lease", call, replicas)?;
        Ok((reply == Value::Int(1), confirmed))
    }

    /// Releases the lease and notifies the standbys; `false` if it was no longer this dispatcher's.
    pub fn release(&mut self, lease: &Lease) -> Result<bool> {
        let notice = Notice::Released(lease.epoch);
        let call = ReleaseCall { lease, control_channel: &self.keys.control, notice }.on(&self.keys);
        let reply = self.call("releasing the lease", call)?;
        Ok(reply == Value::Int(1))
    }

    /// The ids of the other dispatchers that are subscribed now.
    pub fn other_dispatchers(&mut self, own: &DispatcherId) -> Result<Vec<String>> {
        let mut ids = self.dispatchers()?;
        ids.retain(|id| id != own.as_str());
        Ok(ids)
    }

    /// The ids of all dispatchers that are subscribed now.
    pub(super) fn dispatchers(&mut self) -> Result<Vec<String>> {
        let prefix = self.keys.alive_prefix.clone();
        self.subscribed_below("looking for the dispatchers", &prefix)
    }

    /// The ids of all shadows that are subscribed now.
    pub(super) fn shadows(&mut self) -> Result<Vec<String>> {
        let prefix = self.keys.shadow_prefix.clone();
        self.subscribed_below("looking for the shadows", &prefix)
    }

    /// The ids that follow `prefix` in names of channels that have subscribers.
    fn subscribed_below(&mut self, doing: &'static str, prefix: &str) -> Result<Vec<String>> {
        let reply = self.connection.query(doing, alive::asking(prefix))?;
        match alive::ids(prefix, &reply) {
            Some(ids) => Ok(ids),
            None => self.unexpected_reply(doing, &reply),
        }
    }

    /// Publishes a leader's marker among the messages that a dispatcher with these interests counts, on the control
    /// channel.
    pub fn publish_marker(&mut self, epoch: Epoch, marker: &Marker, interests: &Interests) -> Result<()> {
        let notice = Notice::Marker(marker.clone(), self.connection.server().marked(interests.identity()));
        let publish = interests.publish_command();
        let call = MarkerCall { my_epoch: epoch, control_channel: &self.keys.control, notice, publish }.on(&self.keys);
        self.call_for_ok(epoch, "publishing a marker", call)
    }
}
