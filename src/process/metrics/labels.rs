//! Makes the labels of numbers harmless, whoever chose their values. Pure.
//!
//! A consumer chooses its id, and the id is the value of a label. So a value is cut to [`MAX_VALUE_BYTES`], and control
//! characters in it are escaped. What then looks the same is one number, their sum: a server of metrics refuses a whole
//! answer in which a set of labels occurs twice. A metric has at most [`MAX_SETS`] numbers; the others are one number
//! whose labels are [`OTHERS`].
//!
//! Limitation: a consumer that calls itself something else each time it starts makes a new series each time. The label
//! holds its id because dashboards need it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::number::{Labels, Number};
use crate::base::text::{Escaped, beginning};

/// The longest value of a label.
pub(super) const MAX_VALUE_BYTES: usize = 128;
/// The most numbers of one metric. A dispatcher has at most 1,024 consumers.
pub(super) const MAX_SETS: usize = 2_048;
/// The value of all labels of the number that sums up the others.
const OTHERS: &str = "(others)";
/// Stands for what was cut from the middle of a value.
const CUT: &str = "…";

/// The numbers by their labels, which can be written as they are: each set of labels once, and not too many.
pub(super) fn bounded(numbers: Vec<(Labels, Number)>) -> Vec<(Labels, Number)> {
    let mut by_labels: BTreeMap<Labels, Number> = BTreeMap::new();
    for (labels, number) in numbers {
        let mut labels: Labels = labels.into_iter().map(|(name, value)| (name, shown(&value))).collect();
        if by_labels.len() >= MAX_SETS && !by_labels.contains_key(&labels) {
            labels.iter_mut().for_each(|(_, value)| OTHERS.clone_into(value));
        }
        match by_labels.entry(labels) {
            Entry::Vacant(place) => drop(place.insert(number)),
            Entry::Occupied(mut place) => place.get_mut().add(number),
        }
    }
    by_labels.into_iter().collect()
}

/// A value of a label. Ids differ at their ends, so a long one is cut in the middle.
fn shown(value: &str) -> String {
    let value = Escaped(value).to_string();
    if value.len() <= MAX_VALUE_BYTES {
        return value;
    }
    let half = (MAX_VALUE_BYTES - CUT.len()) / 2;
    let mut tail = value.len() - half;
    while !value.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}{CUT}{}", beginning(&value, half), &value[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = String>) -> Vec<(Labels, Number)> {
        values.into_iter().map(|value| (vec![("consumer", value)], Number::Whole(1))).collect()
    }

    #[test]
    fn values_are_short_and_escaped_and_those_that_look_alike_are_one() {
        let long = |end: &str| format!("{}{end}", "ü".repeat(2_000));
        let strange = "\u{1b}[2J\"} 1\n\u{202e}";
        let values = [strange.to_owned(), Escaped(strange).to_string(), long("1"), long("1"), long("2")];
        let bounded = bounded(of(values));
        let numbers: Vec<_> = bounded.iter().map(|(_, number)| number.clone()).collect();
        assert_eq!(numbers, [2, 2, 1].map(Number::Whole), "{bounded:?}");
        assert_eq!(bounded[0].0[0].1, "\\u{1b}[2J\"} 1\\n\\u{202e}");
        let lengths = bounded.iter().map(|(labels, _)| labels[0].1.len());
        assert!(lengths.clone().all(|length| length <= MAX_VALUE_BYTES) && lengths.max() > Some(120), "{bounded:?}");
    }

    #[test]
    fn there_are_only_so_many_numbers() {
        let bounded = bounded(of((0..MAX_SETS + 500).map(|number| format!("c{number}"))));
        assert_eq!(bounded.len(), MAX_SETS + 1);
        assert!(bounded.contains(&(vec![("consumer", OTHERS.to_owned())], Number::Whole(500))));
    }
}
