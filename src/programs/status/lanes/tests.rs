use serde_json::json;

use super::*;

fn lane(pending: Value, health: &str, problems: Value) -> Value {
    json!({"group": "{o}", "pending": pending, "health": health, "problems": problems, "notes": []})
}

#[test]
fn lanes_are_summed_and_each_is_shown() {
    let lanes = vec![
        (0, lane(3.into(), "ok", json!([]))),
        (4, lane(4.into(), "attention", json!(["no leader"]))),
        (5, lane(Value::Null, "ok", json!([]))),
    ];
    let shown = combined(lanes.clone());
    assert_eq!((&shown["pending"], &shown["results"]), (&json!(7), &Value::Null));
    assert_eq!((&shown["health"], &shown["problems"]), (&json!("attention"), &json!(["lane 4: no leader"])));
    assert_eq!((&shown["lanes"]["4"], &shown["group"]), (&lanes[1].1, &json!("{o}")));
    assert_eq!((&shown["rates"], &shown["oldest_age_s"]), (&Value::Null, &Value::Null));
    assert_eq!(combined(lanes[..1].to_vec()), lanes[0].1);
}

#[test]
fn what_lanes_have_in_common_is_named_once() {
    let of = |number: u64, leader: &str| {
        let consumer = json!({"id": "c0", "address": "a:1", "state": "linked", "in_flight": number, "overdue": 0,
                              "prefetch": 8, "acked_per_s": 1.5});
        let dispatcher = |id: &str| {
            let role = if id == leader { "leader" } else { "standby" };
            json!({"id": id, "role": role, "in_sync": id == leader || number == 1, "ring_bytes": 10, "reporting": true})
        };
        json!({
            "pending": 0, "in_flight": number, "rates": {"acked": 1.5, "published": 2.0}, "oldest_age_s": number,
            "consumers": [consumer, {"address": "b:2", "state": "unreachable"}],
            "dispatchers": [dispatcher("d0"), dispatcher("d1")],
            "recent_gaps": [{"time": format!("2026-01-0{number}T00:00:00.000Z"), "reason": "x"}],
            "delivery": {"paused": (number == 2).then(|| json!({"by": "me"}))},
            "health": "ok",
        })
    };
    let shown = combined(vec![(0, of(1, "d0")), (3, of(2, "d0")), (4, of(3, "d1"))]);
    assert_eq!(
        (&shown["in_flight"], &shown["oldest_age_s"], &shown["paused_lanes"]),
        (&json!(6), &json!(3.0), &json!([3]))
    );
    assert_eq!((&shown["rates"]["acked"], &shown["rates"]["taken_in"]), (&json!(4.5), &Value::Null));
    let consumers = shown["consumers"].as_array().expect("a list");
    assert_eq!(consumers.len(), 2, "{consumers:?}");
    assert_eq!((&consumers[1]["in_flight"], &consumers[1]["prefetch"]), (&json!(6), &json!(24)));
    let dispatchers = &shown["dispatchers"];
    assert_eq!((&dispatchers[0]["leads"], &dispatchers[1]["leads"]), (&json!([0, 3]), &json!([4])));
    assert_eq!((&dispatchers[0]["in_sync"], &dispatchers[0]["ring_bytes"]), (&json!(false), &json!(30)));
    let gaps: Vec<&Value> = shown["recent_gaps"].as_array().expect("a list").iter().map(|gap| &gap["lane"]).collect();
    assert_eq!(gaps, [&json!(4), &json!(3), &json!(0)], "the newest first");
}

#[test]
fn without_figures_there_are_no_sums() {
    let failed = || json!({"group": "{o}", "health": "attention", "problems": ["Redis does not answer"]});
    let shown = combined(vec![(0, failed()), (3, failed())]);
    assert_eq!(shown.get("pending"), None, "else what is old would look current");
    assert_eq!(shown["problems"], json!(["lanes 0, 3: Redis does not answer"]));
}

#[test]
fn lanes_that_could_not_be_read_are_named_and_what_all_say_is_said_once() {
    let failed = json!({"group": "{o}", "health": "attention", "problems": ["node a refuses the login"]});
    let mut other = lane(4.into(), "ok", json!([]));
    (other["leader"], other["notes"]) = (json!({"id": "d0"}), json!(["x"]));
    let mut third = other.clone();
    third["pending"] = 5.into();
    let shown = combined(vec![(0, failed), (3, other), (31, third)]);
    assert_eq!((&shown["pending"], &shown["unread_lanes"]), (&json!(9), &json!([0])));
    assert_eq!(
        shown["problems"],
        json!(["the sums lack lane 0, which could not be read", "lane 0: node a refuses the login"])
    );
    assert_eq!((&shown["leader"], &shown["notes"]), (&Value::Null, &json!(["lanes 3, 31: x"])));
}
