//! What a change of dead letters came to. Pure.

use std::fmt::Write;

use serde_json::json;

use crate::ledger::{LaneNumber, Replayed};

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    verb: &'static str,
    /// Whether nothing is to be changed.
    is_dry: bool,
    /// The letters that were selected.
    pub(super) matching: u64,
    /// Those that were replayed or removed.
    done: u64,
    /// Those that had gone before.
    gone: u64,
    pending: u64,
    truncated: u64,
    foreign: u64,
}

impl Tally {
    /// `verb`: `replay` or `drop`. `is_dry`: nothing is to be changed.
    pub(super) fn new(verb: &'static str, is_dry: bool) -> Tally {
        Tally { verb, is_dry, ..Tally::default() }
    }

    pub(super) fn note_replayed(&mut self, outcomes: &[Replayed]) {
        for outcome in outcomes {
            *match outcome {
                Replayed::Replayed => &mut self.done,
                Replayed::Gone => &mut self.gone,
                Replayed::Pending => &mut self.pending,
                Replayed::Truncated => &mut self.truncated,
                Replayed::Foreign => &mut self.foreign,
            } += 1;
        }
    }

    pub(super) fn note_dropped(&mut self, letters: u64, removed: u64) {
        self.done += removed;
        self.gone += letters.saturating_sub(removed);
    }

    /// How many could not be replayed.
    pub(super) fn left(&self) -> u64 {
        self.pending + self.truncated + self.foreign
    }

    /// Adds that of another lane.
    pub(super) fn add(&mut self, other: &Tally) {
        let Tally { verb: _, is_dry: _, matching, done, gone, pending, truncated, foreign } = other;
        self.matching += matching;
        self.done += done;
        self.gone += gone;
        self.pending += pending;
        self.truncated += truncated;
        self.foreign += foreign;
    }

    /// As text or as JSON, with the end of the line.
    pub(super) fn shown(&self, lane: LaneNumber, json: bool) -> String {
        let Tally { verb, is_dry: _, matching, done, gone, pending, truncated, foreign } = self;
        let past = if *verb == "drop" { "dropped" } else { "replayed" };
        if json {
            let counts = json!({
                "lane": lane, "matching": matching, past: done, "gone": gone, "pending": pending,
                "truncated": truncated, "foreign": foreign,
            });
            return format!("{counts}\n");
        }
        if self.is_dry {
            return format!("{matching} dead letters match; they would be {past}\n");
        }
        let mut text = format!("{done} of {matching} matching dead letters {past}\n");
        for (count, why) in [
            (gone, "gone: replayed or dropped meanwhile, or by an attempt of this command whose reply was lost"),
            (truncated, "left: only the beginning of the message was kept, because it is too large; publish it anew"),
            (pending, "left: a message with this id is pending already; drop the letter if that is the message"),
            (foreign, "left: not written by a dispatcher"),
        ] {
            if *count > 0 {
                // Writing to a text can't fail.
                let _ = writeln!(text, "{count} {why}");
            }
        }
        text
    }
}
