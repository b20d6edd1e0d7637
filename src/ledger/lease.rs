//! The lease as its key holds it. Pure.

use std::fmt;

use crate::base::id::Epoch;

/// The value of the key `<group>:leader`: `<dispatcher id> <epoch>`, or `<dispatcher id> <epoch> ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The dispatcher's id: its name and a suffix made at its start, `d0-5f3a9c`.
    pub holder: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it ends only by expiring, because the holder's subscription is not counted on the server with the lease.
    pub by_time: bool,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.holder, self.epoch, if self.by_time { " ttl" } else { "" })
    }
}

impl Lease {
    pub(super) fn parse(text: &str) -> Option<Lease> {
        let mut words = text.split(' ');
        let (holder, epoch, mode) = (words.next()?, words.next()?, words.next());
        let epoch = Epoch(epoch.parse().ok()?);
        let known = words.next().is_none() && matches!(mode, None | Some("ttl"));
        known.then(|| Lease { holder: holder.to_owned(), epoch, by_time: mode.is_some() })
    }

    /// The name part of the holder's id: the setting `dispatcher-id`.
    pub fn name(&self) -> &str {
        self.holder.rsplit_once('-').map_or(&self.holder, |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_holder_with_a_name() {
        let lease = Lease::parse("d-0-5f3a9c 1700000000000").unwrap();
        assert_eq!((lease.name(), lease.epoch), ("d-0", Epoch(1_700_000_000_000)));
        let by_time = Lease::parse("d0-5f3a9c 17 ttl").unwrap();
        assert!(by_time.by_time && by_time.to_string() == "d0-5f3a9c 17 ttl");
        assert_eq!(Lease::parse("d0-5f3a9c 17 forever"), None);
        assert_eq!(Lease::parse("d0-5f3a9c"), None);
        assert_eq!(Lease::parse("d0-5f3a9c x"), None);
    }
}
