//! What names interests in markers: the one channel, or a fingerprint. Dispatchers of all versions must agree on it.
//! Pure.

use super::glob::Glob;

/// Distinguishes interests by their identity, in a few bytes.
pub fn identity_hash(identity: &str) -> u64 {
    identity.bytes().fold(FNV_BASIS, fnv_1a) as u64
}

/// The identity of sharded channels.
pub(super) fn identity_of_sharded(channels: &[Vec<u8>]) -> String {
    let mut all: Vec<(u8, &[u8])> = channels.iter().map(|name| (b'h', name.as_slice())).collect();
    all.sort_unstable();
    named_by_hash(all)
}

/// The identity of channels and patterns.
pub(super) fn identity(channels: &[Vec<u8>], patterns: &[Glob]) -> String {
    if let ([channel], []) = (channels, patterns)
        && let Ok(channel) = std::str::from_utf8(channel)
    {
        return channel.to_owned();
    }
    named_by_hash(sorted(channels, patterns))
}

/// Each interest with its kind.
pub(super) fn sorted<'a>(channels: &'a [Vec<u8>], patterns: &'a [Glob]) -> Vec<(u8, &'a [u8])> {
    let mut all: Vec<(u8, &[u8])> = channels.iter().map(|name| (b'c', name.as_slice())).collect();
    all.extend(patterns.iter().map(|glob| (b'p', glob.text())));
    all.sort_unstable();
    all
}

/// The fingerprint of interests in this order.
pub(super) fn named_by_hash(all: Vec<(u8, &[u8])>) -> String {
    let fold = |hash, (kind, text): (u8, &[u8])| {
        let length = (text.len() as u64).to_be_bytes();
        [kind].iter().chain(&length).chain(text).fold(hash, |hash, byte| fnv_1a(hash, *byte))
    };
    format!("interests:{:032x}", all.into_iter().fold(FNV_BASIS, fold))
}

/// The start of FNV-1a with 128 bits (Fowler, Noll, Vo). It only has to tell the settings of one group apart.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

fn fnv_1a(hash: u128, byte: u8) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    (hash ^ u128::from(byte)).wrapping_mul(PRIME)
}
