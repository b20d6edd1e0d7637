//! The demonstration's screen: a block that is drawn again and again at the bottom, and lines that stay above it.
//!
//! On a terminal the block is redrawn in place; elsewhere there is no block, and a plain line now and then takes its
//! part. A screen that can't be written to any more ends the run, as if it had been interrupted.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::base::error::Result;
use crate::base::shutdown::ShutdownHandle;
use crate::process::output;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The width of the progress bar, in characters; the whole block stays below 80.
const BAR_WIDTH: usize = 50;

/// What the block shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Since publishing began.
    pub elapsed: Duration,
    /// How long is published.
    pub duration: Duration,
    /// Messages published in the last second.
    pub published_per_s: u64,
    /// Results recorded in the last second.
    pub processed_per_s: u64,
    /// Messages without a result.
    pub pending: u64,
    /// The leader's name; empty if there is none.
    pub leader: String,
    /// The connected consumers' names.
    pub consumers: Vec<String>,
}

/// How a word is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// What matters.
    Strong,
    /// What is there for those who look closer.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// As it should not be.
    Bad,
}

/// See the module's text.
pub struct Screen<W: Write = io::Stdout> {
    out: W,
    /// Whether the block can be redrawn in place.
    terminal: bool,
    colour: bool,
    /// Lines of the block that stand at the bottom now.
    drawn: usize,
    /// Why nothing can be written any more.
    failure: Option<io::Error>,
    /// Whom to ask to stop then.
    run: ShutdownHandle,
}

impl Screen {
    /// The process's standard output. If it can't be written to, `run` is asked to stop.
    pub fn stdout(run: ShutdownHandle) -> Screen {
        let set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Screen { out: io::stdout(), terminal, colour: terminal && !set("NO_COLOR"), drawn: 0, failure: None, run }
    }
}

impl<W: Write> Screen<W> {
    /// Whether there is a block that is redrawn, several times a second; otherwise draw one plain line each second.
    pub fn is_live(&self) -> bool {
        self.terminal
    }

    /// `text`, coloured where colours are shown.
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

    /// Writes a line that stays.
    pub fn line(&mut self, text: &str) {
        let text = format!("{}{text}\n", self.wiped());
        self.write(&text);
    }

    /// Shows how things stand.
    pub fn draw(&mut self, frame: &Frame) {
        let text = if self.terminal { self.block(frame) } else { plain(frame) };
        let text = format!("{}{text}", self.wiped());
        self.drawn = if self.terminal { text.matches('\n').count() } else { 0 };
        self.write(&text);
    }

    /// The exit code of a run that came to `code`; an error if what it said could not be written.
    pub fn ended(self, code: u8) -> Result<u8> {
        self.failure.map_or(Ok(code), |error| output::judge(Err(error)).map(|_| code))
    }

    /// Takes the block away.
    pub fn wipe(&mut self) {
        let wiped = self.wiped();
        self.write(&wiped);
    }

    /// What takes the block away; it counts as gone from now on.
    fn wiped(&mut self) -> String {
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

    fn block(&self, frame: &Frame) -> String {
        let share = (frame.elapsed.as_secs_f64() / frame.duration.as_secs_f64()).min(1.0);
        let done = (share * BAR_WIDTH as f64) as usize;
        let bar = self.paint(Tone::Good, &"━".repeat(done)) + &self.paint(Tone::Faint, &"─".repeat(BAR_WIDTH - done));
        let leader = if frame.leader.is_empty() {
            self.paint(Tone::Notable, &format!("{:<9}", "none"))
        } else {
            self.paint(Tone::Strong, &format!("{:<9}", frame.leader))
        };
        let number = |value: String| self.paint(Tone::Strong, &format!("{value:>9}"));
        format!(
            "\n  {bar}  {:.1} s of {} s\n\n  published {}/s   processed {}/s   pending {}\n  leader    {leader}     consumers {}\n",
            frame.elapsed.as_secs_f64(),
            frame.duration.as_secs_f64(),
            number(grouped(frame.published_per_s)),
            number(grouped(frame.processed_per_s)),
            number(grouped(frame.pending)),
            frame.consumers.join(" "),
        )
    }
}

fn plain(frame: &Frame) -> String {
    format!(
        "{:>6.1} s  published {}/s  processed {}/s  pending {}  leader {}  consumers {}\n",
        frame.elapsed.as_secs_f64(),
        frame.published_per_s,
        frame.processed_per_s,
        frame.pending,
        if frame.leader.is_empty() { "none" } else { &frame.leader },
        frame.consumers.len(),
    )
}

/// A number with a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let groups = digits.as_bytes()[first..].chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (first > 0).then(|| digits[..first].to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shutdown::shutdown_channel;

    /// Takes one write.
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
        let mut screen = Screen { out: Once(false), terminal: false, colour: false, drawn: 0, failure: None, run };
        screen.line("begin");
        assert!(requests.receiver().try_recv().is_err());
        screen.line("lost");
        screen.line("lost, too");
        assert!(requests.receiver().try_recv().is_ok(), "it is interrupted");
        assert!(requests.receiver().try_recv().is_err(), "a second request would mean: at once");
        assert!(screen.ended(0).expect_err("somebody waits for it").to_string().contains("standard output"));
    }

    fn frame() -> Frame {
        Frame {
            elapsed: Duration::from_millis(4_200),
            duration: Duration::from_secs(10),
            published_per_s: 2_003,
            processed_per_s: 1_999,
            pending: 3,
            leader: "d0".to_owned(),
            consumers: ["c0", "c1", "c2"].map(str::to_owned).into(),
        }
    }

    fn shown(terminal: bool, use_it: impl Fn(&mut Screen<Vec<u8>>)) -> String {
        let (run, _) = shutdown_channel();
        let mut screen = Screen { out: Vec::new(), terminal, colour: false, drawn: 0, failure: None, run };
        use_it(&mut screen);
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        let text = shown(false, |screen| {
            screen.line("begin");
            screen.draw(&frame());
            screen.draw(&Frame { leader: String::new(), ..frame() });
        });
        let expected = "begin\n   \
             4.2 s  published 2003/s  processed 1999/s  pending 3  leader d0  consumers 3\n   \
             4.2 s  published 2003/s  processed 1999/s  pending 3  leader none  consumers 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_terminal_gets_one_block_below_the_lines() {
        let text = shown(true, |screen| {
            screen.draw(&frame());
            screen.line("event");
            screen.draw(&frame());
            screen.wipe();
            screen.wipe();
        });
        assert!(text.contains("4.2 s of 10 s") && text.contains("published     2,003/s"), "{text}");
        let wipe = "\x1b[5A\r\x1b[J";
        assert_eq!(text.matches(wipe).count(), 2, "{text:?}");
        assert!(text.contains(&format!("{wipe}event\n")) && text.ends_with(wipe), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        let numbers = [0, 12, 999, 1_000, 20_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "12", "999", "1,000", "20,000", "1,234,567"]);
    }
}
