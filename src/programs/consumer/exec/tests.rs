//! The handler with real children: shell scripts, and Python where more is to be done.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Exec;
use super::settings::ExecConfig;
use crate::base::id::MessageId;
use crate::consumer::{Delivery, Handler, HandlerError, Outcome};
use crate::programs::consumer::trace::Tracing;

mod ending;
mod long_lived;
mod misbehaving;
mod per_message;

/// Everything that is waited for takes less.
const DEADLINE: Duration = Duration::from_secs(30);

/// A handler that is stopped when the test ends.
struct Running(Exec);

impl Running {
    fn new(words: &[&str], per_message: bool, timeout: Option<Duration>) -> Running {
        let words = words.iter().map(Into::into).collect();
        Running(Exec::new(ExecConfig { words, per_message }, "orders", timeout, Tracing(true)))
    }

    /// Long-lived children that run a shell script.
    fn shell(script: &str) -> Running {
        Running::new(&["sh", "-c", script], false, None)
    }

    /// A process for each message that runs a shell script.
    fn per_message(script: &str) -> Running {
        Running::new(&["sh", "-c", script], true, None)
    }

    /// Long-lived children that run `work(m)` in Python for each message `m`; `answer` writes an answer.
    fn python(work: &str) -> Running {
        Running::python_within(work, None)
    }

    fn python_within(work: &str, timeout: Option<Duration>) -> Running {
        let body = work.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let script = format!(
            "import base64, json, os, signal, subprocess, sys, time\n\
             def answer(what):\n    print(json.dumps(what), flush=True)\n\
             for line in sys.stdin:\n    m = json.loads(line)\n{body}"
        );
        Running::new(&["python3", "-c", &script], false, timeout)
    }

    /// The same, with another limit for reading a message.
    fn read_within(mut self, limit: Duration) -> Running {
        self.0.set_reading_limit(limit);
        self
    }

    fn handle(&self, payload: &(impl AsRef<[u8]> + ?Sized)) -> Result<Outcome, HandlerError> {
        self.0.handle(&Delivery::new(payload).with_id(MessageId(0x2f)))
    }

    /// The reason of a failure that is neither a rejection nor a message that was not begun.
    fn failure(&self, payload: &str) -> String {
        let error = self.handle(payload).expect_err("it fails");
        assert!(!error.is_reject() && !error.is_not_ready(), "{error}");
        error.reason().to_owned()
    }

    /// The value of a field of the result.
    fn field(&self, payload: &str, name: &str) -> String {
        let outcome = self.handle(payload).expect("a result");
        let field = outcome.fields().find(|(field, _)| *field == name.as_bytes());
        String::from_utf8(field.expect(name).1.to_vec()).expect("text")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("oncecast-exec-{}-{}", std::process::id(), fastrand::u64(..)));
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < DEADLINE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there and no zombie.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn wait_until_gone(pid: &str) {
    wait_until(&format!("the end of {pid}"), || (!runs(pid)).then_some(()));
}
