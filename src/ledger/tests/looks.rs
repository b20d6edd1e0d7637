//! Looks at pending messages, and questions where they are.

use super::*;

#[test]
fn pending_messages_are_looked_at_page_by_page_without_their_payloads() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let large = vec![b'x'; 400_000];
    let body = |id: u64| match id {
        1 => Body::copied(Some(b"eu@1:"), b"a:b"),
        2 => Body::copied(None, b""),
        _ => Body::copied(None, &large),
    };
    let batch: Vec<Arrival> = (1..=8).map(|id| Arrival { body: body(id), ..arrival(id, b"") }).collect();
    f.ledger.intake(epoch, None, &cursor("m", 8, 8), &batch).expect("they are stored");
    f.run(&["ZADD", "messages:pending", "3.5", "stranger"]);
    f.run(&[
        "HSET",
        "messages:attempts",
        "1",
        "3",
        "2",
        "2 4 9 1000 why",
        "4",
        "5 @1234 +900 1 8 1000 why",
        "5",
        "2 @77 +9",
    ]);
    let (mut seen, mut pages, mut foreign, mut after) = (Vec::new(), 0, 0, MessageId::ZERO);
    while let Some(read_up_to) = {
        let page = f.ledger.look(after, MessageId(7), 1_000).expect("they can be read");
        seen.extend(page.messages);
        foreign += page.foreign;
        page.read_up_to
    } {
        (after, pages) = (read_up_to, pages + 1);
    }
    assert_eq!(seen.iter().map(|looked| looked.id.0).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    assert!(pages > 1 && foreign == 1, "bounded by bytes: {pages}, {foreign}");
    assert_eq!(
        seen.iter().map(|looked| looked.bytes).collect::<Vec<_>>(),
        [3, 0, 400_000, 400_000, 400_000, 400_000, 400_000]
    );
    assert_eq!(seen[0].body, Body::copied(Some(b"eu@1:"), b""));
    let told: Vec<_> = seen.iter().map(|looked| (looked.delivery, looked.replays, looked.due_ms)).collect();
    assert_eq!(told[..5], [(3, 0, None), (2, 4, None), (1, 0, None), (5, 1, Some(1234)), (2, 0, Some(77))]);
    let whole = f.ledger.look_whole(MessageId(1)).unwrap().expect("it is pending");
    assert_eq!((whole.body, whole.delivery), (body(1), 3));
    assert_eq!(f.ledger.look_whole(MessageId(3)).unwrap().map(|looked| looked.body), Some(body(3)));
    assert_eq!(f.ledger.look_whole(MessageId(9)).unwrap(), None);
}

#[test]
fn a_look_needs_no_right_to_write() {
    let mut f = fixture();
    if f.redis.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has neither rights to only read a key nor scripts that only read");
    }
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    f.run(&["ACL", "SETUSER", "u", "on", "nopass", "%R~messages:*", "+@all", "-eval", "-evalsha"]);
    let server = Server::parse(&f.redis.url().replace("redis://", "redis://u:p@")).expect("it is a URL");
    let mut reader = Ledger::new(server, Arc::new(Keys::new("messages")), Duration::from_secs(10));
    assert_eq!(reader.look(MessageId::ZERO, MessageId(9), 9).expect("it may").messages.len(), 1);
    assert!(reader.clock_us().expect("it may") > 1_700_000_000_000_000);
}

#[test]
fn a_question_is_heard_and_only_the_leader_can_answer() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let mut subscription = f.listen(&DispatcherId::generate("a"));
    let question = Question { request: RequestId::generate(), ids: vec![MessageId(7), MessageId(8)] };
    assert_eq!(f.ledger.ask(&question).expect("it is published"), 1);
    let heard = wait_until(Duration::from_secs(10), "the question", || {
        let asked = subscription.read().expect("it is connected").map(|batch| batch.asked);
        Ok(asked.filter(|asked| !asked.is_empty()))
    });
    assert_eq!(heard.expect("it comes"), std::slice::from_ref(&question));
    assert_eq!(f.ledger.answer_to(question.request).unwrap(), None);
    let answer = Answer(vec![
        (MessageId(7), Location::At { for_ms: 12, delivery: 2, consumer: "c 0".to_owned() }),
        (MessageId(8), Location::Stored),
    ]);
    let stale = f.ledger.write_answer(Epoch(4), question.request, &answer).expect_err("an earlier leader");
    assert!(matches!(stale, Error::Fenced { .. }), "{stale}");
    f.ledger.write_answer(epoch, question.request, &answer).expect("the leader may");
    assert_eq!(f.ledger.answer_to(question.request).unwrap(), Some(answer));
    let key = f.ledger.keys().answer_to(question.request);
    assert!(key.starts_with("messages:status:") && f.number(&["PTTL", &key]) > 0, "it expires");
}

#[test]
fn what_asks_nothing_proper_is_no_question() {
    let id = "0000000000000001";
    for text in [
        "where".to_owned(),
        "where ".to_owned(),
        format!("where {id}"),
        format!("where {id} "),
        format!("where {id} {id} "),
        format!("where 1 {id}"),
        format!("where {} {id}", "g".repeat(16)),
        format!("where {id}{}", format!(" {id}").repeat(MOST_ASKED + 1)),
        format!("where {id} {}", "F".repeat(16)),
    ] {
        assert_eq!(text.parse::<subscription::Notice>(), Err(()), "{text}");
    }
    let most = format!("where {id}{}", format!(" {id}").repeat(MOST_ASKED));
    assert!(most.parse::<subscription::Notice>().is_ok());
}
