//! Consumer processes with the handler of the rows. It first notes each run in a file, so that runs are counted even if
//! the process is killed, and then does what the message's id says.
//!
//! Such a process is this test program again, with an environment that makes it a consumer.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use oncecast::lab::{self, ChildProcess, Cluster, ports};
use oncecast::programs::consumer::stamp;
use oncecast::{Consumer, Delivery, HandlerError};

use crate::support::load::number;
use crate::support::{DEADLINE, logs};

/// A message with this in its id kills the process that works on it.
pub const POISON: &str = "poison";
/// A message with this in its id takes [`SLOW_WORK`].
pub const SLOW: &str = "slow";
/// See [`SLOW`].
const SLOW_WORK: Duration = Duration::from_millis(5);
/// A message with this in its id waits until the gate is opened.
pub const GATED: &str = "gated";
/// Of the messages whose ids begin with this, one in forty is rejected, and another fails the first time.
pub const MIXED: &str = "mixed";

/// The process's settings.
const REDIS_URL: &str = "FAULTS_WORKER_REDIS_URL";
const LISTEN: &str = "FAULTS_WORKER_LISTEN";
const ID: &str = "FAULTS_WORKER_ID";
const CONCURRENCY: &str = "FAULTS_WORKER_CONCURRENCY";
const FOLDER: &str = "FAULTS_WORKER_FOLDER";

/// In the folder: a line for each run, and the file whose presence opens the gate.
const RUNS: &str = "worker-runs";
const GATE: &str = "worker-gate";

/// A row's consumers `w0`, `w1`, … on ports of their own, none of which runs at first. Killed on drop.
pub struct Workers {
    pub addresses: Vec<String>,
    processes: Vec<Option<ChildProcess>>,
    url: String,
    folder: PathBuf,
    concurrency: usize,
}

impl Workers {
    /// Consumers with so many handler threads each, for the cluster's group. Their notes are in the server's folder.
    pub fn new(cluster: &mut Cluster, count: usize, concurrency: usize) -> Workers {
        let url = cluster.redis().url();
        Workers::of(&url, cluster.redis().folder(), count, concurrency)
    }

    /// The same for the group at a URL, with their notes in `folder`.
    pub fn of(url: &str, folder: &Path, count: usize, concurrency: usize) -> Workers {
        let port = |_| format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
        let (url, folder) = (url.to_owned(), folder.to_owned());
        let addresses = (0..count).map(port).collect();
        Workers { addresses, processes: (0..count).map(|_| None).collect(), url, folder, concurrency }
    }

    /// Starts one that does not run; it listens when this returns.
    pub fn start(&mut self, number: usize) {
        let name = format!("w{number}");
        let what = format!("{name} to listen on {}", self.addresses[number]);
        let started = lab::wait_until(DEADLINE, what, || {
            let process = ChildProcess::spawn(&name, self.command(number, &name))?;
            match process.wait_for_line("event=listening", DEADLINE) {
                Ok(_) => Ok(Some(process)),
                // A connection of its predecessor may still be closing.
                Err(_) if process.stdout().all().iter().any(|line| line.contains("os error 98")) => Ok(None),
                Err(error) => Err(error),
            }
        });
        self.processes[number] = Some(started.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Starts all.
    pub fn start_all(&mut self) {
        (0..self.processes.len()).for_each(|number| self.start(number));
    }

    fn command(&self, number: usize, name: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
        command.args(["--exact", "workers::worker", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(REDIS_URL, &self.url).env(LISTEN, &self.addresses[number]).env(ID, name);
        command.env(CONCURRENCY, self.concurrency.to_string()).env(FOLDER, &self.folder);
        command
    }

    /// Fails if one that was started has ended.
    pub fn must_run(&mut self) {
        self.processes.iter_mut().flatten().for_each(|process| process.must_run().unwrap());
    }

    /// One that was started.
    pub fn process(&mut self, number: usize) -> &mut ChildProcess {
        self.processes[number].as_mut().expect("it was started")
    }

    /// Kills one with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.process(number).kill().expect("it can be killed");
    }

    /// Stops one with SIGTERM; it must exit with 0. Returns its last line.
    pub fn stop(&mut self, number: usize) -> String {
        let process = self.process(number);
        let ended = process.stop(DEADLINE).expect("it ends on SIGTERM");
        assert!(ended.success(), "{}", process.failure(ended));
        process.wait_for_line("event=stopped", DEADLINE).expect("it says what it has done")
    }

    /// Restarts each that has ended by itself. Returns how many had.
    pub fn revive(&mut self) -> usize {
        let started: Vec<usize> = (0..self.processes.len()).filter(|n| self.processes[*n].is_some()).collect();
        let ended = |n: &usize| self.processes[*n].as_mut().is_some_and(|p| p.ended().expect("our child").is_some());
        let ended: Vec<usize> = started.into_iter().filter(ended).collect();
        ended.iter().for_each(|number| self.start(*number));
        ended.len()
    }

    /// Lets gated messages continue, later ones as well.
    pub fn open_gate(&self) {
        fs::write(self.folder.join(GATE), "").expect("the folder is ours");
    }

    /// Makes later gated messages wait until it is opened again.
    pub fn shut_gate(&self) {
        // It may never have been opened.
        let _ = fs::remove_file(self.folder.join(GATE));
    }

    /// How often a handler started each message, by the id in its payload.
    pub fn runs(&self) -> BTreeMap<String, usize> {
        self.noted().into_iter().fold(BTreeMap::new(), |mut runs, (_, name)| {
            *runs.entry(name).or_default() += 1;
            runs
        })
    }

    /// Every run so far: the id that the leader gave the message, and the one in its payload.
    pub fn noted(&self) -> Vec<(u64, String)> {
        // Not there before the first run.
        let text = fs::read_to_string(self.folder.join(RUNS)).unwrap_or_default();
        let parts = text.lines().map(|line| line.split_once(' ').expect("our own lines"));
        parts.map(|(id, name)| (u64::from_str_radix(id, 16).expect("our own id"), name.to_owned())).collect()
    }

    /// The number of runs beyond the first of each message.
    pub fn repeated_runs(&self) -> usize {
        self.runs().values().map(|runs| runs - 1).sum()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if thread::panicking() {
            self.processes.iter().flatten().for_each(logs::show);
        }
    }
}

/// Not a test: the main function of the process.
#[test]
#[ignore = "it is the consumer process of other tests"]
fn worker() {
    // Run by the test harness, not as a worker process.
    let Ok(url) = std::env::var(REDIS_URL) else { return };
    let setting = |name: &str| std::env::var(name).expect("all are set or none");
    let folder = PathBuf::from(setting(FOLDER));
    let notes = OpenOptions::new().append(true).create(true).open(folder.join(RUNS)).expect("the folder is there");
    let gate = folder.join(GATE);
    let handler = move |delivery: &Delivery<'_>| {
        let text = std::str::from_utf8(delivery.payload())?;
        let name = text.split('"').nth(3).unwrap_or(text);
        // In one write: the system appends it as a whole, even beside other writers, and keeps it if this process dies.
        (&notes).write_all(format!("{} {name}\n", delivery.id()).as_bytes())?;
        if name.contains(POISON) {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?;
        }
        if name.starts_with(MIXED) {
            match (number(name) % 40, delivery.number()) {
                (0, _) => return Err(HandlerError::reject("a test rejects it")),
                (1, 1) => return Err(HandlerError::retry("a test fails it once")),
                _ => {}
            }
        }
        if name.contains(SLOW) {
            thread::sleep(SLOW_WORK);
        }
        while name.contains(GATED) && !gate.exists() {
            thread::sleep(Duration::from_millis(2));
        }
        stamp(delivery)
    };
    let concurrency = setting(CONCURRENCY).parse().expect("a number");
    let consumer = Consumer::builder().redis_url(url).listen(setting(LISTEN)).consumer_id(setting(ID));
    // As many as the program allows.
    let consumer = consumer.concurrency(concurrency).prefetch(1_024).handler(handler).bind().expect("a free port");
    let _log = oncecast::process::log::init(log::LevelFilter::Info, consumer.consumer_id(), "consumer")
        .expect("the first logger");
    consumer.shutdown_handle().on_signals().expect("the first handler of signals");
    consumer.run().expect("a clean end");
}
