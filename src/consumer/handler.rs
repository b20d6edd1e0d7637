//! What a user of the consumer writes: a [`Handler`], and the types that it uses.
//!
//! Handlers are called by the threads of the pool, several at the same time. Nothing here does IO.

use std::fmt;
use std::time::Duration;

use crate::base::id::MessageId;
use crate::ledger::{LaneNumber, Words};
use crate::wire::NackDelay;

/// Works on messages. Every closure `Fn(&Delivery) -> Result<Outcome, HandlerError>` that may be shared between threads
/// is one.
///
/// A message may be delivered more than once: after a failure, or when its consumer seemed dead and was not. Only one
/// outcome is recorded. Make other side effects idempotent, for instance by [`Delivery::key`].
///
/// A panic fails only its own message, like [`HandlerError::retry`].
pub trait Handler: Send + Sync + 'static {
    /// Works on one message and returns what to record. Several threads call it at the same time; it may block.
    ///
    /// # Errors
    ///
    /// A [`HandlerError`] says whether the message is to be delivered again, and when. An outcome of more than 3,900
    /// fields, or of more than 12 MiB of names and values, is rejected.
    fn handle(&self, delivery: &Delivery<'_>) -> Result<Outcome, HandlerError>;

    /// Whether the handler can work on messages now. The consumer asks before it accepts the first dispatcher, and then
    /// about once a second, always from the same thread, which must not have to wait for the answer.
    ///
    /// While this returns an error, the consumer is not ready: it accepts no messages, and returns those that it has
    /// not begun. Other consumers get them at once, and none of these deliveries counts. A closure can always work.
    ///
    /// # Errors
    ///
    /// The reason, for the log and for [`ConsumerStats::ready`](crate::ConsumerStats::ready).
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<F> Handler for F
where
    F: Fn(&Delivery<'_>) -> Result<Outcome, HandlerError> + Send + Sync + 'static,
{
    fn handle(&self, delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
        self(delivery)
    }
}

/// A message as a handler receives it.
///
/// Dispatchers deliver messages. A test of a handler makes its own:
///
/// ```
/// use oncecast::{Delivery, HandlerError, Outcome};
///
/// fn shout(message: &Delivery<'_>) -> Result<Outcome, HandlerError> {
///     let text = std::str::from_utf8(message.payload())?;
///     Ok(Outcome::new().field("shouted", text.to_uppercase()))
/// }
///
/// let outcome = shout(&Delivery::new("hello"));
/// assert_eq!(outcome, Ok(Outcome::new().field("shouted", "HELLO")));
/// assert!(shout(&Delivery::new(b"\xff").with_number(3)).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    id: MessageId,
    lane: LaneNumber,
    number: u16,
    channel: Option<&'a [u8]>,
    payload: &'a [u8],
    consumer_id: &'a str,
}

impl<'a> Delivery<'a> {
    /// The first delivery of the message with id 1 and this payload, text or bytes, to the consumer `test`. For tests
    /// of handlers; the methods `with_…` change the rest.
    pub fn new(payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Delivery<'a> {
        let payload = payload.as_ref();
        Delivery { id: MessageId(1), lane: 0, number: 1, channel: None, payload, consumer_id: "test" }
    }

    /// The same with another id.
    pub fn with_id(self, id: MessageId) -> Delivery<'a> {
        Delivery { id, ..self }
    }

    /// The same in another lane.
    pub fn with_lane(self, lane: u16) -> Delivery<'a> {
        Delivery { lane, ..self }
    }

    /// The same with another number: 2 for the first redelivery.
    pub fn with_number(self, number: u16) -> Delivery<'a> {
        Delivery { number, ..self }
    }

    /// The same published on this channel.
    pub fn with_channel(self, channel: &'a (impl AsRef<[u8]> + ?Sized)) -> Delivery<'a> {
        Delivery { channel: Some(channel.as_ref()), ..self }
    }

    /// The same to another consumer.
    pub fn with_consumer_id(self, consumer_id: &'a str) -> Delivery<'a> {
        Delivery { consumer_id, ..self }
    }

    /// The message's id: unique in its [lane](Delivery::lane), the same in each delivery.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The number of the message's lane. A group has lanes besides lane 0 only if its dispatchers listen to several
    /// nodes of a cluster. Each lane has ids and a result stream of its own.
    pub fn lane(&self) -> u16 {
        self.lane
    }

    /// A name for the message that is unique in its group, the same in each delivery: the [id](Delivery::id), in other
    /// lanes than lane 0 with the lane's number and `/` before it, such as `3/0006253a8c0be1d7`.
    pub fn key(&self) -> String {
        match self.lane {
            0 => self.id.to_string(),
            lane => format!("{lane}/{}", self.id),
        }
    }

    /// 1 for the first delivery, 2 for the first redelivery, and so on.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The channel that the message was published on: any bytes.
    ///
    /// `None` if the message was stored without it: by a group that listens to one channel by name (`--channel` once,
    /// and nothing else), or by an earlier release.
    pub fn channel(&self) -> Option<&'a [u8]> {
        self.channel
    }

    /// The payload as it was published: any bytes, or none.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The id of this consumer, as it was set in the builder, or its listen address by default.
    pub fn consumer_id(&self) -> &'a str {
        self.consumer_id
    }
}

/// What is recorded of a message in the result stream: fields with names and values, in order.
///
/// If there are no fields, the message is done and nothing is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Names and values, alternating, as they are sent to Redis.
    pub(super) fields: Words,
}

impl Outcome {
    /// No fields yet.
    pub fn new() -> Outcome {
        Outcome::default()
    }

    /// Names and values, alternating.
    #[doc(hidden)]
    pub fn from_words(fields: Words) -> Outcome {
        Outcome { fields }
    }

    /// Adds a field: text or bytes.
    pub fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Outcome {
        self.fields.push(name);
        self.fields.push(value);
        self
    }

    /// The fields, names with their values, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut words = self.fields.iter();
        std::iter::from_fn(move || words.next().zip(words.next()))
    }
}

/// Why a message was not processed, and what happens to it next.
///
/// Every error, and every text, converts into a [`retry`](HandlerError::retry), so that `?` does the usual thing and
/// `Err("why".into())` works. To make that possible, this type does not implement [`std::error::Error`] itself.
#[derive(Clone, PartialEq, Eq)]
pub struct HandlerError {
    pub(super) next: Next,
    pub(super) reason: String,
    /// For the log: empty, or a space and a field.
    pub(super) log_field: String,
}

/// What happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The delivery has failed.
    Fail(NackDelay),
    /// The handler did not begin, because it can't work now.
    PutBack,
}

impl HandlerError {
    /// Deliver the message again, after the wait that [`ConsumerBuilder::retry`](crate::ConsumerBuilder::retry) sets,
    /// or else the dispatcher's `--retry`; after the last allowed delivery, the message goes to the dead letters.
    pub fn retry(reason: impl Into<String>) -> HandlerError {
        HandlerError { next: Next::Fail(NackDelay::ByBackoff), reason: reason.into(), log_field: String::new() }
    }

    /// Deliver the message again after `delay`, which is limited to between 1 ms and 49 days.
    pub fn retry_after(delay: Duration, reason: impl Into<String>) -> HandlerError {
        HandlerError { next: Next::Fail(NackDelay::after(delay)), reason: reason.into(), log_field: String::new() }
    }

    /// Do not deliver the message again: it goes to the dead letters with this reason.
    pub fn reject(reason: impl Into<String>) -> HandlerError {
        HandlerError { next: Next::Fail(NackDelay::Never), reason: reason.into(), log_field: String::new() }
    }

    /// The handler can't work now and has *not begun* the message, for instance because a server that it needs does not
    /// listen. The delivery does not count, however often this happens, and another consumer gets the message at once.
    ///
    /// The consumer is not ready from now on, until [`Handler::ready`] returns `Ok`. For a closure that is after a
    /// second at most.
    pub fn not_ready(reason: impl Into<String>) -> HandlerError {
        HandlerError { next: Next::PutBack, reason: reason.into(), log_field: String::new() }
    }

    /// The same with more for this consumer's line in the log, which follows the reason there.
    #[cfg(feature = "programs")]
    pub(crate) fn with_log_field(self, log_field: String) -> HandlerError {
        HandlerError { log_field, ..self }
    }

    /// Whether the message goes to the dead letters.
    pub fn is_reject(&self) -> bool {
        self.next == Next::Fail(NackDelay::Never)
    }

    /// Whether the message was not begun.
    pub fn is_not_ready(&self) -> bool {
        self.next == Next::PutBack
    }

    /// Whether it says nothing of when the message is to be delivered again.
    pub(super) fn leaves_the_delay_open(&self) -> bool {
        self.next == Next::Fail(NackDelay::ByBackoff)
    }

    /// The same with a delay. One of 0 becomes 1 ms, because 0 leaves it open.
    pub(super) fn after(self, delay: Duration) -> HandlerError {
        HandlerError { next: Next::Fail(NackDelay::after(delay)), ..self }
    }

    /// The reason that was given.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl<E: Into<Box<dyn std::error::Error>>> From<E> for HandlerError {
    /// A retry whose reason is the text, or the error with all its causes. Many errors repeat their cause in their own
    /// text; it is not added again.
    fn from(error: E) -> HandlerError {
        let error = error.into();
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !reason.ends_with(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            source = cause.source();
        }
        HandlerError::retry(reason)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerError({self})")
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.next {
            Next::Fail(NackDelay::Never) => write!(f, "rejected: {}", self.reason),
            Next::Fail(NackDelay::ByBackoff) => write!(f, "retry: {}", self.reason),
            Next::Fail(NackDelay::AfterMs(ms)) => write!(f, "retry after {ms} ms: {}", self.reason),
            Next::PutBack => write!(f, "not ready: {}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(handler: impl Handler, payload: &[u8]) -> Result<Outcome, HandlerError> {
        handler.handle(&Delivery::new(payload).with_consumer_id("c"))
    }

    #[test]
    fn a_delivery_for_a_test_has_what_the_test_sets() {
        let delivery = Delivery::new("text").with_id(MessageId(7)).with_number(3).with_consumer_id("c");
        assert_eq!((delivery.id(), delivery.number(), delivery.consumer_id()), (MessageId(7), 3, "c"));
        assert_eq!((delivery.payload(), delivery.channel()), (&b"text"[..], None));
        assert_eq!(delivery.with_channel("orders.eu").channel(), Some(&b"orders.eu"[..]));
        assert_eq!((delivery.lane(), delivery.key()), (0, "0000000000000007".to_owned()));
        assert_eq!(delivery.with_lane(300).key(), "300/0000000000000007");
        let bytes = vec![0xff];
        assert_eq!((Delivery::new(&bytes).payload(), Delivery::new(b"\xff").number()), (&bytes[..], 1));
    }

    #[test]
    fn closures_are_handlers_and_question_marks_retry() {
        let double = |delivery: &Delivery<'_>| {
            let number: u64 = std::str::from_utf8(delivery.payload())?.parse()?;
            Ok(Outcome::new().field("double", (2 * number).to_string()).field("by", delivery.consumer_id()))
        };
        let outcome = takes(double, b"21").expect("a number");
        assert_eq!(outcome.fields().collect::<Vec<_>>(), [(&b"double"[..], &b"42"[..]), (b"by", b"c")]);
        let error = takes(double, b"x").expect_err("no number");
        assert_eq!(error, HandlerError::retry("invalid digit found in string"));
    }

    #[test]
    fn a_plain_text_is_a_reason() {
        let refuse = |delivery: &Delivery<'_>| match delivery.payload() {
            b"text" => Err("no stock".into()),
            b"string" => Err(format!("no {}", "stock"))?,
            _ => Err(Box::<dyn std::error::Error>::from("no stock").into()),
        };
        for payload in [&b"text"[..], b"string", b"box"] {
            assert_eq!(takes(refuse, payload), Err(HandlerError::retry("no stock")));
        }
    }

    /// An error whose text may include that of its cause.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: std::str::ParseBoolError,
    }

    #[test]
    fn causes_are_part_of_the_reason_once() {
        let of = |text| HandlerError::from(Outer { text, source: "x".parse::<bool>().expect_err("neither") });
        let cause = "provided string was not `true` or `false`";
        assert_eq!(of("reading").reason(), format!("reading: {cause}"));
        assert_eq!(of("reading: provided string was not `true` or `false`").reason(), format!("reading: {cause}"));
    }

    #[test]
    fn delays_never_meet_the_two_that_mean_something_else() {
        for (delay, on_the_wire) in [
            (Duration::ZERO, 1),
            (Duration::from_micros(10), 1),
            (Duration::from_secs(3), 3_000),
            (Duration::MAX, u32::MAX - 1),
        ] {
            let error = HandlerError::retry_after(delay, "later");
            assert_eq!(error.next, Next::Fail(NackDelay::AfterMs(on_the_wire)));
            assert!(!error.is_reject());
        }
        assert!(HandlerError::reject("never").is_reject());
    }
}
