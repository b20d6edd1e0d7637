//! Any text is a cursor, a marker, a notice, or refused; a cursor that is accepted is written the same again, since the
//! intake script compares texts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::ledger::subscription::Notice;
use oncecast::ledger::{Cursor, Marker};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
    if let Ok(marker) = text.parse::<Marker>() {
        assert_eq!(marker.as_str(), text);
        // Any answer will do.
        let _ = marker.leader_place();
    }
    if let Ok(notice) = text.parse::<Notice>() {
        assert_eq!(notice.to_string().parse(), Ok(notice));
    }
});
