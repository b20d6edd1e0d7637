//! The status of a group with several lanes: each lane's, and their sum. Pure.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::state::Status;
use crate::ledger::LaneNumber;

/// Figures that are added up.
const SUMMED: [&str; 8] =
    ["pending", "results", "dead_letters", "gaps", "spilled", "delayed", "recent_deaths", "stream_entries"];

/// The status of lane 0 with sums over all lanes in place of its figures, all problems, and in `lanes` the status of
/// each. Of one lane it is that lane's.
pub fn combined(mut lanes: Vec<(LaneNumber, Value)>) -> Value {
    if lanes.len() == 1 {
        return lanes.remove(0).1;
    }
    let mut shown = lanes.first().map(|(_, first)| first.clone()).unwrap_or_default();
    for figure in SUMMED {
        let known: Vec<u64> = lanes.iter().filter_map(|(_, lane)| lane[figure].as_u64()).collect();
        shown[figure] = if known.is_empty() { Value::Null } else { known.iter().sum::<u64>().into() };
    }
    for words in ["problems", "notes"] {
        let of_lane = |(number, lane): &(LaneNumber, Value)| {
            let texts = lane[words].as_array().cloned().unwrap_or_default();
            let number = *number;
            texts.into_iter().map(move |text| format!("lane {number}: {}", text.as_str().unwrap_or_default()))
        };
        shown[words] = lanes.iter().flat_map(of_lane).map(Value::from).collect();
    }
    if lanes.iter().any(|(_, lane)| lane["health"] != "ok") {
        shown["health"] = "attention".into();
    }
    shown["lanes"] = lanes.into_iter().map(|(number, lane)| (number.to_string(), lane)).collect::<Map<_, _>>().into();
    shown
}

/// The same as text.
pub fn in_words(lanes: &[(LaneNumber, Status)]) -> String {
    if let [(_, only)] = lanes {
        return only.to_string();
    }
    let sum = |pick: fn(&Status) -> u64| lanes.iter().map(|(_, status)| pick(status)).sum::<u64>();
    let mut text = format!(
        "{} lanes, pending {}, results {}, dead letters {}, gaps {}\n",
        lanes.len(),
        sum(|status| status.snapshot.pending),
        sum(|status| status.snapshot.processed),
        sum(|status| status.snapshot.dead),
        sum(|status| status.snapshot.gaps),
    );
    for (number, status) in lanes {
        // Writing to a text can't fail.
        let _ = write!(text, "\nlane {number}:\n{status}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lanes_are_summed_and_each_is_shown() {
        let lane = |pending: Value, health: &str, problems: Value| -> Value {
            json!({"group": "{o}", "pending": pending, "health": health, "problems": problems, "notes": []})
        };
        let lanes = vec![
            (0, lane(3.into(), "ok", json!([]))),
            (4, lane(4.into(), "attention", json!(["no leader"]))),
            (5, lane(Value::Null, "ok", json!([]))),
        ];
        let shown = combined(lanes.clone());
        assert_eq!((&shown["pending"], &shown["results"]), (&json!(7), &Value::Null));
        assert_eq!((&shown["health"], &shown["problems"]), (&json!("attention"), &json!(["lane 4: no leader"])));
        assert_eq!((&shown["lanes"]["4"], &shown["group"]), (&lanes[1].1, &json!("{o}")));
        assert_eq!(combined(lanes[..1].to_vec()), lanes[0].1);
    }
}
