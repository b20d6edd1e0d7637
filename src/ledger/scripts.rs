//! The scripts, and for each a call with typed arguments.
//!
//! Only this file knows the order in which a script's keys and arguments are sent. Each script reads them in its first
//! lines by the same names (a key `pending` as `pending_key`), which a test compares. The operation appends the
//! arguments for each message of a batch, which the script's header describes.

use std::time::Duration;

use super::cursor::{Cursor, Marker};
use super::keys::Keys;
use super::lease::Lease;
use super::notice::Notice;
use super::script::{Argument, Script, ScriptCall};
use super::types::{Hold, Raise, Verdict};
use crate::base::id::{DispatcherId, Epoch, MessageId};

/// A script that relies on `lua/bundles.lua`.
macro_rules! with_bundles {
    ($file:literal) => {
        concat!(include_str!("lua/bundles.lua"), include_str!($file))
    };
}

/// A script that relies on that and on `lua/steps.lua`.
macro_rules! with_steps {
    ($file:literal) => {
        concat!(include_str!("lua/steps.lua"), include_str!("lua/bundles.lua"), include_str!($file))
    };
}

/// A script that relies on these and on `lua/walk.lua`.
macro_rules! with_walk {
    ($file:literal) => {
        concat!(
            include_str!("lua/steps.lua"),
            include_str!("lua/bundles.lua"),
            include_str!("lua/walk.lua"),
            include_str!($file)
        )
    };
}

/// The intake into a destination.
macro_rules! intake_into {
    ($destination:literal) => {
        concat!(include_str!("lua/steps.lua"), include_str!($destination), include_str!("lua/intake.lua"))
    };
}

/// Defines scripts and their calls: the text, the names of the keys, of which the ones after `then` are appended by the
/// operation, and the arguments.
macro_rules! scripts {
    ($(
        $script:ident = $text:expr;
        keys ($($key:ident),*) $(then ($($more:ident),+))?;
        $call:ident $(<$life:lifetime>)? { $($argument:ident: $kind:ty),* $(,)? }
    )+) => {
        $(
            pub(super) static $script: Script = Script::new($text);

            pub(super) struct $call $(<$life>)? { $(pub(super) $argument: $kind),* }

            impl $(<$life>)? $call $(<$life>)? {
                /// The call on the group's keys.
                pub(super) fn on(&self, keys: &Keys) -> ScriptCall {
                    let _ = keys;
                    let call = ScriptCall::new(&$script, &[$(&keys.$key),*]);
                    $(let call = call.with(&self.$argument);)*
                    call
                }
            }
        )+

        /// The text, the keys and the arguments of each script.
        #[cfg(test)]
        fn descriptions() -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
            vec![$((
                $script.text,
                vec![$(stringify!($key),)* $($(stringify!($more)),+)?],
                vec![$(stringify!($argument)),*],
            )),+]
        }
    };
}

scripts! {
    ACQUIRE = with_steps!("lua/acquire.lua");
    keys (leader, epoch, cursor, pending, recall, settings);
    AcquireCall<'a> {
        dispatcher: &'a DispatcherId,
        ttl_ms: Duration,
        alive_prefix: &'a str,
        floor: Epoch,
        may_take: bool,
        delivers: bool,
    }

    RENEW = include_str!("lua/renew.lua");
    keys (leader);
    RenewCall<'a> { lease: &'a Lease, ttl_ms: Duration }

    RELEASE = include_str!("lua/release.lua");
    keys (leader, consumers);
    ReleaseCall<'a> { lease: &'a Lease, control_channel: &'a str, notice: Notice }

    INTAKE = intake_into!("lua/into_pending.lua");
    keys (epoch, cursor, dead) then (destination);
    IntakeCall<'a> {
        my_epoch: Epoch,
        expected: Option<&'a Cursor>,
        next_cursor: &'a Cursor,
        doubts: u64,
        maxlen: u64,
        width: u64,
    }

    STREAM_INTAKE = intake_into!("lua/into_stream.lua");
    keys (epoch, cursor, dead) then (destination);
    StreamIntakeCall<'a> {
        my_epoch: Epoch,
        expected: Option<&'a Cursor>,
        next_cursor: &'a Cursor,
        doubts: u64,
        maxlen: u64,
        width: u64,
    }

    REWIND = include_str!("lua/rewind.lua");
    keys (epoch, cursor);
    RewindCall<'a> { my_epoch: Epoch, moved: &'a Cursor, before: Option<&'a Cursor> }

    WITHDRAW = with_bundles!("lua/withdraw.lua");
    keys (epoch, pending);
    WithdrawCall { my_epoch: Epoch, first: MessageId, last: MessageId }

    COMMIT = with_bundles!("lua/commit.lua");
    keys (pending, processed, attempts) then (recall, epoch);
    CommitCall { my_epoch: Option<Epoch>, result_maxlen: u64, raise_to: Raise }

    PUT_BACK = with_steps!("lua/put_back.lua");
    keys (pending, recall) then (done);
    PutBackCall { remember_ms: Duration, highest: MessageId }

    PAGE = with_walk!("lua/page.lua");
    keys (epoch, pending, attempts);
    PageCall { my_epoch: Epoch, after: MessageId, up_to: MessageId, most_messages: u64, most_bytes: u64, apart: u64 }

    FETCH = with_steps!("lua/fetch.lua");
    keys (epoch, pending, attempts);
    FetchCall { my_epoch: Epoch, most_bytes: u64 }

    SETTLE = with_steps!("lua/settle.lua");
    keys (epoch, pending, attempts, dead, recall);
    SettleCall { my_epoch: Epoch, max_deliveries: u64 }

    REPLAY = with_steps!("lua/replay.lua");
    keys (pending, dead, attempts, recall, replayed);
    ReplayCall<'a> { control_channel: &'a str }

    SETTINGS = include_str!("lua/settings.lua");
    keys (settings);
    SettingsCall<'a> {
        control_channel: &'a str,
        notice: Notice,
        pause: &'a str,
        by: &'a str,
        max_in_flight: &'a str,
        rate: &'a str,
    }

    COUNT = with_steps!("lua/count.lua");
    keys (epoch, pending, attempts);
    CountCall { my_epoch: Epoch }

    CONSUMERS = include_str!("lua/consumers.lua");
    keys (epoch, consumers);
    ConsumersCall { my_epoch: Epoch }

    GAP = include_str!("lua/gap.lua");
    keys (epoch, gaps);
    GapCall { my_epoch: Epoch, most_entries: u64 }

    MARKER = include_str!("lua/marker.lua");
    keys (epoch);
    MarkerCall<'a> { my_epoch: Epoch, control_channel: &'a str, notice: Notice, publish: &'a str }

    LOOK = with_walk!("lua/look.lua");
    keys (pending, attempts);
    LookCall { after: MessageId, up_to: MessageId, most_messages: u64, most_bytes: u64, whole: bool }

    ANSWER = include_str!("lua/answer.lua");
    keys (epoch) then (answer);
    AnswerCall<'a> { my_epoch: Epoch, ttl_ms: Duration, text: &'a str }

    FOLLOW = include_str!("lua/follow.lua");
    keys () then (stream);
    FollowCall<'a> { after: &'a str, most_entries: u64, most_bytes: u64 }

    LETTER_HEADS = include_str!("lua/letters.lua");
    keys (dead);
    LettersCall { most_letters: u64, most_bytes: u64, most_text: u64 }

    TRIAL = include_str!("lua/trial.lua");
    keys (leader, epoch, pending, processed, attempts, dead, recall);
    TrialCall<'a> { expected: &'a [u8], epoch: &'a [u8], clears: bool }

    SAMPLE = with_bundles!("lua/sample.lua");
    keys (cursor, pending, processed, dead, gaps, replayed) then (stream);
    SampleCall {}
}

/// Types that a script receives as they are displayed.
macro_rules! displayed {
    ($($kind:ty),+) => {
        $(impl Argument for $kind {
            fn append(&self, words: &mut super::command::Words) {
                words.push(self.to_string());
            }
        })+
    };
}

displayed!(DispatcherId, Lease, Notice, Cursor, Marker);

/// Types that a script receives as a simpler type.
macro_rules! as_other {
    ($($kind:ty: $value:ident => $other:expr),+ $(,)?) => {
        $(impl Argument for $kind {
            fn append(&self, words: &mut super::command::Words) {
                let $value = *self;
                $other.append(words);
            }
        })+
    };
}

as_other! {
    MessageId: id => id.0,
    Epoch: epoch => epoch.0,
    bool: yes => if yes { "1" } else { "0" },
    // In milliseconds.
    Duration: duration => duration.as_millis() as u64,
    Verdict: verdict => match verdict {
        Verdict::Failed => "failed",
        Verdict::Lost => "lost",
        Verdict::Unused => "unused",
        Verdict::Rejected => "rejected",
    },
    Hold: hold => match hold {
        Hold::Released => "released",
        Hold::Held => "held",
    },
}

impl Argument for Raise {
    fn append(&self, words: &mut super::command::Words) {
        match self {
            Raise::Nothing => "".append(words),
            Raise::To(id) => id.append(words),
            Raise::Recorded => "recorded".append(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that a script's text takes off a table in its first lines: `local a, b = unpack(KEYS)`.
    fn taken<'a>(text: &'a str, table: &str) -> Vec<&'a str> {
        let begins = format!("= unpack({table}");
        let line =
            text.lines().find(|line| line.starts_with("local ") && line.contains(&begins)).expect("it takes some");
        let (names, range) = line["local ".len()..].split_once(" = ").expect("it is an assignment");
        let names: Vec<&str> = names.split(", ").collect();
        // Behind them may be what is repeated for each message.
        let whole = [format!("unpack({table})"), format!("unpack({table}, 1, {})", names.len())];
        assert!(whole.iter().any(|form| form == range), "{line}");
        names
    }

    #[test]
    fn scripts_are_small_enough_for_a_client_that_has_not_logged_in() {
        const MOST_BYTES: usize = 16_384;
        for script in [&ACQUIRE, &COMMIT, &SETTLE, &REPLAY, &PAGE, &FETCH, &COUNT, &INTAKE, &LOOK, &PUT_BACK] {
            assert!(script.sent().len() <= MOST_BYTES, "{} bytes: {}", script.sent().len(), script.text);
        }
    }

    #[test]
    fn scripts_read_what_their_calls_write() {
        for (text, keys, arguments) in descriptions() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key}_key")).collect();
            assert_eq!(taken(text, "KEYS"), keys, "{text}");
            match arguments.is_empty() {
                true => assert!(!text.contains("ARGV"), "{text}"),
                false => assert_eq!(taken(text, "ARGV"), arguments, "{text}"),
            }
            assert!(!text.contains("KEYS["), "{text}");
        }
    }
}
