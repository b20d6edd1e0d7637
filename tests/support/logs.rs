//! What processes have written, shown when a test fails.

use oncecast::lab::ChildProcess;

/// The last lines that are shown of each.
const LINES: usize = 60;

/// Shows a process's log and output.
pub fn show(process: &ChildProcess) {
    show_as(process.name(), process);
}

/// The same under a name of one's own. Redis writes its log to its standard output.
pub fn show_as(name: &str, process: &ChildProcess) {
    for (what, lines) in [("log", process.stderr()), ("output", process.stdout())] {
        let tail = lines.tail(LINES);
        if !tail.is_empty() {
            eprintln!("{name}'s {what}:{tail}");
        }
    }
}
