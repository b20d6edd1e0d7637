use super::*;
use crate::base::budget::Budget;
use crate::ledger::Body;

fn message(id: u64) -> Pending {
    Pending { id: MessageId(id), delivery: 1, body: Body::copied(None, b"x") }
}

fn again(id: u64) -> Again {
    Again::new(message(id), None, &Budget::new(0))
}

fn sent(table: &mut Table) -> Option<u64> {
    table.send_first(Line::Common, 0, |_| true).map(|next| next.message.id.0)
}

#[test]
fn messages_are_sent_in_order_and_redeliveries_first() {
    let mut table = Table::new(MessageId::ZERO);
    assert!((1..=3).all(|id| table.admit(message(id))) && !table.admit(message(1)));
    assert_eq!(table.send_first(Line::Common, 7, |_| true).map(|next| next.message.id), Some(MessageId(1)));
    assert_eq!(table.whereabouts(MessageId(1)), Some(Whereabouts::Sent(7)));
    assert_eq!(sent(&mut table), Some(2));
    for id in [1, 2] {
        table.set_away(MessageId(id));
        assert!(table.readmit(again(id)));
    }
    assert_eq!([1, 2, 3].map(|_| sent(&mut table)), [1, 2, 3].map(Some));
    assert_eq!((sent(&mut table), table.ready_bytes(), table.ready_len()), (None, 0, 0));
}

#[test]
fn messages_done_or_adopted_while_they_waited_are_not_sent() {
    let mut table = Table::new(MessageId::ZERO);
    for id in 1..=3 {
        table.admit(message(id));
    }
    table.forget(MessageId(1));
    table.adopt(MessageId(2), 4);
    assert_eq!(sent(&mut table), Some(3));
}

#[test]
fn only_messages_that_this_leader_stored_and_did_not_deliver_are_new() {
    let mut table = Table::new(MessageId(1));
    for id in 1..=3 {
        table.admit(message(id));
    }
    assert_eq!((table.is_new(MessageId(1)), table.first_new()), (false, Some(MessageId(2))));
    assert_eq!([1, 2].map(|_| sent(&mut table)), [Some(1), Some(2)]);
    table.set_away(MessageId(2));
    assert!(table.readmit(again(2)));
    assert_eq!((table.is_new(MessageId(2)), table.first_new()), (false, Some(MessageId(3))));
}

#[test]
fn a_message_that_does_not_fit_stays_first() {
    let mut table = Table::new(MessageId::ZERO);
    assert!((1..=3).all(|id| table.admit(message(id))));
    table.forget(MessageId(1));
    let fits = |message: &Pending| message.id != MessageId(2);
    assert!(table.send_first(Line::Common, 0, fits).is_none(), "those behind it wait, too");
    assert_eq!((sent(&mut table), sent(&mut table)), (Some(2), Some(3)));
}

#[test]
fn a_message_adopted_meanwhile_is_not_readmitted() {
    let mut table = Table::new(MessageId::ZERO);
    table.set_away(MessageId(1));
    table.adopt(MessageId(1), 0);
    assert!(!table.readmit(again(1)));
    table.forget(MessageId(1));
    assert!(!table.readmit(again(1)));
}

#[test]
fn a_redelivery_keeps_its_share_of_the_budget_until_it_is_sent() {
    let budget = Budget::new(1_000);
    let mut table = Table::new(MessageId::ZERO);
    table.set_away(MessageId(1));
    assert!(table.readmit(Again::new(message(1), None, &budget)));
    assert!(!table.readmit(Again::new(message(2), None, &budget)), "it is not tracked");
    assert_eq!((budget.free_bytes(), table.ready_bytes()), (1_000 - cost(&message(1)), 0));
    sent(&mut table);
    assert_eq!(budget.free_bytes(), 1_000);
}

#[test]
fn a_delivery_that_was_lost_counts_with_the_next() {
    let mut table = Table::new(MessageId::ZERO);
    let loss = Loss { consumer: "c0".into(), reason: "the connection dropped".into() };
    for (id, loss) in [(1, Some(loss)), (2, None)] {
        table.set_away(MessageId(id));
        table.readmit(Again::new(message(id), loss, &Budget::new(0)));
    }
    let lost = table.send_first(Line::Common, 0, |_| true).expect("it waits");
    assert_eq!((lost.message.delivery, lost.again, lost.loss.is_some()), (2, true, true));
    let settled = table.send_first(Line::Common, 0, |_| true).expect("it waits");
    assert_eq!((settled.message.delivery, settled.again, settled.loss.is_some()), (1, true, false));
}

#[test]
fn suspects_wait_in_a_line_of_their_own() {
    let mut table = Table::new(MessageId::ZERO);
    let loss = || Some(Loss { consumer: "c0".into(), reason: "the connection dropped".into() });
    // Lost at its first delivery, lost at its second, failed at its second.
    for (id, delivery, loss) in [(1, 1, loss()), (2, 2, loss()), (3, 3, None)] {
        table.set_away(MessageId(id));
        table.readmit(Again::new(Pending { delivery, ..message(id) }, loss, &Budget::new(0)));
    }
    assert_eq!(table.ready_len(), 3);
    assert_eq!([0; 3].map(|_| sent(&mut table)), [Some(1), Some(3), None]);
    assert_eq!(table.send_first(Line::Suspects, 0, |_| true).map(|next| next.message.id), Some(MessageId(2)));
    assert_eq!(table.first_ready(Line::Suspects), None);
}
