//! The settings of a private server, and its configuration file: on the command line the password would show in the
//! list of processes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::tls::RedisTls;
use crate::base::error::{Error, Result};

/// The settings of a private server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The program; with `None`, `redis-server` or `valkey-server` on PATH.
    pub program: Option<PathBuf>,
    /// Whether it keeps an append-only file, synced every second, so that its data survive
    /// [`RedisServer::kill`](super::RedisServer::kill).
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

impl RedisOptions {
    /// The same with more lines for the configuration file.
    pub(in crate::lab) fn with(&self, more: &[(&str, String)]) -> RedisOptions {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        RedisOptions { config: self.config.iter().cloned().chain(more).collect(), ..self.clone() }
    }

    pub(super) fn is_tls_only(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.only)
    }
}

/// Writes the file for a server on these ports.
pub(super) fn write(path: &Path, options: &RedisOptions, folder: &Path, port: u16, tls_port: u16) -> Result<()> {
    let text = text(options, folder, port, tls_port);
    let write = || {
        let options = &mut fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(Error::io(format!("writing {}", path.display())))
}

fn text(options: &RedisOptions, folder: &Path, port: u16, tls_port: u16) -> String {
    let append_only = if options.append_only { "yes" } else { "no" };
    let mut text = format!(
        "bind 127.0.0.1\nport {}\ndir \"{}\"\ndaemonize no\nlogfile \"\"\nsave \"\"\nappendonly {append_only}\n\
         client-output-buffer-limit pubsub 256mb 128mb 60\n",
        if options.is_tls_only() { 0 } else { port },
        folder.display(),
    );
    if let Some(tls) = &options.tls {
        text.push_str(&tls.config(tls_port));
    }
    if let Some(password) = &options.password {
        text.push_str(&format!("requirepass {password}\n"));
    }
    if options.cluster {
        text.push_str("cluster-enabled yes\ncluster-config-file nodes.conf\n");
    }
    for (name, value) in &options.config {
        text.push_str(&format!("{name} {value}\n"));
    }
    text
}
