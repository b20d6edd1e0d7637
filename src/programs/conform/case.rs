//! What a case is: the section that it tests, what it needs of the consumer, and its steps. Pure.

use std::collections::BTreeMap;
use std::fmt;

/// All cases.
#[derive(Clone, Debug)]
pub struct Cases {
    /// The cases, in the order in which they run.
    pub cases: Vec<Case>,
    /// Sections of docs/PROTOCOL.md that have no case, with the reason.
    pub uncovered: BTreeMap<String, String>,
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The section of docs/PROTOCOL.md that it tests.
    pub section: String,
    /// What the consumer must do.
    pub rule: String,
    /// What it needs of the consumer.
    pub needs: Vec<Need>,
    /// Whether results are confirmed as soon as they arrive, with subprotocol `oncecast.2`.
    pub(super) confirm: bool,
    /// The bodies of its messages; others are ordinary.
    pub(super) bodies: BTreeMap<Local, BodySpec>,
    /// What is done.
    pub(super) steps: Vec<Step>,
}

/// A message of a case, by its number there.
pub(super) type Local = u32;
/// The name of a connection in a case.
pub(super) type LinkName = String;

/// What a case needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The conformance handler.
    Handler,
    /// A consumer that records its results in Redis itself.
    Records,
    /// A consumer that sends its results to the dispatcher.
    Sends,
    /// READY with flag bit 1.
    Channels,
    /// Subprotocol `oncecast.2`.
    Protocol2,
    /// The process id of the consumer.
    Pid,
    /// The consumer's link secret.
    Secret,
    /// A file with two secrets.
    TwoSecrets,
    /// A consumer without a link secret.
    NoSecret,
    /// At least this prefetch.
    Prefetch(u32),
    /// At most this prefetch.
    SmallPrefetch(u32),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Handler => f.write_str("--conformance-handler"),
            Need::Records => f.write_str("a consumer that records its results in Redis itself (READY's flag bit 0)"),
            Need::Sends => {
                f.write_str("a consumer that sends its results to the dispatcher (READY's flag bit 0 clear)")
            }
            Need::Channels => f.write_str("a consumer that understands DELIVER (READY's flag bit 1)"),
            Need::Protocol2 => f.write_str("a consumer that selects the subprotocol oncecast.2"),
            Need::Pid => f.write_str("--pid"),
            Need::Secret => f.write_str("--link-secret-file"),
            Need::TwoSecrets => f.write_str("--link-secret-file with two secrets"),
            Need::NoSecret => f.write_str("a consumer without a link secret"),
            Need::Prefetch(least) => write!(f, "a prefetch of at least {least}"),
            Need::SmallPrefetch(most) => write!(f, "a prefetch of at most {most}"),
        }
    }
}

/// A message's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BodySpec {
    /// What the conformance handler does with it: `None` for an ordinary message.
    pub(super) conform: Option<String>,
    /// How long the handler takes.
    pub(super) ms: Option<u64>,
    /// After which delay the handler wants the message again.
    pub(super) delay_ms: Option<u32>,
    /// The length of the reason that the handler gives, in characters of two bytes.
    pub(super) reason_chars: Option<usize>,
    /// The length of the body.
    pub(super) bytes: Option<usize>,
}

/// The channel of a DELIVER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Text(String),
    /// So many bytes that are not UTF-8.
    Bytes(usize),
}

/// How frames become WebSocket messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Packing {
    /// All in one message.
    #[default]
    Together,
    /// Each in its own message.
    Apart,
    /// All in one message of so many fragments, with pings between them.
    Fragments(usize),
    /// Cut in the middle, into two messages.
    Split,
}

/// How many messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    These(Vec<Local>),
    /// As many as the prefetch and so many more, numbered from 1.
    Prefetch(u32),
}

/// How messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deliver {
    pub(super) link: LinkName,
    pub(super) amount: Amount,
    /// The number of the delivery.
    pub(super) delivery: u16,
    /// With a channel, as DELIVER.
    pub(super) channel: Option<Channel>,
    pub(super) packing: Packing,
    /// Whether the messages are made pending in the Redis of a consumer that has one.
    pub(super) pend: bool,
    /// The consumer may have closed the connection already.
    pub(super) may_fail: bool,
}

/// What no dispatcher sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// A binary message.
    Binary(Vec<u8>),
    /// A binary message of so many zeros, as far as the consumer reads it.
    Zeros(usize),
    /// A text message.
    Text(String),
    /// Bytes below the WebSocket.
    Raw(Vec<u8>),
}

/// The nonce of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum NonceRule {
    /// One if there is a link secret.
    #[default]
    Usual,
    /// One in any case.
    Given,
    Absent,
    Malformed,
    /// That of another connection.
    Of(LinkName),
}

/// The PROOF before LEAD, if there is a link secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ProofRule {
    #[default]
    Right,
    Absent,
    /// One bit is wrong.
    Forged,
    /// The consumer's own proof.
    Reflected,
    OtherGroup,
    OtherEpoch,
    Twice,
    /// Made with this secret of the file, from 0.
    Line(usize),
    /// That of another connection.
    Of(LinkName),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Connects. The handshake must succeed, or be refused with one of these statuses.
    Connect { link: LinkName, origin: Option<String>, offer: Option<Vec<String>>, nonce: NonceRule, refused: Vec<u16> },
    /// Sends LEAD, with the case's epoch plus this number. A consumer with Redis finds the epoch there if `elect`. With
    /// subprotocol `oncecast.2`, HELLO follows.
    Lead { link: LinkName, epoch: u64, group: Option<String>, elect: bool, hello: Option<String>, proof: ProofRule },
    /// The answer to the handshake must have had just the right proofs.
    Proofs { link: LinkName },
    /// Sends all that was sent on another connection.
    Replay { link: LinkName, of: LinkName },
    /// READY and HELD must come. HELD lists just `held`, and perhaps some of `may_hold`.
    Greeted { link: LinkName, held: Vec<Local>, may_hold: Vec<Local> },
    /// READY must have had the form that the protocol asks for.
    ReadyForm { link: LinkName },
    /// Sends messages.
    Deliver(Deliver),
    /// Sends what no dispatcher sends.
    Send { link: LinkName, payload: Payload },
    /// Sends a ping, which must be answered.
    Ping { link: LinkName },
    /// Messages must be answered on this connection.
    Answer { link: LinkName, amount: Amount, wanted: Wanted },
    /// Either ERROR 8 and the end of the connection, or an answer for each message.
    AnswerOrError { link: LinkName, amount: Amount, code: u16 },
    /// No answer for these messages may come, on any connection, for so long.
    NoAnswer { ids: Vec<Local>, ms: u64 },
    /// PROGRESS must name these messages, so often.
    Progress { link: LinkName, ids: Vec<Local>, times: u32 },
    /// No frame but PROGRESS may come for so long.
    Silence { link: LinkName, ms: u64 },
    /// ERROR with one of these codes must come, and then the end of the connection. If `bare`, the end alone will do.
    Error { link: LinkName, codes: Vec<u16>, bare: bool, text: TextRule },
    /// The connection must end.
    End { link: LinkName },
    /// DRAIN must come.
    Drain { link: LinkName },
    /// Sends RECORDED for these messages, which the consumer must ignore if it `is_ignored`.
    Confirm { link: LinkName, ids: Vec<Local>, is_ignored: bool },
    /// Ends the connection without a close frame.
    Drop { link: LinkName },
    /// Reads no more on this connection.
    Freeze { link: LinkName },
    /// Waits, reading.
    Wait { ms: u64 },
    /// Writes the epoch into Redis, or removes it.
    Elect { epoch: Option<u64> },
    /// Redis must have recorded this message's result once, and the message must not be pending.
    Recorded { id: Local },
    /// Redis must not have recorded a result of this message.
    NotRecorded { id: Local },
    /// Stops the consumer's process.
    Terminate,
}

/// What an answer must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Any answer.
    #[default]
    Any,
    /// The result that the body asks for.
    Result,
    /// Done, with nothing to record.
    Nothing,
    /// A NACK with one of these delays and a reason.
    Nack { delays: Vec<u32> },
}

/// What the text of an ERROR must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TextRule {
    #[default]
    Free,
    /// It begins with `seen`, the case's epoch plus this number, and a colon.
    Seen(u64),
    /// It does not begin with `seen`.
    NotSeen,
}
