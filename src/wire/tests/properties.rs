//! Properties of arbitrary frames and arbitrary bytes.

use super::*;

type OwnedFields = Vec<(Vec<u8>, Vec<u8>)>;

/// A frame that owns its parts; [`Owned::frame`] lends them.
#[derive(Clone, Debug)]
enum Owned {
    Process(u64, u16, Vec<u8>),
    Deliver(u64, u16, u16, Vec<u8>),
    Ack(Vec<u64>),
    Nack(u64, u32, String),
    Lead(u64, String),
    Ready(u32, u8, String),
    Held(Vec<u64>),
    Progress(Vec<u64>),
    Result(u64, OwnedFields),
    Drain,
    Error(u16, String),
    Results(Vec<(u64, OwnedFields)>),
    Hello(String),
    Recorded(Vec<u64>),
    Credit(u32),
    Proof([u8; 32]),
    Part(u64, u8, u16, Vec<u8>),
}

impl Owned {
    fn frame(&self) -> Frame<'_> {
        let ids = |ids: &[u64]| ids.iter().copied().map(MessageId).collect();
        match self {
            Owned::Process(id, delivery, body) => Frame::Process { id: MessageId(*id), delivery: *delivery, body },
            Owned::Deliver(id, delivery, channel, joined) => {
                Frame::Deliver { id: MessageId(*id), delivery: *delivery, channel_bytes: *channel, joined }
            }
            Owned::Ack(list) => Frame::Ack(ids(list)),
            Owned::Nack(id, delay, reason) => {
                let delay = NackDelay::of_wire(*delay);
                Frame::Nack { id: MessageId(*id), delay, reason }
            }
            Owned::Lead(epoch, group) => Frame::Lead { epoch: Epoch(*epoch), group },
            Owned::Ready(prefetch, flags, consumer) => {
                Frame::Ready { prefetch: *prefetch, flags: ReadyFlags(*flags), consumer }
            }
            Owned::Held(list) => Frame::Held(ids(list)),
            Owned::Progress(list) => Frame::Progress(ids(list)),
            Owned::Result(id, list) => Frame::Result { id: MessageId(*id), fields: fields(list) },
            Owned::Results(results) => {
                let results = results.iter().map(|(id, list)| (MessageId(*id), fields(list)));
                Frame::Results(results.map(|(id, fields)| MessageResult { id, fields }).collect())
            }
            Owned::Hello(text) => Frame::Hello(text),
            Owned::Recorded(list) => Frame::Recorded(ids(list)),
            Owned::Credit(prefetch) => Frame::Credit { prefetch: *prefetch },
            Owned::Proof(bytes) => Frame::Proof(Proof(*bytes)),
            Owned::Part(id, at, channel, joined) => {
                let position = position(*at);
                Frame::Part { id: MessageId(*id), delivery: 1, position, channel_bytes: *channel, joined }
            }
            Owned::Drain => Frame::Drain,
            Owned::Error(code, text) => Frame::Error { code: ErrorCode::from(*code), text },
        }
    }
}

fn fields(list: &[(Vec<u8>, Vec<u8>)]) -> Vec<Field<'_>> {
    list.iter().map(|(name, value)| Field { name, value }).collect()
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = |most: usize| prop::collection::vec(any::<u8>(), 0..most);
    let ids = || prop::collection::vec(any::<u64>(), 0..50);
    let fields = || prop::collection::vec((bytes(20), bytes(80)), 0..12);
    let text = || prop::collection::vec(any::<char>(), 0..60).prop_map(String::from_iter);
    prop_oneof![
        (any::<u64>(), any::<u16>(), bytes(300)).prop_map(|(id, delivery, body)| Owned::Process(id, delivery, body)),
        (any::<u64>(), any::<u16>(), 1..9_u16, bytes(300)).prop_map(|(id, delivery, channel, body)| {
            Owned::Deliver(id, delivery, channel, [&vec![b'c'; channel.into()], &body[..]].concat())
        }),
        ids().prop_map(Owned::Ack),
        (any::<u64>(), any::<u32>(), text()).prop_map(|(id, delay, reason)| Owned::Nack(id, delay, reason)),
        (any::<u64>(), text()).prop_map(|(epoch, group)| Owned::Lead(epoch, group)),
        (any::<u32>(), any::<u8>(), text()).prop_map(|(prefetch, flags, name)| Owned::Ready(prefetch, flags, name)),
        ids().prop_map(Owned::Held),
        ids().prop_map(Owned::Progress),
        (any::<u64>(), fields()).prop_map(|(id, fields)| Owned::Result(id, fields)),
        prop::collection::vec((any::<u64>(), fields()), 1..5).prop_map(Owned::Results),
        text().prop_map(Owned::Hello),
        ids().prop_map(Owned::Recorded),
        any::<u32>().prop_map(Owned::Credit),
        any::<[u8; 32]>().prop_map(Owned::Proof),
        (any::<u64>(), 0..16_u8, 0..9_u16, bytes(300)).prop_map(|(id, position, channel, body)| {
            Owned::Part(id, position, channel, [&vec![b'c'; channel.into()], &body[..]].concat())
        }),
        Just(Owned::Drain),
        (any::<u16>(), text()).prop_map(|(code, text)| Owned::Error(code, text)),
    ]
}

/// Bytes that look enough like frames to reach deep into the decoder: small lengths, known commands, or noise.
fn framelike() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..18_u8, 0..40_u32, prop::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..40));
    let piece = prop_oneof![
        8 => frame.prop_map(|(command, length, payload)| {
            let mut bytes = raw(command, &payload);
            // Mostly truthful lengths, so that the payload itself is judged.
            if length < 4 {
                bytes[5] = length as u8;
            }
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Decodes everything; checks that it ends, that an error is the last, and that memory is paid for by the input.
fn judge(message: &[u8]) -> Result<(), TestCaseError> {
    let decoded = all(message);
    // The smallest frame is a bare header.
    prop_assert!(decoded.len() <= message.len() / HEADER_BYTES + 1);
    let mut ids = 0;
    let mut fields = 0;
    let mut results = 0;
    for (place, item) in decoded.iter().enumerate() {
        match item {
            Ok(Frame::Ack(list) | Frame::Held(list) | Frame::Progress(list) | Frame::Recorded(list)) => {
                ids += list.capacity();
            }
            Ok(Frame::Result { fields: list, .. }) => fields += list.capacity(),
            Ok(Frame::Results(list)) => {
                results += list.len();
                fields += list.iter().map(|result| result.fields.capacity()).sum::<usize>();
            }
            Ok(_) => {}
            Err(_) => prop_assert_eq!(place + 1, decoded.len(), "nothing follows an error"),
        }
    }
    // Each id takes 8 bytes of the input, each field at least 6, each result at least 10: no count or length reserves
    // more than that.
    prop_assert!(8 * ids + 6 * fields + 10 * results <= message.len());
    // What was accepted is the input and nothing else: encoded again it gives the same bytes.
    let mut again = Vec::new();
    decoded.iter().flatten().for_each(|frame| frame.encode(&mut again));
    prop_assert!(message.starts_with(&again));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_frames_read_back(list in prop::collection::vec(owned(), 0..8)) {
        let mut message = Vec::new();
        list.iter().for_each(|owned| owned.frame().encode(&mut message));
        let decoded: Result<Vec<_>, _> = frames(&message).collect();
        prop_assert_eq!(decoded, Ok(list.iter().map(Owned::frame).collect::<Vec<_>>()));
        judge(&message)?;
    }

    #[test]
    fn any_bytes_give_frames_or_an_error(message in prop::collection::vec(any::<u8>(), 0..600)) {
        judge(&message)?;
    }

    #[test]
    fn bytes_like_frames_give_frames_or_an_error(message in framelike()) {
        judge(&message)?;
    }

    #[test]
    fn one_changed_byte_never_breaks_the_decoder(owned in owned(), place in any::<prop::sample::Index>(), byte: u8) {
        let mut message = owned.frame().to_vec();
        let place = place.index(message.len());
        message[place] = byte;
        judge(&message)?;
    }
}
