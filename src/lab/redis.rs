//! A private Redis server: a child process with a folder of its own on a free port of 127.0.0.1.
//!
//! It shares nothing with other servers on this machine: no port, no folder, no configuration file. Dropping the
//! [`RedisServer`] stops the process and removes the folder. A stopped or killed server can be started again on the
//! same port and folder, to see what survives.

use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use redis::Value;

use super::child::ChildProcess;
use super::folder::PrivateFolder;
use super::wait::wait_until;
use super::{ports, programs};
use crate::base::error::{Error, Result};
use crate::ledger::{Command, Connection, Server};
use crate::net::ClientFiles;

mod config;
mod tls;

pub use self::config::RedisOptions;
pub use self::tls::{PemPair, RedisTls};

/// How long a server may take until it answers, including the time to load its file.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a server may take to exit after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for a reply.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// How many ports are tried.
pub(super) const PORT_TRIES: usize = 8;

/// See the module's text.
pub struct RedisServer {
    // Before the folder: the server must have ended before its folder is removed.
    child: Option<ChildProcess>,
    folder: PrivateFolder,
    program: PathBuf,
    options: RedisOptions,
    port: u16,
    /// The port with TLS, if there is one.
    tls_port: u16,
    /// Whether it has ever answered.
    has_run: bool,
}

/// The outcome of starting the program on a port.
enum Launch {
    Answers,
    PortTaken,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub fn start(options: RedisOptions) -> Result<RedisServer> {
        let mut server = RedisServer::prepare(options)?;
        for _ in 0..PORT_TRIES {
            if let Launch::Answers = server.launch()? {
                return Ok(server);
            }
            server.take_port()?;
        }
        Err(too_many_ports_taken())
    }

    /// A server that does not run yet, on a port of its own.
    pub(super) fn prepare(options: RedisOptions) -> Result<RedisServer> {
        let safe = |password: &String| !password.is_empty() && password.bytes().all(|b| b.is_ascii_alphanumeric());
        if !options.password.iter().all(safe) {
            return Err(Error::Failed(
                "the password of a private server must consist of letters and digits".to_owned(),
            ));
        }
        let program = programs::redis_server(options.program.as_deref())?;
        let folder = PrivateFolder::create("redis")?;
        let mut server = RedisServer { child: None, folder, program, options, port: 0, tls_port: 0, has_run: false };
        server.take_port()?;
        Ok(server)
    }

    /// Starts servers that were prepared, all at the same time. Returns whether all run; if not, another program took
    /// a port first.
    pub(super) fn launch_all(servers: &mut [RedisServer]) -> Result<bool> {
        servers.iter_mut().try_for_each(RedisServer::spawn)?;
        for server in servers {
            if let Launch::PortTaken = server.wait_for_answer()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds lines to its configuration file, for its next start.
    pub(super) fn configure(&mut self, more: &[(&str, String)]) {
        self.options = self.options.with(more);
    }

    fn take_port(&mut self) -> Result<()> {
        self.port = self.free_port()?;
        if let Some(tls) = &self.options.tls {
            tls.write_files(self.folder.path())?;
            self.tls_port = self.free_port()?;
        }
        Ok(())
    }

    fn free_port(&self) -> Result<u16> {
        if self.options.cluster { ports::free_cluster_port() } else { ports::free_port() }
    }

    /// Starts a stopped or killed server again, on the same port and folder.
    ///
    /// Does what OPERATIONS.md tells operators to do if the kill left an append-only file that ends in the middle of a
    /// write, which also happens on a sound disk: the kernel interrupts long writes of a process that is killed.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = None;
        // The port may soon be released, for example by a connection of the former server that is still closing.
        let what = format!("port {} of the stopped redis to be free again", self.port);
        wait_until(START_LIMIT, what, || {
            Ok(match self.launch()? {
                Launch::Answers => Some(()),
                Launch::PortTaken => None,
            })
        })?;
        if !self.options.append_only {
            return Ok(());
        }
        // It may answer before what it has written about its file has been read here.
        let log = wait_until(START_LIMIT, "the log of its start".to_owned(), || {
            let log = self.child.as_ref().map(|child| child.stdout().all()).unwrap_or_default();
            Ok(log.iter().any(|line| line.contains("eady to accept connections")).then_some(log))
        })?;
        if log.iter().any(|line| line.contains("aof-load-truncated is enabled")) { self.rewrite_file() } else { Ok(()) }
    }

    /// Makes the server write its append-only file anew.
    ///
    /// Redis 7.0 leaves the beginning of a transaction whose end is missing in the file, and executes it when it loads
    /// the file a second time (valkey-io/valkey#4342): what was lost and done again would be there twice.
    fn rewrite_file(&self) -> Result<()> {
        let mut connection = self.connection();
        connection.query("rewriting the append-only file", Command::of(&["BGREWRITEAOF"]))?;
        wait_until(START_LIMIT, "the append-only file to be rewritten".to_owned(), || {
            let info = info(&mut connection, "persistence")?;
            let ended =
                ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().all(|of| field(&info, of) == Some("0"));
            Ok((ended && field(&info, "aof_last_bgrewrite_status") == Some("ok")).then_some(()))
        })
    }

    /// Stops the server in order, with SIGTERM.
    pub fn stop(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => child.stop(STOP_LIMIT).map(drop),
            None => Ok(()),
        }
    }

    /// Kills the server with SIGKILL. Data that the server had not written to its file is lost.
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => child.kill().map(drop),
            None => Ok(()),
        }
    }

    /// The process, to pause it or to see whether it runs; the last one if the server is stopped.
    pub fn process(&mut self) -> Option<&mut ChildProcess> {
        self.child.as_mut()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The program that it runs.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Its folder, with the append-only file if it keeps one.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port with TLS, if it has one.
    pub fn tls_port(&self) -> Option<u16> {
        self.options.tls.as_ref().map(|_| self.tls_port)
    }

    /// The port by which programs and other servers reach it: the one with TLS, if there is one.
    pub(super) fn main_port(&self) -> u16 {
        self.tls_port().unwrap_or(self.port)
    }

    /// A program's arguments for its TLS, and the same for a [`Server`].
    pub(super) fn tls_files(&self) -> (Vec<String>, ClientFiles) {
        let of = |tls: &RedisTls| (tls.arguments(self.folder()), tls.files(self.folder()));
        self.options.tls.as_ref().map(of).unwrap_or_default()
    }

    /// Its URL, with the password if it has one. Without TLS, unless it has nothing else.
    pub fn url(&self) -> String {
        if self.options.is_tls_only() { self.url_of("rediss", self.tls_port) } else { self.url_of("redis", self.port) }
    }

    /// A program's arguments for this server: its URL, and the files for TLS if it has TLS.
    pub fn arguments(&self) -> Vec<String> {
        let url = self.tls_port().map_or_else(|| self.url(), |port| self.url_of("rediss", port));
        [vec!["--redis-url".to_owned(), url], self.tls_files().0].concat()
    }

    fn url_of(&self, scheme: &str, port: u16) -> String {
        let login = self.options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        format!("{scheme}://{login}127.0.0.1:{port}")
    }

    /// Its address, for a [`Connection`] or a [`Ledger`](crate::ledger::Ledger).
    pub fn server(&self) -> Server {
        let tls = self.options.tls.as_ref().filter(|tls| tls.only);
        let files = tls.map_or_else(ClientFiles::default, |tls| tls.files(self.folder()));
        Server::with_files(&self.url(), files).expect("port, password and files are such that it is valid")
    }

    /// A new connection. It opens on first use, and again after a restart of the server.
    pub fn connection(&self) -> Connection {
        Connection::new(self.server(), REPLY_LIMIT)
    }

    /// The server's version, such as `redis 7.0.15` or `valkey 8.0.1`.
    pub fn version(&self) -> Result<String> {
        let info = info(&mut self.connection(), "server")?;
        let of = |name: &str| field(&info, name).map(str::to_owned);
        Ok(match of("valkey_version") {
            Some(version) => format!("valkey {version}"),
            None => format!("redis {}", of("redis_version").unwrap_or_default()),
        })
    }

    /// Whether it has all that its primary has. A primary has.
    pub fn is_in_sync(&self) -> bool {
        let said = info(&mut self.connection(), "replication");
        said.is_ok_and(|info| field(&info, "master_link_status").is_none_or(|status| status == "up"))
    }

    fn launch(&mut self) -> Result<Launch> {
        self.spawn()?;
        self.wait_for_answer()
    }

    fn spawn(&mut self) -> Result<()> {
        let config = self.folder().join("redis.conf");
        // A Sentinel keeps in it what it has learned.
        if !(self.options.sentinel && self.has_run) {
            config::write(&config, &self.options, self.folder(), self.port, self.tls_port)?;
        }
        let mut command = process::Command::new(&self.program);
        command.arg(config).current_dir(self.folder());
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        self.child = Some(ChildProcess::spawn("redis", command)?);
        Ok(())
    }

    /// Waits until the process answers that was started last.
    fn wait_for_answer(&mut self) -> Result<Launch> {
        let mut connection = self.connection();
        let child = self.child.as_mut().expect("it was started just before");
        let pid = child.pid().to_string();
        let what = format!("{} to answer on port {}", self.program.display(), self.port);
        let answer = wait_until(START_LIMIT, what, || {
            if child.ended()?.is_some() {
                let taken = child.stdout().all().iter().any(|line| line.contains("Address already in use"));
                return if taken { Ok(Some(Launch::PortTaken)) } else { Err(child.failure("did not start")) };
            }
            // Another server may have taken the port first: the one that answers must be our child.
            let Ok(info) = info(&mut connection, "server") else { return Ok(None) };
            if field(&info, "process_id") != Some(pid.as_str()) {
                return Ok(Some(Launch::PortTaken));
            }
            let pong = connection.query("asking whether redis is there", Command::of(&["PING"]));
            Ok(pong.is_ok().then_some(Launch::Answers))
        });
        match answer {
            Ok(Launch::Answers) => {
                self.has_run = true;
                Ok(Launch::Answers)
            }
            Ok(Launch::PortTaken) => {
                self.child = None;
                Ok(Launch::PortTaken)
            }
            Err(error) if child.ended()?.is_some() => Err(error),
            Err(error) => Err(child.failure(format_args!("did not start: {error}"))),
        }
    }
}

/// A new id for a Sentinel or a node of a Redis Cluster.
pub(super) fn id_of_a_node() -> String {
    (0..40).map(|_| fastrand::digit(16)).collect()
}

/// The error after so many ports.
pub(super) fn too_many_ports_taken() -> Error {
    Error::Failed(format!("starting redis: {PORT_TRIES} free ports were taken by other programs first"))
}

pub(super) fn info(connection: &mut Connection, section: &str) -> Result<String> {
    lines_of(connection, &["INFO", section])
}

/// The answer to a command that answers with lines of text.
pub(super) fn lines_of(connection: &mut Connection, words: &[&str]) -> Result<String> {
    match connection.query("reading what the server says of itself", Command::of(words))? {
        Value::BulkString(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Value::VerbatimString { text, .. } => Ok(text),
        other => Err(Error::Failed(format!("{} answered {other:?}", words[0]))),
    }
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
