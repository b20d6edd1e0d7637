//! Any text in the place of a report is read as far as it is one, and what is read can be written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::programs::status::report::Report;
use oncecast::programs::status::shadow::ShadowReport;

fuzz_target!(|text: &str| {
    if let Some(report) = Report::parse(text) {
        let again = report.to_json().to_string();
        assert!(Report::parse(&again).is_some(), "{again}");
    }
    if let Some(report) = ShadowReport::parse(text) {
        let again = report.to_json().to_string();
        assert!(ShadowReport::parse(&again).is_some(), "{again}");
    }
});
