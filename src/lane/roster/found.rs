//! What one source has found: the addresses that count, after answers that may be wrong or missing. Pure.
//!
//! An answer of DNS without an address removes it only if answers have lacked it for the hold time. No answer, and one
//! without any address, change nothing. A name's IPv4 and IPv6 addresses usually lead to the same consumers, so only
//! one kind counts: the kind in use as long as an answer has it or one of its addresses counts, else IPv4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::source::{ConsumerSource, Target, host_of};

/// What a source said.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The addresses of a name.
    Addresses(Vec<SocketAddr>),
    /// The lines of a file.
    Lines(Vec<Target>),
    /// Nothing that can be used, and why.
    Failed(String),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Found {
    /// The name in the certificates of what DNS finds, if that has TLS.
    tls_name: Option<String>,
    /// The addresses of a name, and since when answers have lacked each.
    addresses: BTreeMap<SocketAddr, Option<Instant>>,
    /// The lines of a file, or the only address of a fixed entry.
    lines: Vec<Target>,
}

impl Found {
    pub(super) fn new(source: &ConsumerSource) -> Found {
        let (tls_name, lines) = match source {
            ConsumerSource::Fixed(target) => (None, vec![target.clone()]),
            ConsumerSource::Dns { host_port, is_secure } => {
                (is_secure.then(|| host_of(host_port).to_owned()), Vec::new())
            }
            ConsumerSource::File(_) => (None, Vec::new()),
        };
        Found { tls_name, addresses: BTreeMap::new(), lines }
    }

    /// The addresses that count.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> {
        let found = self.addresses.keys().map(|address| Target::found(*address, self.tls_name.as_deref()));
        self.lines.iter().cloned().chain(found)
    }

    /// Takes an answer into account.
    pub(super) fn take(&mut self, answer: Answer, hold: Duration, now: Instant) {
        match answer {
            Answer::Addresses(addresses) => self.take_addresses(addresses, hold, now),
            Answer::Lines(lines) => self.lines = lines,
            Answer::Failed(_) => {}
        }
    }

    fn take_addresses(&mut self, mut answer: Vec<SocketAddr>, hold: Duration, now: Instant) {
        if answer.is_empty() {
            return;
        }
        let in_use = self.addresses.keys().next().map(SocketAddr::is_ipv4);
        let wanted = in_use.unwrap_or_else(|| answer.iter().any(SocketAddr::is_ipv4));
        answer.retain(|address| address.is_ipv4() == wanted);
        self.addresses.retain(|address, missing_since| {
            if answer.contains(address) {
                *missing_since = None;
                return true;
            }
            let since = *missing_since.get_or_insert(now);
            now.saturating_duration_since(since) < hold
        });
        for address in answer {
            self.addresses.entry(address).or_insert(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    fn addresses(texts: &[&str]) -> Answer {
        Answer::Addresses(texts.iter().map(|text| format!("{text}:1").parse().expect("an address")).collect())
    }

    fn hosts(found: &Found) -> Vec<String> {
        found.targets().map(|target| host_of(target.host_port()).to_owned()).collect()
    }

    /// What counts after answers at these seconds.
    fn after(answers: &[(u64, &[&str])]) -> Vec<String> {
        let mut found = Found::new(&ConsumerSource::of("dns:c:1"));
        let began = Instant::now();
        for (second, answer) in answers {
            found.take(addresses(answer), HOLD, began + Duration::from_secs(*second));
        }
        hosts(&found)
    }

    #[test]
    fn an_address_is_removed_after_the_hold_time() {
        const A: &str = "10.0.0.1";
        const B: &str = "10.0.0.2";
        assert_eq!(after(&[(0, &[A, B]), (5, &[B]), (34, &[B])]), [A, B]);
        assert_eq!(after(&[(0, &[A, B]), (5, &[B]), (35, &[B])]), [B]);
        assert_eq!(after(&[(0, &[A, B]), (5, &[B]), (20, &[A]), (40, &[B]), (60, &[B])]), [A, B], "it came back");
        assert_eq!(after(&[(0, &[A]), (900, &[B])]), [A, B], "one answer is not enough, however late it comes");
        assert_eq!(after(&[(0, &[A]), (5, &[]), (900, &[])]), [A], "an empty answer says nothing");
    }

    #[test]
    fn one_kind_of_address_counts() {
        const V4: &str = "10.0.0.1";
        const V6: &str = "[fd00::1]";
        assert_eq!(after(&[(0, &[V6, V4])]), [V4]);
        assert_eq!(after(&[(0, &[V6]), (5, &[V6, V4])]), ["fd00::1"], "as long as the kind in use is answered");
        assert_eq!(after(&[(0, &[V4]), (5, &[V6]), (10, &[V4, V6])]), [V4]);
        assert_eq!(after(&[(0, &[V4]), (5, &[V6]), (40, &[V6]), (45, &[V6])]), ["fd00::1"]);
    }

    #[test]
    fn a_failure_changes_nothing() {
        let mut found = Found::new(&ConsumerSource::of("file:c"));
        found.take(Answer::Lines(vec![Target::of("a:1")]), HOLD, Instant::now());
        found.take(Answer::Failed("gone".to_owned()), HOLD, Instant::now());
        assert_eq!(hosts(&found), ["a"]);
        found.take(Answer::Lines(vec![Target::of("b:1")]), HOLD, Instant::now());
        assert_eq!(hosts(&found), ["b"], "a file's list counts at once");
    }
}
