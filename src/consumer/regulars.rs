//! The addresses of the dispatchers that ruled most recently, so that the server can reserve places for them. Shared:
//! the connections' reading threads add addresses, and the accepting thread looks them up.

use std::net::IpAddr;

use parking_lot::Mutex;

/// The most addresses that are remembered.
const MAX_REGULARS: usize = 16;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Regulars(Mutex<Vec<IpAddr>>);

impl Regulars {
    pub(super) fn add(&self, address: IpAddr) {
        let mut addresses = self.0.lock();
        addresses.retain(|known| *known != address);
        addresses.push(address);
        if addresses.len() > MAX_REGULARS {
            addresses.remove(0);
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.0.lock().contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_addresses_that_ruled_are_remembered() {
        let regulars = Regulars::default();
        let address = |last: usize| IpAddr::from([10, 0, 0, last as u8]);
        (0..MAX_REGULARS).for_each(|last| regulars.add(address(last)));
        regulars.add(address(0));
        regulars.add(address(100));
        assert!(regulars.has(address(0)) && regulars.has(address(100)) && !regulars.has(address(1)));
        assert_eq!(regulars.0.lock().len(), MAX_REGULARS);
    }
}
