//! What the programs report to systemd, and how a hanging program is detected.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::ptrace;
use nix::unistd::Pid;
use oncecast::lab::{ChildProcess, Cluster, Signal, ports};

use crate::support::http::get;
use crate::support::{
    DEADLINE, bare_cluster, client_of, options, programs, publish, redis_server, threads, wait_until, wait_until_done,
};

/// An iteration of a worker may take at most eight seconds.
const LONGER_THAN_AN_ITERATION: Duration = Duration::from_secs(10);

/// Listens in systemd's place, on a thread of its own, since a program blocks if its messages are not read. Ends on
/// drop.
pub struct Manager {
    path: PathBuf,
    messages: Receiver<String>,
    listener: Option<JoinHandle<()>>,
    /// All messages so far.
    heard: String,
}

impl Manager {
    pub fn listen(test: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("oncecast-notify-{test}-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).expect("a new socket");
        let (sender, messages) = unbounded();
        let listener = std::thread::spawn(move || {
            let mut text = [0; 4096];
            while let Ok(length @ 1..) = socket.recv(&mut text) {
                let text = String::from_utf8(text[..length].to_vec()).expect("text");
                // Fails once the manager was dropped.
                let _ = sender.send(text);
            }
        });
        Manager { path, messages, listener: Some(listener), heard: String::new() }
    }

    /// Makes a program report here, with a watchdog ping at least every second.
    pub fn supervise(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "3000000").env_remove("WATCHDOG_PID");
    }

    /// The next message of a program, if it comes in time.
    pub fn hear(&mut self, within: Duration) -> Option<String> {
        let text = self.messages.recv_timeout(within).ok()?;
        self.heard += &text;
        Some(text)
    }

    /// Listens until a line with `part` has arrived.
    pub fn wait_for(&mut self, part: &str) {
        let began = Instant::now();
        while !self.heard.lines().any(|line| line.contains(part)) {
            assert!(began.elapsed() < DEADLINE, "{part} was not said, but\n{}", self.heard);
            self.hear(DEADLINE / 10);
        }
    }
}

impl Manager {
    /// Fails if a program has reported a loop that hangs, here or in its log.
    pub fn assert_no_hang(&mut self, program: &ChildProcess) {
        while self.hear(Duration::from_millis(1)).is_some() {}
        let log = program.stderr().tail(1_000);
        assert!(!self.heard.contains("hangs") && !log.contains("event=hung"), "{log}\n{}", self.heard);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // An empty message ends the listener.
        let ended = UnixDatagram::unbound().and_then(|socket| socket.send_to(&[], &self.path));
        if ended.is_ok()
            && let Some(listener) = self.listener.take()
        {
            let _ = listener.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A dispatcher of the cluster, supervised.
fn supervised_dispatcher(cluster: &Cluster, manager: &Manager) -> ChildProcess {
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--consumers", &cluster.address(0).to_string()]);
    manager.supervise(&mut command);
    ChildProcess::spawn("d0", command).expect("it starts")
}

#[test]
fn a_dispatcher_in_sync_is_ready_and_reports_its_role() {
    let mut manager = Manager::listen("dispatcher");
    let cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut dispatcher = supervised_dispatcher(&cluster, &manager);
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=leads with epoch ");
    manager.wait_for("WATCHDOG=1");
    dispatcher.signal(Signal::SIGTERM).expect("it runs");
    manager.wait_for("STOPPING=1");
    assert_eq!(dispatcher.wait(DEADLINE).expect("it ends").code(), Some(0));
}

#[test]
fn a_subscribed_shadow_is_ready_and_serves_its_figures() {
    let mut manager = Manager::listen("shadow");
    let mut cluster = bare_cluster();
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--shadow", "--dispatcher-id", "s0", "--metrics-addr", &address.to_string()]);
    manager.supervise(&mut command);
    let mut shadow = ChildProcess::spawn("s0", command).expect("it starts");
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=shadow, no group has stored anything yet, difference 0");
    manager.wait_for("WATCHDOG=1");
    publish(&mut client_of(&mut cluster), "m", 0..10);
    let metrics = wait_until("the messages to be counted", || {
        get(address, "/metrics").map(|(_, text)| text).filter(|text| text.contains("oncecast_shadow_messages_total 10"))
    });
    for figure in ["shadow_bytes_total 190", "shadow_difference 0", "shadow_comparing 0", "readiness 1"] {
        assert!(metrics.contains(&format!("oncecast_{figure}")), "no {figure} in {metrics}");
    }
    assert_eq!(get(address, "/readyz").expect("it answers").0, 200);
    cluster.redis().kill().expect("it runs");
    manager.wait_for("STATUS=not ready: not subscribed");
    assert_eq!(get(address, "/readyz").expect("it answers").0, 503);
    cluster.redis().start_again().expect("it starts again");
    wait_until("it to be ready again", || (get(address, "/readyz")?.0 == 200).then_some(()));
    shadow.signal(Signal::SIGTERM).expect("it runs");
    manager.wait_for("STOPPING=1");
    assert_eq!(shadow.wait(DEADLINE).expect("it ends").code(), Some(0));
}

#[test]
fn without_redis_programs_are_alive_but_not_ready() {
    for program in ["oncecast-dispatcher", "oncecast-consumer"] {
        let mut manager = Manager::listen(program);
        let mut redis = redis_server();
        redis.kill().expect("it runs");
        let mut command = programs().command(program).expect("the program is built");
        let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
        let own = if program == "oncecast-consumer" { "--listen" } else { "--consumers" };
        command.args(["--redis-url", &redis.url(), own, &listen]);
        manager.supervise(&mut command);
        let _child = ChildProcess::spawn(program, command).expect("it starts");
        manager.wait_for("STATUS=not ready: ");
        manager.wait_for("WATCHDOG=1");
        assert!(!manager.heard.contains("READY=1"), "{}", manager.heard);
        redis.start_again().expect("it starts again");
        manager.wait_for("READY=1");
    }
}

#[test]
fn a_stopping_consumer_notifies_systemd() {
    let mut manager = Manager::listen("consumer");
    let redis = redis_server();
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--listen"]);
    command.arg(format!("127.0.0.1:{}", ports::free_port().expect("a free port")));
    manager.supervise(&mut command);
    let mut consumer = ChildProcess::spawn("c0", command).expect("it starts");
    manager.wait_for("READY=1");
    consumer.signal(Signal::SIGTERM).expect("it runs");
    manager.wait_for("STOPPING=1");
    assert_eq!(consumer.wait(DEADLINE).expect("it ends").code(), Some(0));
}

/// A paused process is not a hanging loop.
#[test]
fn a_paused_process_is_not_reported_as_a_hang() {
    let mut manager = Manager::listen("stopped");
    let cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut dispatcher = supervised_dispatcher(&cluster, &manager);
    manager.wait_for("STATUS=leads with epoch ");
    dispatcher.signal(Signal::SIGSTOP).expect("it runs");
    std::thread::sleep(LONGER_THAN_AN_ITERATION);
    let seen = dispatcher.stderr().count();
    dispatcher.signal(Signal::SIGCONT).expect("it is stopped");
    // Its lease has expired meanwhile. By the time it leads again, each loop has checked the clock.
    dispatcher.stderr().wait_for_after(seen, "event=elected", DEADLINE).expect("it leads again");
    manager.assert_no_hang(&dispatcher);
}

/// A paused Redis is not a hanging loop.
#[test]
fn a_paused_redis_is_not_reported_as_a_hang() {
    let mut manager = Manager::listen("redis");
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let dispatcher = supervised_dispatcher(&cluster, &manager);
    manager.wait_for("STATUS=leads with epoch ");
    cluster.redis().process().expect("it runs").signal(Signal::SIGSTOP).expect("it runs");
    dispatcher.wait_for_line("event=redis-trouble", DEADLINE).expect("it is seen");
    std::thread::sleep(LONGER_THAN_AN_ITERATION);
    cluster.redis().process().expect("it runs").signal(Signal::SIGCONT).expect("it is stopped");
    dispatcher.wait_for_line("event=redis-recovered", DEADLINE).expect("it is seen");
    manager.assert_no_hang(&dispatcher);
}

/// Stops one thread of a leader, as a debugger would.
fn stop_one_thread(name: &'static str) {
    let mut manager = Manager::listen(name);
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let dispatcher = supervised_dispatcher(&cluster, &manager);
    let mut redis = client_of(&mut cluster);
    manager.wait_for("STATUS=leads with epoch ");
    publish(&mut redis, name, 0..10);
    wait_until_done(&mut redis, 10);
    let thread = threads(dispatcher.pid())[name];
    let thread = Pid::from_raw(thread.try_into().expect("a thread's id"));
    ptrace::seize(thread, ptrace::Options::empty()).expect("a child's thread");
    ptrace::interrupt(thread).expect("it runs");
    dispatcher.wait_for_line(&format!("event=hung loop={name}"), DEADLINE).expect("the hang is logged");
    // Earlier messages are still in the socket.
    manager.wait_for(&format!("STATUS=the loop {name} hangs"));
    let later = manager.hear(Duration::from_millis(2_500));
    assert_eq!(later, None, "{name}: the watchdog is still fed");
    // Otherwise the process could not end before this thread.
    ptrace::detach(thread, None).expect("it is stopped");
}

#[test]
fn a_hanging_loop_is_logged_and_stops_the_watchdog_pings() {
    std::thread::scope(|scope| {
        for name in ["ingest", "courier", "redistributor", "listener", "election"] {
            scope.spawn(move || stop_one_thread(name));
        }
    });
}
