//! The output of `demo`, `chaos` and `bench`: lines, and below them a block that shows the progress.
//!
//! On a terminal the block is redrawn in place. Elsewhere a plain line each second replaces it. If standard output
//! can't be written to any more, the run is asked to stop, as if it had been interrupted.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::numbers::grouped;
use crate::base::error::Result;
use crate::base::shutdown::ShutdownHandle;
use crate::process::output;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The width of the progress bar in characters. The whole block is less than 80 wide.
const BAR_WIDTH: usize = 50;

/// The progress of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The time since publishing began.
    pub elapsed: Duration,
    /// How long messages are published.
    pub duration: Duration,
    /// Messages published in the last second.
    pub published_per_s: u64,
    /// Results recorded in the last second.
    pub processed_per_s: u64,
    /// Messages without a result.
    pub pending: u64,
    /// The leader's name; empty if there is none.
    pub leader: String,
    /// What processes messages: consumers or workers.
    pub processors: &'static str,
    /// Their names: of consumers, those that are connected.
    pub names: Vec<String>,
}

/// The style of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Important.
    Strong,
    /// A detail.
    Faint,
    /// As expected.
    Good,
    /// Notable.
    Notable,
    /// A failure.
    Bad,
}

/// See the module's text.
pub struct Console<W: Write = io::Stdout> {
    out: W,
    /// Whether the block can be redrawn in place.
    terminal: bool,
    colour: bool,
    /// How many lines the block on the terminal has now.
    drawn: usize,
    /// The error after which nothing is written any more.
    failure: Option<io::Error>,
    /// The run that is then asked to stop.
    run: ShutdownHandle,
}

impl Console {
    /// A console on standard output. If that can't be written to, `run` is asked to stop.
    pub fn stdout(run: ShutdownHandle) -> Console {
        let set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Console { out: io::stdout(), terminal, colour: terminal && !set("NO_COLOR"), drawn: 0, failure: None, run }
    }
}

impl<W: Write> Console<W> {
    /// Whether the progress is redrawn in place, and may be drawn several times a second.
    pub fn is_live(&self) -> bool {
        self.terminal
    }

    /// `text`, coloured if the console shows colours.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Strong => BOLD,
            Tone::Faint => DIM,
            Tone::Good => GREEN,
            Tone::Notable => YELLOW,
            Tone::Bad => RED,
        };
        if self.colour { format!("{code}{text}{PLAIN}") } else { text.to_owned() }
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) {
        let text = format!("{}{text}\n", self.clear_block());
        self.write(&text);
    }

    /// Shows the progress.
    pub fn draw(&mut self, progress: &Progress) {
        let text = if self.terminal { self.block(progress) } else { plain(progress) };
        let text = format!("{}{text}", self.clear_block());
        self.drawn = if self.terminal { text.matches('\n').count() } else { 0 };
        self.write(&text);
    }

    /// Returns `code`, the exit code of the run, or the error that prevented some output.
    pub fn finish(self, code: u8) -> Result<u8> {
        self.failure.map_or(Ok(code), |error| output::judge(Err(error)).map(|_| code))
    }

    /// Removes the block.
    pub fn clear(&mut self) {
        let cleared = self.clear_block();
        self.write(&cleared);
    }

    /// The escape sequence that removes the block, which counts as removed from now on.
    fn clear_block(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    fn write(&mut self, text: &str) {
        if self.failure.is_none()
            && let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
        {
            self.failure = Some(error);
            self.run.shutdown();
        }
    }

    fn block(&self, progress: &Progress) -> String {
        let share = (progress.elapsed.as_secs_f64() / progress.duration.as_secs_f64()).min(1.0);
        let done = (share * BAR_WIDTH as f64) as usize;
        let bar = self.paint(Tone::Good, &"━".repeat(done)) + &self.paint(Tone::Faint, &"─".repeat(BAR_WIDTH - done));
        let leader = if progress.leader.is_empty() {
            self.paint(Tone::Notable, &format!("{:<9}", "none"))
        } else {
            self.paint(Tone::Strong, &format!("{:<9}", progress.leader))
        };
        let number = |value: String| self.paint(Tone::Strong, &format!("{value:>9}"));
        format!(
            "\n  {bar}  {:.1} s of {} s\n\n  published {}/s   processed {}/s   pending {}\n  \
             leader    {leader}     {} {}\n",
            progress.elapsed.as_secs_f64(),
            progress.duration.as_secs_f64(),
            number(grouped(progress.published_per_s)),
            number(grouped(progress.processed_per_s)),
            number(grouped(progress.pending)),
            progress.processors,
            progress.names.join(" "),
        )
    }
}

fn plain(progress: &Progress) -> String {
    format!(
        "{:>6.1} s  published {}/s  processed {}/s  pending {}  leader {}  {} {}\n",
        progress.elapsed.as_secs_f64(),
        progress.published_per_s,
        progress.processed_per_s,
        progress.pending,
        if progress.leader.is_empty() { "none" } else { &progress.leader },
        progress.processors,
        progress.names.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shutdown::shutdown_channel;

    /// Accepts one write, and then fails.
    struct Once(bool);

    impl Write for Once {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_screen_that_cannot_be_written_to_ends_the_run_once() {
        let (run, requests) = shutdown_channel();
        let mut console = Console { out: Once(false), terminal: false, colour: false, drawn: 0, failure: None, run };
        console.line("begin");
        assert!(requests.receiver().try_recv().is_err());
        console.line("lost");
        console.line("lost, too");
        assert!(requests.receiver().try_recv().is_ok(), "the run is asked to stop");
        assert!(requests.receiver().try_recv().is_err(), "a second request would stop it at once");
        assert!(console.finish(0).expect_err("the output was lost").to_string().contains("standard output"));
    }

    fn progress() -> Progress {
        Progress {
            elapsed: Duration::from_millis(4_200),
            duration: Duration::from_secs(10),
            published_per_s: 2_003,
            processed_per_s: 1_999,
            pending: 3,
            leader: "d0".to_owned(),
            processors: "consumers",
            names: ["c0", "c1", "c2"].map(str::to_owned).into(),
        }
    }

    fn shown(terminal: bool, use_it: impl Fn(&mut Console<Vec<u8>>)) -> String {
        let (run, _) = shutdown_channel();
        let mut console = Console { out: Vec::new(), terminal, colour: false, drawn: 0, failure: None, run };
        use_it(&mut console);
        String::from_utf8(console.out).unwrap()
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        let text = shown(false, |console| {
            console.line("begin");
            console.draw(&progress());
            console.draw(&Progress { leader: String::new(), ..progress() });
        });
        let expected = "begin\n   \
             4.2 s  published 2003/s  processed 1999/s  pending 3  leader d0  consumers 3\n   \
             4.2 s  published 2003/s  processed 1999/s  pending 3  leader none  consumers 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_terminal_gets_one_block_below_the_lines() {
        let text = shown(true, |console| {
            console.draw(&progress());
            console.line("event");
            console.draw(&progress());
            console.clear();
            console.clear();
        });
        assert!(text.contains("4.2 s of 10 s") && text.contains("published     2,003/s"), "{text}");
        let clear = "\x1b[5A\r\x1b[J";
        assert_eq!(text.matches(clear).count(), 2, "{text:?}");
        assert!(text.contains(&format!("{clear}event\n")) && text.ends_with(clear), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
    }
}
