//! The codes of ERROR frames, and the one text of an ERROR that programs parse.

use std::fmt;

use crate::base::id::Epoch;

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal,)+) => {
        /// Why an ERROR frame was sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$doc])+ $name,)+
            /// A code that this version does not know.
            Other(u16),
        }

        impl ErrorCode {
            /// The code on the wire.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)+ Self::Other(code) => code }
            }
        }

        impl From<u16> for ErrorCode {
            fn from(code: u16) -> Self {
                match code { $($code => Self::$name,)+ other => Self::Other(other) }
            }
        }
    };
}

error_codes! {
    /// The version byte is not one that the receiver speaks.
    Version = 1,
    /// The command byte is unknown.
    Command = 2,
    /// A length over its limit.
    TooLarge = 3,
    /// A payload that is too short, too long or not of its form.
    Malformed = 4,
    /// A valid frame at the wrong time or in the wrong direction.
    Unexpected = 5,
    /// The sender's epoch is older than one that the receiver has seen, or not the one in the receiver's Redis.
    Stale = 6,
    /// LEAD named another group.
    Group = 7,
    /// More messages held than the prefetch allows.
    OverPrefetch = 8,
    /// The receiver could not ask Redis whether the sender's epoch is genuine.
    Unavailable = 9,
    /// The connection was replaced by a newer one of the same epoch.
    Replaced = 10,
    /// The sender did not prove that it knows the link secret.
    NotAuthenticated = 11,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.code())
    }
}

/// The beginning of the text of an ERROR 6 that reports to a leader which epoch was seen.
const SEEN: &str = "seen ";

/// The text of an ERROR 6 for a leader whose epoch Redis confirms, although it is lower than one seen before.
pub fn seen_text(seen: Epoch, why: &str) -> String {
    format!("{SEEN}{seen}: {why}")
}

/// The epoch that such a [text](seen_text) names.
pub fn seen_epoch(text: &str) -> Option<Epoch> {
    let (number, _) = text.strip_prefix(SEEN)?.split_once(": ")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(Epoch))?
}
