//! A private Redis server: a child process with a folder of its own on a free port of 127.0.0.1.
//!
//! It shares nothing with other servers on this machine: no port, no folder, no configuration file. Dropping the
//! [`RedisServer`] stops the process and removes the folder. A stopped or killed server can be started again on the
//! same port and folder, to see what survives.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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

mod tls;

pub use self::tls::{PemPair, RedisTls};

/// How long a server may take until it answers, including the time to load its file.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a server may take to exit after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for a reply.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// How many ports are tried.
const PORT_TRIES: usize = 8;

/// The settings of a private server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The program; with `None`, `redis-server` or `valkey-server` on PATH.
    pub program: Option<PathBuf>,
    /// Whether it keeps an append-only file, synced every second, so that its data survive [`RedisServer::kill`].
    pub append_only: bool,
    /// The password that clients need: letters and digits.
    pub password: Option<String>,
    /// TLS, on a port of its own.
    pub tls: Option<RedisTls>,
    /// Whether it is a Sentinel instead.
    pub sentinel: bool,
    /// Whether it is a node of a Redis Cluster, with a bus of its own.
    pub cluster: bool,
    /// More lines for its configuration file, such as `("appendfsync", "always")`. They override the others.
    pub config: Vec<(String, String)>,
}

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
}

/// The outcome of starting the program on a port.
enum Launch {
    Answers,
    PortTaken,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub fn start(options: RedisOptions) -> Result<RedisServer> {
        let safe = |password: &String| !password.is_empty() && password.bytes().all(|b| b.is_ascii_alphanumeric());
        if !options.password.iter().all(safe) {
            return Err(Error::Failed(
                "the password of a private server must consist of letters and digits".to_owned(),
            ));
        }
        let program = programs::redis_server(options.program.as_deref())?;
        let folder = PrivateFolder::create("redis")?;
        let mut server = RedisServer { child: None, folder, program, options, port: 0, tls_port: 0 };
        for _ in 0..PORT_TRIES {
            server.port = if server.options.cluster { ports::free_cluster_port()? } else { ports::free_port()? };
            if let Some(tls) = &server.options.tls {
                tls.write_files(server.folder.path())?;
                server.tls_port = ports::free_port()?;
            }
            if let Launch::Answers = server.launch()? {
                return Ok(server);
            }
        }
        Err(Error::Failed(format!("starting redis: {PORT_TRIES} free ports were taken by other programs first")))
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
        let log = self.child.as_ref().map(|child| child.stdout().all()).unwrap_or_default();
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

    /// Its folder, with the append-only file if it keeps one.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port with TLS, if it has one.
    pub fn tls_port(&self) -> Option<u16> {
        self.options.tls.as_ref().map(|_| self.tls_port)
    }

    /// Its URL, with the password if it has one. Without TLS, unless it has nothing else.
    pub fn url(&self) -> String {
        if self.is_tls_only() { self.url_of("rediss", self.tls_port) } else { self.url_of("redis", self.port) }
    }

    /// A program's arguments for this server: its URL, and the files for TLS if it has TLS.
    pub fn arguments(&self) -> Vec<String> {
        let url = |url: String| vec!["--redis-url".to_owned(), url];
        match &self.options.tls {
            Some(tls) => [url(self.url_of("rediss", self.tls_port)), tls.arguments(self.folder())].concat(),
            None => url(self.url()),
        }
    }

    fn is_tls_only(&self) -> bool {
        self.options.tls.as_ref().is_some_and(|tls| tls.only)
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

    fn launch(&mut self) -> Result<Launch> {
        let mut connection = self.connection();
        let mut command = process::Command::new(&self.program);
        command.arg(self.write_config()?).current_dir(self.folder());
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        let child = self.child.insert(ChildProcess::spawn("redis", command)?);
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
            Ok(Launch::Answers) => Ok(Launch::Answers),
            Ok(Launch::PortTaken) => {
                self.child = None;
                Ok(Launch::PortTaken)
            }
            Err(error) if child.ended()?.is_some() => Err(error),
            Err(error) => Err(child.failure(format_args!("did not start: {error}"))),
        }
    }

    /// Writes the configuration file. On the command line the password would show in the list of processes.
    fn write_config(&self) -> Result<PathBuf> {
        let path = self.folder().join("redis.conf");
        // A Sentinel keeps in it what it has learned; the port may be taken only before it has run.
        if self.options.sentinel && self.child.is_some() && path.exists() {
            return Ok(path);
        }
        let append_only = if self.options.append_only { "yes" } else { "no" };
        let mut text = format!(
            "bind 127.0.0.1\nport {}\ndir \"{}\"\ndaemonize no\nlogfile \"\"\nsave \"\"\nappendonly {append_only}\n\
             client-output-buffer-limit pubsub 256mb 128mb 60\n",
            if self.is_tls_only() { 0 } else { self.port },
            self.folder().display(),
        );
        if let Some(tls) = &self.options.tls {
            text.push_str(&tls.config(self.tls_port));
        }
        if let Some(password) = &self.options.password {
            text.push_str(&format!("requirepass {password}\n"));
        }
        if self.options.cluster {
            text.push_str("cluster-enabled yes\ncluster-config-file nodes.conf\n");
        }
        for (name, value) in &self.options.config {
            text.push_str(&format!("{name} {value}\n"));
        }
        let write = || {
            let options = &mut fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(Error::io(format!("writing {}", path.display())))?;
        Ok(path)
    }
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
