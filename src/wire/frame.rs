//! The frames as values: one variant for each command.

use std::time::Duration;

use super::error_code::ErrorCode;
use super::proof::Proof;
use crate::base::bundle::BundlePosition;
use crate::base::id::{Epoch, MessageId};

/// One frame. Borrowed parts point into the message it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// D→C: process this message. `id u64, delivery u16, body`.
    Process {
        /// The message.
        id: MessageId,
        /// 1 for the first delivery, 2 for the first redelivery, …
        delivery: u16,
        /// The payload as it was published.
        body: &'a [u8],
    },
    /// D→C: PROCESS with the channel that the message was published on, only to consumers with
    /// [`ReadyFlags::CHANNELS`]. `id u64, delivery u16, channel length u16, channel, body`.
    Deliver {
        /// The message.
        id: MessageId,
        /// 1 for the first delivery, 2 for the first redelivery, …
        delivery: u16,
        /// The length of the channel's name, at least 1.
        channel_bytes: u16,
        /// The channel's name and behind it the payload, as they lie on the wire.
        joined: &'a [u8],
    },
    /// D→C: PROCESS or DELIVER of a message that Redis keeps in a bundle, only to consumers with
    /// [`ReadyFlags::BUNDLES`]. `id u64, delivery u16, position u8, channel length u16, channel, body`.
    Part {
        /// The message.
        id: MessageId,
        /// 1 for the first delivery, 2 for the first redelivery, …
        delivery: u16,
        /// Which of the messages of its bundle it is.
        position: BundlePosition,
        /// The length of the channel's name, 0 if that is not recorded.
        channel_bytes: u16,
        /// The channel's name and behind it the payload, as they lie on the wire.
        joined: &'a [u8],
    },
    /// C→D: these are done; their places are free. `id u64…`
    Ack(Vec<MessageId>),
    /// C→D: this one failed. `id u64, delay ms u32, reason`.
    Nack {
        /// The message.
        id: MessageId,
        /// When to deliver it again.
        delay: NackDelay,
        /// Why, for people.
        reason: &'a str,
    },
    /// D→C: I lead this group in this epoch; first on every connection. `epoch u64, group`.
    Lead {
        /// The epoch of the leader.
        epoch: Epoch,
        /// The group it leads.
        group: &'a str,
    },
    /// C→D: answers LEAD. `prefetch u32, flags u8, consumer id`.
    Ready {
        /// The most messages that the consumer may hold.
        prefetch: u32,
        /// What the consumer can do.
        flags: ReadyFlags,
        /// The consumer's name.
        consumer: &'a str,
    },
    /// C→D: what the consumer holds, after READY. `id u64…`, may be empty.
    Held(Vec<MessageId>),
    /// C→D: still working on these. `id u64…`
    Progress(Vec<MessageId>),
    /// C→D: the result of a message, from a consumer that has no Redis.
    /// `id u64, field count u16, then for each field: name length u16, name, value length u32, value`.
    Result {
        /// The message.
        id: MessageId,
        /// The fields to record, in order.
        fields: Vec<Field<'a>>,
    },
    /// C→D: send no more.
    Drain,
    /// Both ways: what the receiver did wrong; the sender then closes. `code u16, text`.
    Error {
        /// What kind of mistake.
        code: ErrorCode,
        /// The details, for people.
        text: &'a str,
    },
    /// C→D, only with [`SUBPROTOCOL_2`](super::SUBPROTOCOL_2): one result or more. The payloads of RESULT one after the
    /// other, at most [`MAX_IDS`](super::MAX_IDS).
    Results(Vec<MessageResult<'a>>),
    /// D→C, only with [`SUBPROTOCOL_2`](super::SUBPROTOCOL_2), right behind LEAD: what a consumer should know. The text
    /// of a JSON object.
    Hello(&'a str),
    /// D→C, only with [`SUBPROTOCOL_2`](super::SUBPROTOCOL_2): the consumer need keep no result for these. `id u64…`
    Recorded(Vec<MessageId>),
    /// C→D, only with [`SUBPROTOCOL_2`](super::SUBPROTOCOL_2): a new prefetch. `prefetch u32`.
    Credit {
        /// The most messages that the consumer may hold from now on; 0 pauses.
        prefetch: u32,
    },
    /// D→C, only to a consumer that has proved a link secret, before LEAD: the dispatcher's own proof. 32 bytes.
    Proof(Proof),
}

/// One result of a RESULTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageResult<'a> {
    /// The message.
    pub id: MessageId,
    /// The fields to record, in order.
    pub fields: Vec<Field<'a>>,
}

/// A field of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// The flags of READY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyFlags(pub u8);

impl ReadyFlags {
    /// The consumer records its results in Redis itself before it ACKs.
    pub const COMMITS: ReadyFlags = ReadyFlags(1);

    /// The consumer understands DELIVER.
    pub const CHANNELS: ReadyFlags = ReadyFlags(2);

    /// The consumer understands PART: of a bundle it removes all messages or none.
    pub const BUNDLES: ReadyFlags = ReadyFlags(4);

    /// All that there are.
    pub const ALL: ReadyFlags = Self::COMMITS.and(Self::CHANNELS).and(Self::BUNDLES);

    /// With another flag as well.
    pub const fn and(self, other: ReadyFlags) -> ReadyFlags {
        ReadyFlags(self.0 | other.0)
    }

    /// Whether the consumer understands DELIVER.
    pub fn takes_channels(self) -> bool {
        self.0 & Self::CHANNELS.0 != 0
    }

    /// Whether the consumer understands PART.
    pub fn takes_bundles(self) -> bool {
        self.0 & Self::BUNDLES.0 != 0
    }

    /// Whether the consumer records its results itself.
    pub fn commits(self) -> bool {
        self.0 & Self::COMMITS.0 != 0
    }
}

/// When a message that failed is delivered again. On the wire a u32 in milliseconds; two values have special meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NackDelay {
    /// The dispatcher decides, by its backoff: 0.
    ByBackoff,
    /// After this many milliseconds, at least 1 and less than `u32::MAX`. Other values are sent as the nearest of
    /// these.
    AfterMs(u32),
    /// Never: the message goes to the dead letters. `u32::MAX`.
    Never,
}

impl NackDelay {
    const BY_BACKOFF: u32 = 0;
    const NEVER: u32 = u32::MAX;

    /// After this time, as precisely as the wire format allows.
    pub fn after(delay: Duration) -> NackDelay {
        let ms = u32::try_from(delay.as_millis()).unwrap_or(Self::NEVER);
        NackDelay::AfterMs(ms.clamp(Self::BY_BACKOFF + 1, Self::NEVER - 1))
    }

    /// The number on the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            NackDelay::ByBackoff => Self::BY_BACKOFF,
            NackDelay::AfterMs(ms) => ms.clamp(Self::BY_BACKOFF + 1, Self::NEVER - 1),
            NackDelay::Never => Self::NEVER,
        }
    }

    /// What a number on the wire means.
    pub fn of_wire(number: u32) -> NackDelay {
        match number {
            Self::BY_BACKOFF => NackDelay::ByBackoff,
            Self::NEVER => NackDelay::Never,
            ms => NackDelay::AfterMs(ms),
        }
    }
}
