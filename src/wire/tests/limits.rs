//! Frames at their limits, and over them.

use super::*;

#[test]
fn a_length_over_the_limit_is_refused_before_the_payload_is_there() {
    let limits = [
        10 + (8 << 20),
        8 * 65_536,
        12 + 4_096,
        8 + 4_096,
        5 + 4_096,
        8 * 65_536,
        8 * 65_536,
        12 << 20,
        0,
        2 + 4_096,
        12 + 4_096 + (8 << 20),
        12 << 20,
        4_096,
        8 * 65_536,
        4,
        32,
    ];
    for (command, limit) in limits.into_iter().enumerate() {
        let (name, command) = (NAMES[command], command as u8);
        for length in [limit + 1, u32::MAX as usize] {
            let mut header = vec![VERSION, command];
            header.extend((length as u32).to_be_bytes());
            assert_eq!(only(&header), Err(WireError::TooLarge { command: name, length, limit }));
        }
        // At the limit it is only missing its payload.
        if limit > 0 {
            let mut header = vec![VERSION, command];
            header.extend((limit as u32).to_be_bytes());
            assert_eq!(only(&header), Err(WireError::ShortPayload { command: name, length: limit, got: 0 }));
        }
    }
}

#[test]
fn frames_at_their_limits_pass_and_one_byte_more_does_not() {
    let body = vec![7; MAX_BODY_BYTES + 1];
    let text = "x".repeat(MAX_TEXT_BYTES + 1);
    let ids = vec![id(9); MAX_IDS + 1];
    let at = |over: usize| {
        let (text, ids) = (&text[..MAX_TEXT_BYTES + over], ids[..MAX_IDS + over].to_vec());
        [
            Frame::Process { id: id(1), delivery: 1, body: &body[..MAX_BODY_BYTES + over] },
            Frame::Lead { epoch: Epoch(1), group: text },
            Frame::Ready { prefetch: 1, flags: ReadyFlags(0), consumer: text },
            Frame::Ack(ids.clone()),
            Frame::Held(ids.clone()),
            Frame::Progress(ids.clone()),
            Frame::Recorded(ids),
            Frame::Hello(text),
            // id, count, name length, value length: 16 bytes beside the value.
            Frame::Result {
                id: id(1),
                fields: vec![Field { name: b"", value: &vec![1; MAX_PAYLOAD_BYTES - 16 + over] }],
            },
        ]
        .map(|frame| frame.to_vec())
    };
    // As in RESULT, but the first result of two.
    let results = |over: usize| {
        let value = vec![1; MAX_PAYLOAD_BYTES - 26 + over];
        let fields = vec![Field { name: b"", value: &value }];
        let last = MessageResult { id: id(2), fields: vec![] };
        Frame::Results(vec![MessageResult { id: id(1), fields }, last]).to_vec()
    };
    for bytes in at(0).into_iter().chain([results(0)]) {
        assert!(bytes.len() <= MAX_WS_MESSAGE_BYTES);
        assert!(only(&bytes).is_ok(), "{:?}", bytes[1]);
    }
    for bytes in at(1).into_iter().chain([results(1)]) {
        assert!(matches!(only(&bytes), Err(WireError::TooLarge { .. })), "{:?}", bytes[1]);
    }
}

#[test]
fn a_frame_has_at_most_so_many_results() {
    let results = |count| Frame::Results(vec![MessageResult { id: id(1), fields: vec![] }; count]).to_vec();
    assert!(only(&results(MAX_IDS)).is_ok());
    assert_eq!(only(&results(MAX_IDS + 1)), malformed("RESULTS", "too many results"));
}

#[test]
fn reasons_and_error_texts_are_cut_at_a_character_by_their_sender() {
    let long = "é".repeat(MAX_TEXT_BYTES);
    let odd = format!("x{long}");
    for (text, kept) in [(&long, MAX_TEXT_BYTES), (&odd, MAX_TEXT_BYTES - 1)] {
        let nack = Frame::Nack { id: id(1), delay: NackDelay::Never, reason: text }.to_vec();
        assert_eq!(only(&nack), Ok(Frame::Nack { id: id(1), delay: NackDelay::Never, reason: &text[..kept] }));
        let error = Frame::Error { code: ErrorCode::Group, text }.to_vec();
        assert_eq!(only(&error), Ok(Frame::Error { code: ErrorCode::Group, text: &text[..kept] }));
    }
}

#[test]
fn values_too_long_for_their_length_field_are_refused_by_the_receiver() {
    let field = Field { name: b"", value: b"" };
    // 65,536 fields would be announced as none, a name of 65,536 bytes as an empty one.
    for fields in [vec![field; 65_536], vec![Field { name: &[0; 65_536], value: b"" }]] {
        let bytes = Frame::Result { id: id(1), fields }.to_vec();
        let length = u32::MAX as usize;
        assert_eq!(all(&bytes)[0], Err(WireError::TooLarge { command: "RESULT", length, limit: MAX_PAYLOAD_BYTES }));
    }
    let results = Frame::Results(vec![MessageResult { id: id(1), fields: vec![field; 65_536] }; 2]).to_vec();
    assert!(matches!(all(&results)[0], Err(WireError::TooLarge { command: "RESULTS", .. })));
    let most = Frame::Result { id: id(1), fields: vec![Field { name: &[b'n'; 65_535], value: b"" }; 2] };
    assert_eq!(only(&most.to_vec()), Ok(most));
}
