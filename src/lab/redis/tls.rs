//! TLS of a private Redis: its settings, and the files for it and its clients. Plain values; the files are in the
//! server's folder.

use std::fs;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::net::{ClientFiles, Identity};

/// TLS of a private server. Texts are PEM.
#[derive(Clone, Debug)]
pub struct RedisTls {
    /// The certificate of the authority that signed the others.
    pub authority: String,
    /// The server's.
    pub server: PemPair,
    /// Those of clients, without which the server refuses them; `None`: it requires none.
    pub client: Option<PemPair>,
    /// Whether it has no port without TLS.
    pub only: bool,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

const AUTHORITY: &str = "ca.pem";
const SERVER: [&str; 2] = ["server.pem", "server.key"];
const CLIENT: [&str; 2] = ["client.pem", "client.key"];

impl RedisTls {
    /// Writes the files to a folder that only this user can read.
    pub(super) fn write_files(&self, folder: &Path) -> Result<()> {
        let pair = |[certificate, key]: [&'static str; 2], pair: &PemPair| {
            [(certificate, pair.certificate.clone()), (key, pair.key.clone())]
        };
        let files = [(AUTHORITY, self.authority.clone())].into_iter().chain(pair(SERVER, &self.server));
        for (name, text) in files.chain(self.client.iter().flat_map(|own| pair(CLIENT, own))) {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        Ok(())
    }

    /// Lines for the configuration file. The server runs in its folder.
    pub(super) fn config(&self, port: u16) -> String {
        let [certificate, key] = SERVER;
        let clients = if self.client.is_some() { "yes" } else { "no" };
        format!(
            "tls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {AUTHORITY}\n\
             tls-auth-clients {clients}\n"
        )
    }

    /// The files of a client.
    pub(super) fn files(&self, folder: &Path) -> ClientFiles {
        let [certificate, key] = CLIENT.map(|name| folder.join(name));
        ClientFiles {
            roots: Some(folder.join(AUTHORITY)),
            identity: self.client.as_ref().map(|_| Identity { certificate, key }),
        }
    }

    /// The same as a program's arguments.
    pub(super) fn arguments(&self, folder: &Path) -> Vec<String> {
        let ClientFiles { roots, identity } = self.files(folder);
        let own = identity.map(|own| [("--redis-cert", own.certificate), ("--redis-key", own.key)]);
        let files = roots.map(|path| ("--redis-ca", path)).into_iter().chain(own.into_iter().flatten());
        files.flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect()
    }
}
